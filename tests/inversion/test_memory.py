"""The width that fits, and what happens where the memory runs out all the same."""

import dataclasses

import jax
import numpy as np
import pytest

import invjax
from invjax.inversion import api, dead_starts, memory
from invjax.inversion.execution import Execution
from invjax.inversion.loop import CompiledPhase
from invjax.preimages import chain, mcmc
from tests.conftest import micro_representation

EXHAUSTED = jax.errors.JaxRuntimeError(
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123 bytes."
)
NUM_LANES = 5


@pytest.fixture
def phi():
    return micro_representation("relu1")


def _codes(phi) -> np.ndarray:
    generator = np.random.default_rng(0)
    images = generator.uniform(size=(NUM_LANES, 32, 32, 3)).astype(np.float32)
    return np.stack([np.asarray(phi(image)) for image in images])


@pytest.mark.parametrize(("limit", "width"), [(47, 8), (46, 4), (26, 2), (10, None)])
def test_the_largest_power_of_two_that_fits(limit, width):
    def num_bytes(lanes: int) -> int:
        return 7 + 5 * lanes

    assert memory.largest_width(num_bytes, limit, most=15) == width


def test_a_width_that_the_compiler_cannot_place_does_not_fit():
    tried: list[int] = []

    def num_bytes(lanes: int) -> int:
        tried.append(lanes)
        if lanes > 4:
            raise EXHAUSTED
        return lanes

    assert memory.largest_width(num_bytes, 2, most=16) == 2
    assert tried == [16, 8, 4, 2]

    def broken(lanes: int) -> int:
        raise jax.errors.JaxRuntimeError("INTERNAL: no such kernel")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        memory.largest_width(broken, 2, most=16)


def test_the_prediction_decides_about_the_width(phi):
    code = _codes(phi)[0]
    scan = Execution(scan=True)

    def chosen(limit: int) -> int:
        return api.fitting_width(
            code, phi, num_steps=3, limit=limit, most=4, execution=scan
        )

    needed = {
        width: api.chunk_bytes(
            code, phi, num_steps=3, execution=dataclasses.replace(scan, width=width)
        )
        for width in (1, 2, 4)
    }
    assert needed[1] < needed[2] < needed[4]
    for width, count in needed.items():
        assert chosen(int(count / memory.USABLE) + 1) == width
    with pytest.raises(MemoryError, match="one lane does not fit: JAX may use"):
        chosen(needed[1])
    # Without a limit, as on CPU, it is what the execution has.
    assert api.fitting_width(code, phi, execution=Execution(width=3)) == 3


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that has room for two lanes, but for the first chunk of four."""
    calls: list[int] = []
    take_steps = CompiledPhase.__call__

    def limited(phase, states, pace):
        calls.append(len(states.num_steps))
        if calls[-1] > 2 and len(calls) > 1:
            raise EXHAUSTED
        return take_steps(phase, states, pace)

    monkeypatch.setattr(CompiledPhase, "__call__", limited)


def test_lanes_go_on_with_half_the_width(phi, small_device):
    keys, codes = jax.random.split(jax.random.key(0), NUM_LANES), _codes(phi)
    narrower: list[Execution] = []

    def run(execution: Execution, lanes: slice = slice(None)):
        return list(
            api.invert_stream(
                keys[lanes],
                codes[lanes],
                phi,
                num_steps=3,
                execution=execution,
                on_narrower=narrower.append,
            )
        )

    found = run(Execution(width=4, scan=True))
    assert narrower == [Execution(width=2, scan=True)]
    assert [lanes.tolist() for lanes, _ in found] == [[0, 1, 2, 3], [4]]
    # What has ended stays; the rest is what that width finds.
    ((_, alone),) = run(Execution(width=2, scan=True), slice(4, None))
    jax.tree.map(np.testing.assert_array_equal, found[1][1], alone)
    with pytest.warns(UserWarning, match="out of memory with 4 lanes per device"):
        invjax.invert_batch(
            keys, codes, phi, num_steps=3, execution=Execution(width=4, scan=True)
        )


@pytest.mark.parametrize("tolerance", [None, 0.0])
def test_one_lane_that_does_not_fit_is_an_error(phi, monkeypatch, tolerance):
    widths: list[int] = []

    def exhausted(keys, plan):
        widths.append(len(keys))
        raise EXHAUSTED

    monkeypatch.setattr(dead_starts, "begin", exhausted)
    keys, codes = jax.random.split(jax.random.key(0), NUM_LANES), _codes(phi)
    narrower: list[int] = []
    stream = api.invert_stream(
        keys,
        codes,
        phi,
        num_steps=3,
        tolerance=tolerance,
        execution=Execution(width=4, scan=True),
        on_narrower=lambda execution: narrower.append(execution.width),
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        next(stream)
    assert (widths, narrower) == ([4, 2, 1], [2, 1])


def test_refilled_slots_go_on_with_half_their_number(phi, monkeypatch):
    """Lanes that have been handed over are not run again."""
    begin, widths = dead_starts.begin, []

    def limited(keys, plan):
        widths.append(len(keys))
        if widths == [4, 4]:
            raise EXHAUSTED
        return begin(keys, plan)

    monkeypatch.setattr(dead_starts, "begin", limited)
    with pytest.warns(UserWarning, match="going on with 2"):
        found = list(
            api.invert_stream(
                jax.random.split(jax.random.key(0), NUM_LANES),
                _codes(phi),
                phi,
                num_steps=80,
                # The first lane makes room for the fifth.
                tolerance=np.array([1e6, 0.0, 0.0, 0.0, 0.0]),
                execution=Execution(width=4, scan=True),
            )
        )
    assert found[0][0].tolist() == [0] and widths[:2] == [4, 4]
    assert set(widths[2:]) == {2}
    numbers = np.concatenate([lanes for lanes, _ in found])
    assert sorted(numbers.tolist()) == list(range(NUM_LANES))


@pytest.mark.slow
def test_chains_go_on_with_half_the_width(phi, monkeypatch):
    start, widths = chain.start, []

    def limited(keys, *args):
        widths.append(len(keys))
        if len(keys) > 2:
            raise EXHAUSTED
        return start(keys, *args)

    def run(width: int) -> mcmc.Samples:
        starts = np.random.default_rng(1).uniform(0.2, 0.8, (3, 16, 16, 3))
        starts = starts.astype(np.float32)
        return mcmc.sample(
            jax.random.split(jax.random.key(0), 3),
            phi(starts[0]),
            phi,
            starts,
            temperature=1e-5,
            num_samples=2,
            num_warmup=40,
            thin=2,
            execution=Execution(width=width, scan=True),
        )

    expected = run(2)
    monkeypatch.setattr(chain, "start", limited)
    with pytest.warns(UserWarning, match="going on with 2"):
        found = run(4)
    assert widths == [4, 2, 2]
    jax.tree.map(np.testing.assert_array_equal, found, expected)
