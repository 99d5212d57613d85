"""A descent that takes long goes on in its middle after a kill."""

import pathlib
from typing import Any

import numpy as np
import pytest

from invjax.runs import lanes, runner, shards, solver_states
from invjax.runs.folder import RunFolder
from invjax.runs.plans import LoadedPlan
from invjax.runs.runner import Run
from invjax.runs.solver_states import SolverStates
from tests.conftest import micro_representation
from tests.runs import made_up

NUM_STEPS = 12


class Killed(BaseException):
    """SIGKILL, as far as a run is concerned."""


@pytest.fixture(scope="module")
def group() -> lanes.Group:
    return made_up.group(micro_representation("relu1"), "micro/relu1", ("one",))


def _begin(workdir: pathlib.Path, group: lanes.Group) -> Run:
    settings = made_up.settings(num_steps=NUM_STEPS, num_starts=2, save_arrays=True)
    return runner.begin(
        RunFolder.claim(str(workdir), overwrite=False),
        LoadedPlan(lanes.plan([group], settings)),
        settings,
        weights={},
        lanes_per_unit=[1],
    )


def _go(workdir: pathlib.Path, group: lanes.Group) -> None:
    run = _begin(workdir, group)
    assert runner.carry_out(run, lambda todo: runner.compute(run, todo), lambda _: None)


def _image(path: pathlib.Path) -> np.ndarray:
    with np.load(path) as arrays:
        return arrays["image"]


def test_it_goes_on_from_the_last_state(
    tmp_path: pathlib.Path,
    group: lanes.Group,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    whole = SolverStates.save
    saved: list[int] = []

    def save(states: SolverStates, name: str, step: int, state: Any) -> None:
        whole(states, name, step, state)
        saved.append(step)

    def killed(states: SolverStates, name: str, step: int, state: Any) -> None:
        save(states, name, step, state)
        if step == 7:
            raise Killed

    monkeypatch.setattr(SolverStates, "save", save)
    _go(tmp_path / "whole", group)
    # It was over too soon.
    assert saved == []
    # A state at every step.
    monkeypatch.setattr(solver_states, "SECONDS_BETWEEN", 0.0)
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(SolverStates, "save", killed)
        with pytest.raises(Killed):
            _go(workdir, group)
    assert list(shards.read_records(workdir)) == []
    assert (workdir / "states" / "process-0").is_dir()
    capsys.readouterr()
    _go(workdir, group)
    assert "going on from step " in capsys.readouterr().out
    for start in range(2):
        path = f"arrays/one/micro_relu1/start_{start:03d}.npz"
        found, expected = (
            _image(folder / path) for folder in (workdir, tmp_path / "whole")
        )
        np.testing.assert_array_equal(found, expected)
    assert not (workdir / "states").exists()
