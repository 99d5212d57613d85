"""64-bit JAX and strict promotion of types change no bit of any result."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import every_result

ROOT = pathlib.Path(__file__).parents[1]
UNUSUAL = {"JAX_ENABLE_X64": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
ORDINARY = {"JAX_ENABLE_X64": "0", "JAX_NUMPY_DTYPE_PROMOTION": "standard"}


def _arrays(folder, names: tuple[str, ...]) -> list[dict[str, np.ndarray]]:
    """What two processes side by side compute: with ordinary and with other types."""
    running = []
    for number, types in enumerate((ORDINARY, UNUSUAL)):
        path = folder / f"{number}.npz"
        command = [sys.executable, "-m", "tests.every_result", str(path), *names]
        environment = os.environ | types | {"JAX_PLATFORMS": "cpu"}
        running.append((path, subprocess.Popen(command, cwd=ROOT, env=environment)))
    codes = [process.wait() for _, process in running]
    assert codes == [0, 0]
    return [dict(np.load(path)) for path, _ in running]


@pytest.mark.parametrize(
    "names",
    [
        ("invert/hogb", "invert/fast"),
        *(
            pytest.param((group,), marks=pytest.mark.slow, id=group)
            for group in every_result.GROUPS
        ),
    ],
)
def test_results_have_the_same_bits_and_types(tmp_path, names):
    ordinary, unusual = _arrays(tmp_path, names)
    assert ordinary and ordinary.keys() == unusual.keys()
    for name, expected in ordinary.items():
        assert unusual[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(unusual[name], expected, err_msg=name)
