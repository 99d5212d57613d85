"""Solver states of long units: a descent that was stopped ends in the same bits."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
import pytest

from invjax.inversion import api, keeping, loop
from invjax.inversion.execution import Execution
from invjax.inversion.loop import CompiledPhase
from invjax.preimages import chain, mcmc
from invjax.runs import solver_states
from invjax.runs.solver_states import SolverStates
from tests.conftest import micro_representation

ALWAYS, NEVER = 0.0, 1e9
"""Seconds between two states."""


class Stopped(Exception):
    """In place of what kills a process."""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "solver_states"


def _state(seed: int) -> dict:
    return {
        "keys": jax.random.split(jax.random.key(seed), 3),
        "images": jax.random.normal(jax.random.key(seed), (3, 4, 4, 1)),
        "is_alive": np.array([True, False, True]),
        "num_steps": np.arange(3, dtype=np.int32),
        "nothing": None,
    }


def _same(found, expected) -> None:
    for pair in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        first, second = map(keeping.on_host, pair)
        np.testing.assert_array_equal(first, second)
        assert first.dtype == second.dtype


def _filled(folder: pathlib.Path) -> None:
    states = SolverStates(folder, seconds_between=ALWAYS)
    for step in (10, 20, 30):
        states.save("chunk", step, _state(step))
    states.close()


def _damage(folder: pathlib.Path, step: int) -> None:
    """Turns a bit in the middle of every file of a state."""
    for path in (folder / "chunk" / str(step)).rglob("*"):
        if path.is_file() and path.stat().st_size:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 16
            path.write_bytes(content)


def test_the_two_newest_states_are_kept_with_their_types(folder):
    _filled(folder)
    assert sorted(path.name for path in (folder / "chunk").iterdir()) == ["20", "30"]
    states = SolverStates(folder)
    found = states.restore("chunk", lambda step: jax.eval_shape(lambda: _state(step)))
    assert found is not None and found[0] == 30
    assert set(found[1]) == set(_state(0)) and found[1]["nothing"] is None
    _same(found[1], _state(30))
    assert found[1]["keys"].dtype == _state(0)["keys"].dtype
    assert states.restore("other", lambda step: _state(step)) is None
    states.clear()
    assert not folder.exists()


def test_a_damaged_state_gives_way_to_the_one_before(folder, capsys):
    _filled(folder)
    _damage(folder, 30)
    states = SolverStates(folder, seconds_between=ALWAYS)
    found = states.restore("chunk", _state)
    assert found is not None and found[0] == 20
    _same(found[1], _state(20))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "the solver state of step 30 is damaged" in said[0]
    # What was damaged is in nobody's way.
    states.save("chunk", 30, _state(31))
    states.close()
    again = SolverStates(folder).restore("chunk", _state)
    assert again is not None and again[0] == 30
    _same(again[1], _state(31))


def test_without_a_whole_state_the_chunk_begins_anew(folder, capsys):
    _filled(folder)
    _damage(folder, 20)
    _damage(folder, 30)
    states = SolverStates(folder)
    assert states.restore("chunk", _state) is None
    assert capsys.readouterr().out.splitlines()[-1].endswith("beginning anew")
    states.close()


def test_a_state_of_other_shapes_is_not_taken(folder):
    _filled(folder)

    def other(step: int) -> dict:
        return _state(step) | {"images": np.zeros((3, 5, 4, 1), np.float32)}

    states = SolverStates(folder)
    assert states.restore("chunk", other) is None
    states.close()


def test_a_state_that_cannot_be_written_costs_nothing_else(folder, capsys):
    folder.write_text("not a folder")
    states = SolverStates(folder, seconds_between=ALWAYS)
    states.save("chunk", 1, _state(1))
    states.close()
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{folder}: a solver state is not kept: ")


def test_states_are_due_after_a_while(folder, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(solver_states.time, "monotonic", lambda: now[0])
    states = SolverStates(folder, seconds_between=100)
    # The clock of a chunk begins when it is first asked about.
    assert not states.is_due("a")
    now[0] = 60.0
    assert not states.is_due("b")
    now[0] = 100.0
    assert states.is_due("a") and not states.is_due("b")
    states.save("a", 1, _state(1))
    assert not states.is_due("a")
    states.close()


def test_names_say_what_is_in_a_chunk_and_how_it_is_run():
    keys = jax.random.split(jax.random.key(0), 2)
    numbers = np.arange(4, dtype=np.float32)
    name = keeping.name_of(keys, numbers, options=(1, "a"))
    assert len(name) == 32
    assert keeping.name_of(keys, numbers, options=(1, "a")) == name
    for other in (
        keeping.name_of(keys[::-1], numbers, options=(1, "a")),
        keeping.name_of(keys, numbers + 1, options=(1, "a")),
        keeping.name_of(keys, numbers.reshape(2, 2), options=(1, "a")),
        keeping.name_of(keys, numbers, options=(2, "a")),
    ):
        assert other != name


def _descent(keeper: keeping.Keeper | None, execution: Execution) -> list:
    """Two lanes in two phases with jitter, 24 and 4 steps."""
    generator = np.random.default_rng(0)
    codes = generator.uniform(0.1, 0.6, (2, 7, 7, 12)).astype(np.float32)
    stream = api.invert_stream(
        jax.random.split(jax.random.key(0), 2),
        codes,
        micro_representation("relu2"),
        preset="ijcv2016",
        jitter=3,
        num_steps=28,
        history_every=3,
        execution=execution,
        keeper=keeper,
    )
    return [result for _, result in stream]


def _stopping(function: Callable, most: int) -> Callable:
    calls: list[None] = []

    def stopped(*args):
        calls.append(None)
        if len(calls) > most:
            raise Stopped
        return function(*args)

    return stopped


@pytest.mark.parametrize(
    ("execution", "num_calls", "step"),
    [
        (Execution(), 10, 10),
        (Execution(width=2, scan=True), 1, 2),
        # In the second phase.
        (Execution(width=2, scan=True), 13, 26),
        (Execution(num_threads=2), 20, None),
    ],
)
def test_a_stopped_descent_ends_in_the_same_bits(
    execution, num_calls, step, folder, monkeypatch, capsys
):
    monkeypatch.setattr(loop, "SCAN_STEPS", 2)
    whole = _descent(None, execution)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        limited = _stopping(CompiledPhase.__call__, num_calls)
        patch.setattr(CompiledPhase, "__call__", limited)
        states = SolverStates(folder, seconds_between=ALWAYS)
        with pytest.raises(Stopped):
            _descent(states, execution)
        states.close()
    states = SolverStates(folder, seconds_between=NEVER)
    again = _descent(states, execution)
    states.clear()
    said = capsys.readouterr().out
    assert f"going on from step {'' if step is None else step}" in said
    _same(again, whole)


@pytest.mark.slow
@pytest.mark.parametrize("num_calls", [3, 9])
def test_stopped_chains_end_in_the_same_bits(num_calls, folder, monkeypatch, capsys):
    """In the calibration, and among the draws."""
    phi = micro_representation("relu1")
    starts = np.random.default_rng(1).uniform(0.2, 0.8, (2, 16, 16, 3))
    starts = starts.astype(np.float32)

    def run(keeper: keeping.Keeper | None) -> mcmc.Samples:
        return mcmc.sample(
            jax.random.split(jax.random.key(0), 2),
            phi(starts[0]),
            phi,
            starts,
            target_error=0.2,
            num_samples=3,
            num_warmup=40,
            thin=2,
            execution=Execution(width=2, scan=True),
            keeper=keeper,
        )

    whole = run(None)
    with monkeypatch.context() as patch:
        patch.setattr(chain.Run, "_advance", _stopping(chain.Run._advance, num_calls))
        states = SolverStates(folder, seconds_between=ALWAYS)
        with pytest.raises(Stopped):
            run(states)
        states.close()
    states = SolverStates(folder, seconds_between=NEVER)
    _same(run(states), whole)
    states.close()
    assert f"going on from step {num_calls}" in capsys.readouterr().out
