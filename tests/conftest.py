"""What every test runs under."""

import jax
import pytest
from absl import flags


def pytest_configure() -> None:
    jax.config.update("jax_numpy_rank_promotion", "raise")
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
