"""Watchers see every lane while it descends, and change nothing."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax.inversion.execution import Execution, default_execution
from invjax.inversion.watching import Sight

SHAPE = (8, 8, 3)
NUM_LANES = 3


def phi(image):
    return jnp.sin(3 * image[::2, ::2])


IMAGE = np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)
CODES = jnp.stack([phi(IMAGE * n) for n in (1.0, 0.7, 0.4)])
KEYS = jax.random.split(jax.random.key(0), NUM_LANES)


class Notes:
    """A watcher that keeps what it has seen: lane -> step -> image."""

    def __init__(self, every: int):
        self.every = every
        self.seen: dict[int, dict[int, np.ndarray]] = {}
        self._lock = threading.Lock()

    def look(self, sight: Sight) -> None:
        images = sight.images()
        assert images.shape == (len(sight.lanes), *SHAPE)
        with self._lock:
            for number, step, image in zip(
                sight.lanes, sight.num_steps, images, strict=True
            ):
                own = self.seen.setdefault(int(number), {})
                assert int(step) not in own
                own[int(step)] = image


def _invert(watchers, execution, **settings):
    """Results by lane, [l, ...]."""
    keywords: dict = {"image_shape": SHAPE, "num_steps": 23} | settings
    found = {}
    for numbers, results in invjax.invert_stream(
        KEYS, CODES, phi, execution=execution, watchers=watchers, **keywords
    ):
        for row, number in enumerate(numbers):
            found[int(number)] = jax.tree.map(lambda leaf, row=row: leaf[row], results)
    return [found[number] for number in range(NUM_LANES)]


EXECUTIONS = {
    "host loop": default_execution(),
    "compiled loop": Execution(scan=True, width=2, num_threads=1),
}


@pytest.mark.parametrize("preset", ["fast", "ijcv2016"])
@pytest.mark.parametrize("kind", EXECUTIONS)
def test_every_lane_is_seen_and_nothing_changes(kind, preset):
    execution = EXECUTIONS[kind]
    often, rarely = Notes(5), Notes(50)
    results = _invert([often, rarely], execution, preset=preset)
    alone = _invert([], execution, preset=preset)
    assert set(often.seen) == set(rarely.seen) == set(range(NUM_LANES))
    for number, result in enumerate(results):
        jax.tree.map(np.testing.assert_array_equal, result, alone[number])
        assert set(rarely.seen[number]) == {0, 23}
        steps = sorted(often.seen[number])
        if kind == "host loop":
            assert steps == [0, 5, 10, 15, 20, 23]
        else:
            # Between the calls of the compiled loop, of which a phase is one here.
            assert steps[0] == 0 and steps[-1] == 23
        np.testing.assert_allclose(often.seen[number][23], result.image, atol=1e-6)
        start = often.seen[number][0]
        assert np.abs(start - result.image).max() > 0.05
    assert not np.array_equal(often.seen[0][0], often.seen[1][0])


def test_lanes_that_end_by_themselves_are_seen_in_their_slots():
    notes = Notes(1)
    execution = Execution(scan=True, width=2, num_threads=1)
    settings: dict = {"tolerance": 1e-2, "num_steps": 200}
    results = _invert([notes], execution, **settings)
    alone = _invert([], execution, **settings)
    for number, result in enumerate(results):
        np.testing.assert_array_equal(result.image, alone[number].image)
        steps = sorted(notes.seen[number])
        assert steps[0] == 0 and steps[-1] >= int(result.num_steps)
        last = notes.seen[number][steps[-1]]
        np.testing.assert_allclose(last, result.image, atol=1e-6)
    assert {int(result.num_steps) for result in results} != {200}


def test_what_goes_wrong_in_a_watcher_is_told():
    class Full:
        every = 4

        def look(self, sight: Sight) -> None:
            if sight.num_steps[0] == 8:
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        _invert([Full()], default_execution())
