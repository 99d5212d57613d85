"""Lanes that end early: what ends them, that results stay, how many steps it saves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax.inversion import batch
from invjax.inversion.execution import Execution
from invjax.inversion.lane import PATIENCE
from invjax.inversion.loop import CompiledPhase
from invjax.inversion.result import BUDGET, CONVERGED, FAILED, Result
from tests.conftest import micro_representation

SHAPE = (32, 32, 3)
SCAN = Execution(width=3, scan=True)


@pytest.fixture
def phi():
    return micro_representation("relu2")


@pytest.fixture
def code(phi):
    return phi(jax.random.uniform(jax.random.key(9), SHAPE))


def test_a_lane_that_makes_no_progress_ends(phi, code, key):
    def run(tolerance: float | None) -> Result:
        return invjax.invert(
            key, code, phi, num_steps=120, tolerance=tolerance, history_every=1
        )

    free, ended = run(None), run(1.0)
    assert int(free.status) == BUDGET
    assert int(ended.status) == CONVERGED
    steps = int(ended.num_steps)
    assert PATIENCE <= steps < 100
    assert ended.history.shape == free.history.shape == (121,)
    np.testing.assert_array_equal(ended.history[:steps], free.history[:steps])
    assert np.all(np.isnan(ended.history[steps:-1]))
    assert float(ended.history[-1]) == float(ended.objective)
    # The last step belongs to the same descent; another program evaluates its result.
    np.testing.assert_allclose(ended.objective, free.history[steps], rtol=1e-5)
    # By the definition, from the history: nothing fell by the tolerance in the last
    # 25 steps, and in no 25 before them.
    lowest = np.minimum.accumulate(np.asarray(free.history[:steps]))
    reference, stalled = np.inf, 0
    for number, value in enumerate(lowest):
        if reference - value > 1.0 * abs(value):
            reference, stalled = value, 0
        else:
            stalled += 1
        assert (stalled == PATIENCE) == (number == steps - 1)


def test_no_tolerance_and_one_that_is_never_met_are_the_same_descent(phi, code, key):
    """Bit for bit in the host's loop."""
    free = invjax.invert(key, code, phi, num_steps=40)
    bound = invjax.invert(key, code, phi, num_steps=40, tolerance=0.0)
    assert int(bound.status) == BUDGET
    jax.tree.map(np.testing.assert_array_equal, bound, free)


def test_the_host_stops_soon_after_the_last_lane(phi, code, monkeypatch):
    calls: list[None] = []
    take_step = CompiledPhase.__call__

    def counted(phase, states, pace):
        calls.append(None)
        return take_step(phase, states, pace)

    monkeypatch.setattr(CompiledPhase, "__call__", counted)
    keys = jax.random.split(jax.random.key(0), 2)
    result = invjax.invert_batch(
        keys,
        np.stack([code] * 2),
        phi,
        num_steps=200,
        tolerance=np.array([4.0, 1.0]),
        execution=Execution(width=2),
    )
    assert result.status.tolist() == [CONVERGED] * 2
    most = int(jnp.max(result.num_steps))
    assert int(result.num_steps[0]) < most < 150
    assert most <= len(calls) <= most + 5


def _batch(phi, code, lanes: list[int], **keywords) -> Result:
    """Seven lanes that end at different times, or some of them."""
    keys = jax.random.split(jax.random.key(0), 7)
    tolerances = np.array([4.0, 0.3, 2.0, 0.0, 1.0, 0.5, 4.0])
    rates = np.array([4.0, 4.0, 2.0, 4.0, 8.0, 2.0, 4.0])
    return invjax.invert_batch(
        keys[np.array(lanes)],
        np.stack([code * (1 + 0.1 * n) for n in lanes]),
        phi,
        num_steps=110,
        tolerance=tolerances[lanes],
        learning_rate=rates[lanes],
        history_every=7,
        execution=SCAN,
        **keywords,
    )


