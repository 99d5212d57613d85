"""Results handed over as they come, and lanes whose slots are filled again."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax.inversion import dead_starts, loop, request, slots
from invjax.inversion.execution import Execution
from invjax.inversion.request import Plan
from invjax.inversion.result import BUDGET, CONVERGED, Result
from tests.conftest import micro_representation

SHAPE = (32, 32, 3)
SCAN = Execution(width=2, scan=True)


@pytest.fixture
def phi():
    return micro_representation("relu2")


@pytest.fixture
def code(phi):
    return np.asarray(phi(jax.random.uniform(jax.random.key(9), SHAPE)))


def _lanes(code: np.ndarray, number: int) -> tuple[jax.Array, np.ndarray]:
    """Keys and codes of so many lanes, all of them different."""
    keys = jax.random.split(jax.random.key(0), number)
    return keys, np.stack([code * (1 + 0.1 * n) for n in range(number)])


def _in_order(parts: list[tuple[np.ndarray, Result]]) -> Result:
    order = np.argsort(np.concatenate([lanes for lanes, _ in parts]))
    return jax.tree.map(
        lambda *leaves: np.concatenate(leaves)[order], *(part for _, part in parts)
    )


@pytest.mark.parametrize(
    ("execution", "settings"),
    [
        (Execution(), {}),
        (Execution(num_threads=3), {"preset": "ijcv2016", "jitter": 2}),
        (SCAN, {}),
        (SCAN, {"tolerance": np.array([0.0, 4.0, 0.0, 4.0, 1.0])}),
        (SCAN, {"preset": "ijcv2016", "tolerance": 0.0}),
    ],
)
def test_a_stream_has_the_lanes_of_a_batch_once_and_bit_for_bit(
    phi, code, execution, settings
):
    keys, codes = _lanes(code, 5)
    keywords = {"num_steps": 60, "execution": execution, **settings}
    batch = invjax.invert_batch(keys, codes, phi, **keywords)
    parts = list(invjax.invert_stream(keys, codes, phi, **keywords))
    assert len(parts) > 1
    numbers = np.concatenate([lanes for lanes, _ in parts])
    assert sorted(numbers.tolist()) == [0, 1, 2, 3, 4]
    for lanes, result in parts:
        for leaf in jax.tree.leaves(result):
            assert isinstance(leaf, np.ndarray) and len(leaf) == len(lanes)
    jax.tree.map(np.testing.assert_array_equal, _in_order(parts), batch)


def test_lanes_come_in_order_or_as_they_converge(phi, code):
    keys, codes = _lanes(code, 4)

    def order(tolerance) -> list[int]:
        stream = invjax.invert_stream(
            keys, codes, phi, num_steps=80, tolerance=tolerance, execution=SCAN
        )
        return [int(lane) for lanes, _ in stream for lane in lanes]

    assert order(None) == [0, 1, 2, 3]
    # The first lane takes all its steps; the others converge beside it.
    assert order(np.array([0.0, 4.0, 4.0, 4.0]))[0] == 1


@pytest.mark.parametrize(
    ("execution", "tolerance"),
    [(Execution(), None), (Execution(num_threads=2), None), (SCAN, None), (SCAN, 0.0)],
)
def test_lanes_begin_when_they_are_asked_for(
    phi, code, monkeypatch, execution, tolerance
):
    """No further ahead than a chunk for every thread, and no more on the device."""
    begun: list[int] = []
    sizes: list[int] = []
    begin, of = dead_starts.begin, Plan.of

    def counted_begin(keys, plan):
        begun.append(len(keys))
        return begin(keys, plan)

    def counted_of(plan, lanes):
        sizes.append(len(lanes))
        return of(plan, lanes)

    monkeypatch.setattr(dead_starts, "begin", counted_begin)
    monkeypatch.setattr(Plan, "of", counted_of)
    keys = jax.random.split(jax.random.key(0), 5000)
    stream = invjax.invert_stream(
        keys,
        np.broadcast_to(code, (5000, *code.shape)),
        phi,
        num_steps=3,
        tolerance=tolerance,
        execution=execution,
    )
    assert not begun
    for number in range(1, 4):
        lanes, result = next(stream)
        assert len(lanes) == execution.width == len(result.energy)
        num_chunks = sum(begun) / execution.width
        assert number <= num_chunks <= number + execution.num_threads
    stream.close()
    assert max(sizes) == execution.width


def test_closing_a_stream_stops_its_threads(phi, code, monkeypatch):
    begun: list[None] = []
    ended: list[int] = []
    descend = loop._descend

    def noting(*args, **options):
        begun.append(None)
        descent = descend(*args, **options)
        ended.append(int(descent.states.num_steps[0]))
        return descent

    monkeypatch.setattr(loop, "_descend", noting)
    keys, codes = _lanes(code, 4)
    num_threads = threading.active_count()
    stream = invjax.invert_stream(
        keys,
        codes,
        phi,
        num_steps=100_000,
        # The first lane converges as soon as it can.
        tolerance=np.array([1e6, 0.0, 0.0, 0.0]),
        history_every=1000,
        execution=Execution(num_threads=2),
    )
    lanes, result = next(stream)
    assert lanes.tolist() == [0] and result.status.tolist() == [CONVERGED]
    stream.close()
    assert 2 <= len(begun) == len(ended) < 4 and max(ended) < 100_000
    assert threading.active_count() == num_threads


@pytest.mark.parametrize("tolerance", [None, 0.0])
def test_codes_may_lie_in_a_file(phi, code, tmp_path, tolerance):
    keys, codes = _lanes(code, 4)
    mapped = np.memmap(
        tmp_path / "codes", dtype=np.float32, mode="w+", shape=codes.shape
    )
    mapped[:] = codes
    mapped.flush()
    mapped = np.memmap(
        tmp_path / "codes", dtype=np.float32, mode="r", shape=codes.shape
    )
    keywords = {"num_steps": 4, "tolerance": tolerance, "execution": SCAN}
    plan = request.prepare(mapped, phi, 4)
    # Not copied: what is larger than the memory may lie there.
    assert np.shares_memory(plan.settings.problem.target, mapped)
    stream = invjax.invert_stream(keys, mapped, phi, **keywords)
    jax.tree.map(
        np.testing.assert_array_equal,
        _in_order(list(stream)),
        invjax.invert_batch(keys, codes, phi, **keywords),
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"codes": np.zeros((2, 7, 7, 12), np.float32)}, "zero under the mask"),
        (
            {"codes": np.ones((3, 7, 7, 12), np.float32)},
            "2 keys; as many keys as codes, 3",
        ),
        ({"num_steps": 0}, "num_steps"),
        ({"history_every": 0}, "history_every"),
        ({"tv_weight": np.ones(3)}, "tv_weight"),
        ({"preset": "slow"}, "cvpr2015"),
    ],
)
def test_bad_input_is_refused_at_the_call(phi, code, change, word):
    keys, codes = _lanes(code, 2)
    arguments = {"codes": codes, "num_steps": 1} | change
    with pytest.raises(ValueError, match=word):
        invjax.invert_stream(keys, arguments.pop("codes"), phi, **arguments)


def test_an_ijcv_lane_has_the_same_weights_and_bits_in_any_company(phi, code):
    """The IJCV paper's weights are scaled by NumPy, which rounds each alike.

    JAX's division, called eagerly, rounded some of these alpha weights otherwise in an
    array of two than in an array of one.
    """
    generator = np.random.default_rng(0)
    weights = (1e8 * generator.uniform(0.1, 10, size=(32, 2))).astype(np.float32)
    keys, codes = _lanes(code, 2)

    def settings(lanes: list[int], alpha_weight: np.ndarray):
        plan = request.prepare(
            codes[lanes],
            phi,
            len(lanes),
            preset="ijcv2016",
            tv_weight=alpha_weight / 1e8,
            alpha_weight=alpha_weight,
        )
        return plan.on_device().settings

    for pair in weights:
        together = settings([0, 1], pair)
        for lane in range(2):
            jax.tree.map(
                lambda a, b, n=lane: np.testing.assert_array_equal(a[n], b[0]),
                together,
                settings([lane], pair[lane : lane + 1]),
            )

    def run(lanes: list[int]) -> Result:
        return invjax.invert_batch(
            keys[np.array(lanes)],
            codes[lanes],
            phi,
            preset="ijcv2016",
            num_steps=14,
            jitter=2,
            alpha_weight=weights[0][lanes],
        )

    together = run([0, 1])
    for lane in range(2):
        jax.tree.map(
            lambda a, b, n=lane: np.testing.assert_array_equal(a[n], b[0]),
            together,
            run([lane]),
        )


def test_more_lanes_than_a_block_of_slots_pass_two_phases(phi, code):
    """Each lane has the result that it has alone; widths round differently, by 1 %."""
    width = 2
    num_lanes = slots._WIDTHS_PER_BLOCK * width + 3
    keys, codes = _lanes(code, num_lanes)
    # Every third lane ends its first phase early, so that slots are filled again.
    tolerance = np.where(np.arange(num_lanes) % 3 == 0, 4.0, 0.0)

    def run(lanes: np.ndarray, width: int) -> Result:
        return invjax.invert_batch(
            keys[lanes],
            codes[lanes],
            phi,
            preset="ijcv2016",
            jitter=2,
            num_steps=70,
            tolerance=tolerance[lanes],
            history_every=7,
            execution=Execution(width=width, scan=True),
        )

    everyone = np.arange(num_lanes)
    together = run(everyone, width)
    assert set(together.status.tolist()) == {BUDGET}
    # 60 steps with jitter and 10 without.
    steps = np.asarray(together.num_steps)
    assert np.all(steps[tolerance == 0] == 70) and np.all(steps[tolerance > 0] < 60)
    assert len(set(np.asarray(together.energy).tolist())) == num_lanes
    alone = [run(np.array([lane]), 1) for lane in everyone]
    for field in ("num_steps", "energy", "objective", "history", "best_energy"):
        expected = np.concatenate([getattr(result, field) for result in alone])
        np.testing.assert_allclose(
            getattr(together, field), expected, rtol=1e-2, err_msg=field
        )
    images = jnp.concatenate([result.image for result in alone])
    np.testing.assert_allclose(together.image, images, atol=0.02)
