"""What every test and every doctest runs under."""

import gc
import os
import pathlib
import resource
import sys
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


@pytest.fixture(autouse=True)
def _compiled_programs_are_dropped() -> Iterator[None]:
    """Programs that nobody will call again would fill gigabytes of memory.

    A process keeps the memory that it has freed, and compiles into it: its peak rises
    again only once as much has been compiled as was dropped before.
    """
    yield
    if _peak_memory() > _Memory.limit:
        jax.clear_caches()
        gc.collect()
        _Memory.limit = _peak_memory() + _Memory.step


class _Memory:
    """Bytes: the peak at which programs are dropped, and what it may rise by after."""

    limit = 1e9
    step = 0.05e9


def _peak_memory() -> int:
    """The largest memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
