"""What every test and every doctest runs under."""

import gc
import os
import pathlib
from collections.abc import Iterator

import jax
import pytest
from absl import flags

CONVERT = "invjax/commands/convert.py"
"""Not imported for doctests: a study has a flag --network, too."""


def pytest_configure() -> None:
    jax.config.update("jax_numpy_rank_promotion", "raise")
    flags.FLAGS.mark_as_parsed()


def pytest_ignore_collect(collection_path: pathlib.Path) -> bool | None:
    return True if collection_path.match(CONVERT) else None


@pytest.fixture(scope="session", autouse=True)
def _weights_dir(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Converted weights go to a folder of the session, not to the checkout's."""
    folder: pathlib.Path = tmp_path_factory.mktemp("weights")
    os.environ["INVJAX_WEIGHTS"] = str(folder)


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_end_with_their_module() -> Iterator[None]:
    """Programs that nobody will call again would fill gigabytes of memory."""
    yield
    jax.clear_caches()
    gc.collect()
