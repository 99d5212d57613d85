"""Images of one code that keep apart, against independent inversions of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax.inversion.result import BUDGET, FAILED
from invjax.preimages import repulsion
from tests.conftest import micro_representation
from tests.inversion import test_dead_starts

pytestmark = pytest.mark.slow

SHAPE = (32, 32, 3)
NUM_STEPS = 100
KEYS = [invjax.lane_key(0, 3, start) for start in range(3)]


@pytest.fixture(scope="module")
def phi():
    return micro_representation("relu2")


@pytest.fixture(scope="module")
def code(phi):
    return phi(jax.random.uniform(jax.random.key(9), SHAPE))


@pytest.fixture(scope="module")
def independent(phi, code):
    return invjax.invert_batch(
        KEYS, jnp.stack([code] * 3), phi, num_steps=NUM_STEPS, tv_weight=0.01
    )


def _repel(phi, code, **settings):
    defaults = {"num_steps": NUM_STEPS, "tv_weight": 0.01}
    return repulsion.repel(KEYS, code, phi, **(defaults | settings))


@pytest.fixture(scope="module")
def repelled(phi, code):
    return _repel(phi, code)


def _mean_distance(distances) -> float:
    return float(np.mean(np.asarray(distances)[~np.eye(3, dtype=bool)]))


def test_distances_are_root_mean_squares_of_the_coarse_images():
    images = np.zeros((2, 32, 32, 3), np.float32)
    images[1] = 7.0
    expected = [[0, 7], [7, 0]]
    found = repulsion.coarse_distances(jnp.asarray(images))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # A checkerboard is far in pixels and near on the grid; a ramp is far on both.
    rows, columns = np.indices((32, 32))
    images[1] = (10.0 * (-1) ** (rows + columns))[..., None]
    assert repulsion.coarse_distances(jnp.asarray(images))[0, 1] < 0.5
    images[1] = (rows - 15.5)[..., None]
    far = repulsion.coarse_distances(jnp.asarray(images))[0, 1]
    assert float(far) == pytest.approx(np.std(np.arange(32)), rel=0.03)
    small = jnp.asarray(images[:, :4, :4])
    assert repulsion.coarse_distances(small).shape == (2, 2)


def test_without_weight_it_is_the_independent_inversions(phi, code, independent):
    found = _repel(phi, code, weight=0.0)
    # Rounding by the width of the program grows over the steps.
    np.testing.assert_allclose(found.energies, independent.energy, rtol=0.02)
    np.testing.assert_allclose(found.images, independent.image, atol=0.02)
    assert int(found.status) == BUDGET
    assert found.history.shape == (NUM_STEPS // 10,)


def test_samples_are_farther_apart_at_nearly_equal_error(phi, code, independent):
    found = _repel(phi, code, weight=0.3, bandwidth=30.0)
    alone = repulsion.coarse_distances(255 * independent.image)
    assert _mean_distance(found.distances) > 1.5 * _mean_distance(alone)
    errors = jnp.linalg.norm(
        (jax.vmap(phi)(independent.image) - code[None]).reshape(3, -1), axis=1
    ) / jnp.linalg.norm(code)
    np.testing.assert_allclose(found.relative_errors, errors, atol=0.03)


def test_what_is_returned_belongs_to_the_images(phi, code, repelled):
    found = repelled
    for image, error in zip(found.images, found.relative_errors, strict=True):
        direct = jnp.linalg.norm(phi(image) - code) / jnp.linalg.norm(code)
        assert float(error) == pytest.approx(float(direct), rel=1e-3)
    np.testing.assert_allclose(sum(found.terms), found.energies, rtol=1e-5)
    np.testing.assert_allclose(
        repulsion.coarse_distances(255 * found.images), found.distances, atol=1e-2
    )
    again = _repel(phi, code)
    np.testing.assert_array_equal(again.images, found.images)


def test_a_constant_repulsion_pushes_further_and_costs_more(phi, code):
    fading = _repel(phi, code, weight=0.3, bandwidth=30.0)
    constant = _repel(phi, code, weight=0.3, bandwidth=30.0, fade_from=1.0)
    assert _mean_distance(constant.distances) > _mean_distance(fading.distances)
    assert float(jnp.mean(constant.energies)) > float(jnp.mean(fading.energies))


def test_host_loop_and_scan_agree(phi, code, repelled):
    host = repelled  # on CPU
    scan = _repel(phi, code, execution=invjax.Execution(scan=True))
    np.testing.assert_allclose(scan.energies, host.energies, rtol=0.02)
    np.testing.assert_allclose(scan.history, host.history, rtol=0.02)


def test_one_trace_for_many_weights_and_bandwidths(code):
    network = micro_representation("relu2")
    traces: list[None] = []

    def phi(image):
        traces.append(None)
        return network(image)

    def call(weight, bandwidth):
        return repulsion.repel(
            KEYS,
            code,
            phi,
            image_shape=SHAPE,
            num_steps=2,
            weight=weight,
            bandwidth=bandwidth,
        )

    call(0.1, 10.0)
    traced = len(traces)
    for number in range(3):
        call(0.2 + number, 20.0 + number)
    assert len(traces) == traced


def test_a_set_that_turns_non_finite_is_kept_as_it_was(phi, code):
    found = _repel(phi, code, learning_rate=1e30)
    assert int(found.status) == FAILED
    assert found.images.shape == (3, *SHAPE)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight": -1.0}, "weight is -1.0"),
        ({"bandwidth": 0.0}, "bandwidth is 0.0"),
        ({"grid": 0}, "grid is 0"),
        ({"fade_from": 1.5}, "fade_from is 1.5"),
        ({"preset": "ijcv2016"}, "presets fast, adam and cvpr2015"),
        ({"jitter": 2}, "no jitter"),
    ],
)
def test_refuses_in_one_line(phi, code, settings, words):
    with pytest.raises(ValueError, match=words):
        _repel(phi, code, **settings)
    with pytest.raises(ValueError, match="1 keys"):
        repulsion.repel(KEYS[:1], code, phi)


@pytest.mark.parametrize("way", [None, "restart", "leaky"])
def test_dead_starts_are_found_and_left_as_by_inversion(way):
    """Half of the starts, with one feature that is on for half of all noise."""
    phi = test_dead_starts._halves()
    keys = jax.random.split(jax.random.key(0), 12)
    code = np.array([[[60.0, 0.0]]], np.float32)
    settings: dict = {
        "mask": np.array([[[1.0, 0.0]]], np.float32),
        "preset": "adam",
        "num_steps": 1,
        "dead_relu": way,
    }
    alone = invjax.invert_batch(keys, np.stack([code] * 12), phi, **settings)
    found = repulsion.repel(keys, code, phi, weight=0.0, **settings)
    np.testing.assert_array_equal(found.dead_start, alone.dead_start)
    np.testing.assert_array_equal(found.num_revivals, alone.num_revivals)
    np.testing.assert_allclose(found.images, alone.image, atol=1e-3)
    if way is None:
        assert 0 < np.sum(found.dead_start) < 12
    else:
        # In `MOST_RELAXED_STEPS` the leaky steps lead out of some of them.
        assert np.sum(found.dead_start) < np.sum(found.num_revivals > 0)
