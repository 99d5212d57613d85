"""Starts whose ReLUs are all off: they are found, and left in both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax.inversion import dead_starts, objective
from invjax.inversion.execution import Execution
from invjax.inversion.result import Result
from invjax.networks.layers import Conv, Network, Relu
from invjax.representations import cnn
from invjax.representations.cnn import CnnRepresentation

pytestmark = pytest.mark.slow

SIDE = 12
GREY = 128.0
HALVES = Network(
    name="halves",
    input_size=SIDE,
    layers=(Conv("conv1", 2, kernel=SIDE), Relu("relu1")),
)
"""Two features, each of one half of the image."""

CODE = np.array([[[60.0, 90.0]]], np.float32)
ALL = Execution(width=256)


def _halves(bias: float = 0.0) -> CnnRepresentation:
    """Without bias a feature is on for half of all noise around grey."""
    kernel = np.random.default_rng(0).normal(size=(SIDE, SIDE, 3, 2)) / SIDE
    kernel[:, SIDE // 2 :, :, 0] = 0
    kernel[:, : SIDE // 2, :, 1] = 0
    params = {
        "conv1": {
            "kernel": kernel.astype(np.float32),
            "bias": np.full(2, bias, np.float32),
        }
    }
    return cnn.from_network(HALVES, "relu1", params, mean=(GREY,) * 3, std=(20.0,) * 3)


def _invert(
    phi, numbers=range(256), *, execution=ALL, num_steps=1, **keywords
) -> Result:
    """Lanes by number, without regularisers; preset adam relaxes nothing."""
    keys = jax.random.split(jax.random.key(0), 256)[np.array(numbers)]
    return invjax.invert_batch(
        keys,
        np.stack([CODE] * len(keys)),
        phi,
        num_steps=num_steps,
        tv_weight=0.0,
        alpha_weight=0.0,
        execution=execution,
        **({"preset": "adam"} | keywords),
    )


@pytest.fixture
def phi():
    return _halves()


def test_a_quarter_of_the_starts_is_found_to_be_dead(phi):
    result = _invert(phi, num_steps=5)
    # 64 on average; four deviations are 28.
    assert 36 < int(jnp.sum(result.dead_start)) < 92
    assert not np.any(result.num_revivals)
    # Nothing moves them, without regularisers. The others move.
    energies = np.asarray(result.history)
    dead = np.asarray(result.dead_start)
    np.testing.assert_array_equal(energies[dead], 1.0)
    assert np.all(energies[~dead, -1] != energies[~dead, 0])
    codes = jax.vmap(phi)(result.image)
    np.testing.assert_array_equal(np.all(codes == 0, axis=(1, 2, 3)), dead)


def test_dead_is_what_cannot_reach_the_features_asked_for(phi):
    """A mask may leave the one feature that is off; a solution is not dead."""
    left = _invert(phi, mask=np.array([[[1.0, 0.0]]], np.float32))
    both = _invert(phi)
    # 128 on average; four deviations are 32.
    assert 96 < int(jnp.sum(left.dead_start)) < 160
    assert np.all(left.dead_start | ~both.dead_start)
    image = both.image[int(np.argmin(both.dead_start))]
    with pytest.warns(UserWarning, match="beyond"):
        result = invjax.invert(
            jax.random.key(0),
            phi(image),
            phi,
            initial_image=image,
            num_steps=1,
            learning_rate=0.0,
        )
    assert not bool(result.dead_start) and float(result.terms.data) < 1e-6


def test_fast_finds_dead_starts_by_the_exact_derivative_and_leaves_them(phi):
    result = _invert(phi, preset="fast", num_steps=60, learning_rate=4.0)
    assert 36 < int(jnp.sum(result.dead_start)) < 92
    assert np.all(result.energy[result.dead_start] < 0.1)


def test_restarts_draw_until_noise_is_alive(phi):
    plain, again = _invert(phi), _invert(phi, dead_relu="restart")
    dead = np.asarray(plain.dead_start)
    assert not np.any(again.dead_start)
    draws = np.asarray(again.num_revivals)
    np.testing.assert_array_equal(draws > 0, dead)
    # 1, 2, 3 ... draws with 3/4, 3/16, ...: 4/3 on average.
    assert 1.1 < np.mean(draws[dead]) < 1.6 and np.max(draws) > 1
    np.testing.assert_array_equal(again.image[~dead], plain.image[~dead])
    # Noise of the preset's size, as any other.
    norms = jnp.sqrt(jnp.sum((255 * again.image - GREY) ** 2, axis=(1, 2, 3)))
    rows = np.asarray(again.image).reshape(256, -1)
    assert len(np.unique(rows[:, 0])) == 256
    np.testing.assert_allclose(norms, objective.SIGMA, rtol=1e-2)


def test_leaky_steps_lead_out_of_dead_starts(phi):
    plain, led = _invert(phi), _invert(phi, dead_relu="leaky", num_steps=40)
    dead = np.asarray(plain.dead_start)
    assert not np.any(led.dead_start)
    steps = np.asarray(led.num_revivals)
    np.testing.assert_array_equal(steps > 0, dead)
    assert np.all(steps < dead_starts.MOST_RELAXED_STEPS)
    # They do not count as steps of the descent, which goes on from there.
    assert np.all(led.num_steps == 40)
    assert np.all(led.energy[dead] < led.history[dead, 0])


@pytest.mark.parametrize(
    ("way", "most"),
    [
        ("restart", dead_starts.MOST_RESTARTS),
        ("leaky", dead_starts.MOST_RELAXED_STEPS),
    ],
)
def test_what_nothing_revives_is_given_up(way, most):
    result = _invert(_halves(bias=-1e9), [0, 1], dead_relu=way, execution=Execution(2))
    assert np.all(result.dead_start) and np.all(result.num_revivals == most)
    assert np.all(np.isfinite(result.image))


@pytest.mark.parametrize("way", ["restart", "leaky"])
@pytest.mark.parametrize(
    "options",
    [
        {"execution": Execution()},
        {"execution": Execution(width=3, scan=True)},
        {"execution": Execution(width=3, scan=True), "tolerance": 0.0},
    ],
)
def test_a_lane_is_revived_alone_as_in_company(phi, way, options):
    """Whatever its neighbours need; to 1e-4 in a compiled loop, else bit for bit."""
    dead = np.flatnonzero(_invert(phi).dead_start)
    alive = np.flatnonzero(~np.asarray(_invert(phi).dead_start))
    lanes = [*dead[:3], alive[0], dead[3], *alive[1:3]]
    together = _invert(phi, lanes, dead_relu=way, num_steps=4, **options)
    assert np.count_nonzero(together.num_revivals) == 4
    for number, lane in enumerate(lanes):
        alone = _invert(phi, [lane], dead_relu=way, num_steps=4, **options)
        assert int(alone.num_revivals[0]) == int(together.num_revivals[number])
        tolerance = 1e-4 if options["execution"].scan else 0.0
        np.testing.assert_allclose(
            alone.image[0], together.image[number], rtol=tolerance, atol=tolerance
        )


def test_jitter_is_not_drawn_anew(phi):
    """The canvas' noise is; a lane that is not dead has the same bits as without."""
    keywords = {"preset": "ijcv2016", "jitter": 3, "num_steps": 6}
    lanes = list(range(16))
    execution = Execution(width=16)
    plain = _invert(phi, lanes, execution=execution, **keywords)
    dead = np.asarray(plain.dead_start)
    assert 0 < np.sum(dead) < 16
    for way in ("restart", "leaky"):
        other = _invert(phi, lanes, execution=execution, dead_relu=way, **keywords)
        np.testing.assert_array_equal(other.num_revivals > 0, dead)
        assert not np.any(other.dead_start)
        np.testing.assert_array_equal(other.image[~dead], plain.image[~dead])


@pytest.mark.parametrize(
    ("keywords", "word"),
    [
        ({"dead_relu": "revive"}, "restart, leaky and None"),
        ({"dead_relu": "restart", "initial_image": np.ones((SIDE, SIDE, 3))}, "anew"),
    ],
)
def test_bad_requests_are_one_line(phi, keywords, word):
    with pytest.raises(ValueError, match=word) as caught:
        _invert(phi, **keywords)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_relaxed_has_no_leaky_start():
    with pytest.raises(ValueError, match="relaxed"):
        _invert(
            lambda image: image[:1, :1, :2], image_shape=(4, 4, 3), dead_relu="leaky"
        )