def test_a_lane_in_refilled_slots_is_as_it_is_alone(phi, code, monkeypatch):
    """At one width. Slots round differently on CPU: 1 % after 110 steps."""
    lane_steps: list[int] = []
    scan = batch.scan_steps_at_own_pace

    def counting(program, phi, shared, settings, states, pace, *, num_steps):
        lane_steps.append(num_steps * len(states.num_steps))
        return scan(program, phi, shared, settings, states, pace, num_steps=num_steps)

    monkeypatch.setattr(batch, "scan_steps_at_own_pace", counting)
    together = _batch(phi, code, list(range(7)))
    executed = sum(lane_steps)
    assert set(together.status.tolist()) == {CONVERGED, BUDGET}
    taken = np.asarray(together.num_steps)
    assert taken[3] == 110 and np.sum(taken < 75) >= 3
    # Chunks that wait for their slowest lane: three of them, 125 steps each.
    assert np.sum(taken) <= executed < 2 * 3 * 125
    for lane in range(7):
        alone = _batch(phi, code, [lane])
        assert int(alone.status[0]) == int(together.status[lane])
        assert abs(int(alone.num_steps[0]) - taken[lane]) <= 1
        np.testing.assert_allclose(alone.history[0], together.history[lane], rtol=1e-2)
        np.testing.assert_allclose(alone.energy[0], together.energy[lane], rtol=1e-2)
    # The first slot is the one a lane alone has: equal bits beside any neighbours.
    for neighbours in ([0, 1, 2], [0, 3, 4], [0]):
        first = _batch(phi, code, neighbours)
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a[0], b[0]), first, together
        )


def test_own_pace_is_the_common_pace(phi, code):
    """Where no lane ends early: 1 % after 60 steps, as between widths."""
    keys = jax.random.split(jax.random.key(0), 4)
    codes = np.stack([code] * 4)
    for preset in ("fast", "ijcv2016"):

        def run(tolerance: float | None, preset=preset) -> Result:
            return invjax.invert_batch(
                keys,
                codes,
                phi,
                preset=preset,
                jitter=3 if preset == "ijcv2016" else None,
                num_steps=28,
                tolerance=tolerance,
                history_every=3,
                execution=SCAN,
            )

        common, own = run(None), run(0.0)
        np.testing.assert_array_equal(own.num_steps, common.num_steps)
        np.testing.assert_allclose(own.history, common.history, rtol=1e-2)
        np.testing.assert_allclose(own.objective, common.objective, rtol=1e-2)


def test_a_converged_phase_gives_way_to_the_next(phi, code):
    """ijcv2016: the jittered phase ends early, and the 50 steps without follow."""
    keys = jax.random.split(jax.random.key(0), 2)

    def run(execution: Execution) -> Result:
        return invjax.invert_batch(
            keys,
            np.stack([code] * 2),
            phi,
            preset="ijcv2016",
            jitter=3,
            num_steps=140,
            tolerance=1.0,
            history_every=1,
            execution=execution,
        )

    for execution in (Execution(), SCAN):
        result = run(execution)
        # 120 steps with jitter and 20 without, too few to converge.
        assert result.status.tolist() == [BUDGET] * 2
        for steps, history in zip(result.num_steps, result.history, strict=True):
            jittered = int(steps) - 20
            assert PATIENCE <= jittered < 110
            assert np.all(np.isfinite(history[:jittered]))
            assert np.all(np.isnan(history[jittered:120]))
            assert np.all(np.isfinite(history[120:]))


def test_a_failed_lane_gives_its_slot_away(phi, code):
    keys = jax.random.split(jax.random.key(0), 5)
    rates = np.array([4e-6, 1.0, 1.0, 4e-6, 4e-6])
    result = invjax.invert_batch(
        keys,
        np.stack([code] * 5),
        phi,
        preset="cvpr2015",
        num_steps=30,
        learning_rate=rates,
        tolerance=0.0,
        history_every=1,
        execution=SCAN,
    )
    budget, failed = BUDGET, FAILED
    assert result.status.tolist() == [budget, failed, failed, budget, budget]
    assert np.all(np.isfinite(result.image))
    steps = int(result.num_steps[1])
    assert np.all(np.isfinite(result.history[1, :steps]))
    assert np.all(np.isnan(result.history[1, steps:]))
    assert np.all(np.isfinite(result.history[3:]))


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), np.ones(4)])
def test_bad_tolerances_are_refused(phi, code, key, tolerance):
    with pytest.raises(ValueError, match="tolerance") as caught:
        invjax.invert(key, code, phi, num_steps=1, tolerance=tolerance)
    assert "\n" not in str(caught.value)
