"""Lanes over several CPU devices: the bits of one device, and nothing exchanged."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest

from invjax.inversion import devices
from invjax.inversion.execution import Execution
from invjax.inversion.result import CONVERGED, FAILED

# Only the names of the results: they are computed in processes of their own.
from tests.inversion.on_devices import COMPILED, ON_HOST

ROOT = pathlib.Path(__file__).parents[2]
QUICK = ("converging", "slots", "collectives", "collectives_slots")


def _results(
    folder: pathlib.Path, num_devices: int, names: Iterable[str]
) -> dict[str, np.ndarray]:
    """What `on_devices` computes in processes with so many CPU devices."""
    path = folder / f"{num_devices}.npz"
    found: dict[str, np.ndarray] = {}
    for loops, flags in (
        (ON_HOST, ""),
        # What is compared is our program; see `on_devices`.
        (COMPILED, " --xla_disable_hlo_passes=cse"),
    ):
        subprocess.run(
            [
                *(sys.executable, "-m", "tests.inversion.on_devices", str(path)),
                *(name for name in names if name in loops),
            ],
            env=os.environ
            | {
                "JAX_NUM_CPU_DEVICES": str(num_devices),
                "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + flags,
            },
            cwd=ROOT,
            check=True,
        )
        with np.load(path) as arrays:
            found |= dict(arrays)
        assert found.pop("devices") == num_devices
    return found


def _check(found: dict[str, np.ndarray], alone: dict[str, np.ndarray]) -> None:
    assert set(found) == set(alone)
    differing = [
        name
        for name, array in alone.items()
        if not np.array_equal(array, found[name], equal_nan=array.dtype.kind == "f")
    ]
    assert not differing
    assert not any(found[name] for name in found if name.startswith("collectives"))


def test_lanes_have_the_bits_of_one_device(tmp_path):
    alone = _results(tmp_path, 1, QUICK)
    for name in ("converging", "slots"):
        # Or equal bits would show less than they seem to.
        assert len(set(alone[f"{name}.num_steps"].tolist())) > 4
        assert CONVERGED in alone[f"{name}.status"]
    _check(_results(tmp_path, 4, QUICK), alone)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    found = _results(tmp_path_factory.mktemp("alone"), 1, ON_HOST | COMPILED)
    for name in ("failing", "slots_failing"):
        assert np.sum(found[f"{name}.status"] == FAILED) == 4
    for name in ("redrawn", "revived"):
        assert np.sum(found[f"{name}.num_revivals"] > 0) > 0
    return found


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_lanes_and_chains_of_every_kind_have_the_bits_of_one_device(
    num_devices, alone, tmp_path
):
    _check(_results(tmp_path, num_devices, ON_HOST | COMPILED), alone)


def test_execution_says_how_many_devices_there_are():
    assert Execution(num_devices=1).mesh is None and devices.mesh(1) is None
    assert Execution(width=3, num_threads=2).lanes_at_once == 6
    for execution in (Execution(num_devices=99), Execution(scan=True, num_devices=99)):
        with pytest.raises(ValueError, match="num_devices is 99; this process has 1"):
            execution.mesh  # noqa: B018
    with pytest.raises(ValueError, match="num_devices is 0; it must be positive"):
        Execution(num_devices=0)
