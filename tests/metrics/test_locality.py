"""Regions of known size are measured."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.metrics import locality

SIZE = 96
CENTRE = (47.5, 47.5)


def _noise(key, *shape):
    return jax.random.uniform(key, (*shape, SIZE, SIZE, 3))


def _square(side):
    low = (SIZE - side) // 2
    mask = np.zeros((SIZE, SIZE), bool)
    mask[low : low + side, low : low + side] = True
    return mask


def _disc(radius):
    rows, columns = np.ogrid[:SIZE, :SIZE]
    return np.hypot(rows - CENTRE[0], columns - CENTRE[1]) <= radius


@pytest.fixture
def original(key):
    return _noise(key)


@pytest.mark.parametrize("side", [20, 40])
def test_a_square_that_is_recovered(original, side):
    mean = jnp.mean(original, (0, 1), keepdims=True)
    inside = _square(side)[..., None]
    samples = jnp.where(inside, original, mean)[None]
    found = locality.unexplained(samples, original, sigma=2.0)
    extent = locality.extent(found, CENTRE)
    # The window rounds the corners off.
    assert extent.side == pytest.approx(side, abs=1)
    assert extent.area == pytest.approx(extent.side**2)
    assert found[0, 0] == pytest.approx(1, abs=1e-3)
    assert found[47, 47] < 1e-3


def test_unrelated_surroundings_have_an_error_of_two(original):
    others = _noise(jax.random.key(1), 8)
    inside = _square(40)[None, ..., None]
    samples = jnp.where(inside, original, others)
    found = locality.unexplained(samples, original, sigma=3.0)
    assert jnp.mean(found[:20]) == pytest.approx(2, abs=0.1)
    extent = locality.extent(found, CENTRE)
    # The error rises to 2, and is 0.5 at 0.67 sigma inside the edge.
    assert extent.side == pytest.approx(40 - 2 * 0.67 * 3, abs=1.5)


@pytest.mark.parametrize("radius", [12, 25])
def test_a_disc_that_is_recovered(original, radius):
    mean = jnp.mean(original, (0, 1), keepdims=True)
    inside = _disc(radius)[..., None]
    samples = jnp.where(inside, original, mean)[None]
    found = locality.unexplained(samples, original, sigma=2.0)
    extent = locality.extent(found, CENTRE)
    assert extent.radius == pytest.approx(radius, abs=1.2)
    assert extent.side == pytest.approx(np.sqrt(np.pi) * radius, abs=2)
    assert found[47, 47] < 1e-3
    assert jnp.mean(found[:10]) == pytest.approx(1, abs=0.1)


def test_an_image_that_is_recovered_everywhere(original):
    found = locality.unexplained(jnp.stack([original, original]), original)
    np.testing.assert_array_equal(found, 0)
    flat = jnp.full((SIZE, SIZE, 3), 0.5)
    np.testing.assert_array_equal(locality.unexplained(flat[None], flat), 0)
    whole = locality.extent(found, CENTRE)
    assert whole.area == SIZE**2
    assert whole.radius == pytest.approx(np.hypot(47.5, 47.5), abs=0.5)


def test_sharp_maps_are_measured_exactly():
    square = locality.extent(np.where(_square(30), 0.0, 1.0), CENTRE)
    assert square.side == 30
    disc = locality.extent(np.where(_disc(20), 0.0, 1.0), CENTRE)
    assert disc.radius == pytest.approx(20, abs=0.6)


def test_only_the_region_at_the_centre_counts():
    values = np.where(_square(20), 0.2, 1.0)
    values[:10, :10] = 0
    assert locality.extent(values, CENTRE).side == 20
    assert locality.extent(values, CENTRE, threshold=0.1) == (0, 0, 0)
    # Corners do not connect.
    values = np.ones((9, 9))
    values[4, 4] = values[3, 3] = 0
    assert locality.extent(values, (4, 4)).area == 1


def test_profile_of_the_distance_itself():
    rows, columns = np.ogrid[:21, :31]
    distance = np.hypot(rows - 10, columns - 15)
    profile = locality.radial_profile(distance, (10, 15))
    assert profile[0] == 0
    np.testing.assert_allclose(profile, np.arange(len(profile)), atol=0.5)
    assert locality.extent(distance, (10, 15), threshold=6).radius == pytest.approx(
        6, abs=0.1
    )


def test_extents_can_be_jitted_and_vmapped():
    maps = np.stack([np.where(_square(side), 0.0, 1.0) for side in (20, 30)])
    measure = functools.partial(locality.extent, centre=CENTRE)
    found = jax.jit(jax.vmap(measure))(maps)
    np.testing.assert_array_equal(found.side, [20, 30])
    one_by_one = [measure(one).radius for one in maps]
    np.testing.assert_allclose(found.radius, one_by_one, rtol=1e-5)


def test_profile_against_its_definition_in_numpy():
    values = np.random.default_rng(0).uniform(size=(60, 71))
    centre = (20.5, 33)
    distance = np.hypot(*(np.indices(values.shape) - np.reshape(centre, (2, 1, 1))))
    rings = np.floor(distance + 0.5)
    found = locality.radial_profile(values, centre)
    assert np.isnan(found[0])
    expected = [values[rings == ring].mean() for ring in range(1, len(found))]
    np.testing.assert_allclose(found[1:], expected, rtol=1e-6)


def test_refusals(original):
    with pytest.raises(ValueError, match="original"):
        locality.unexplained(original[None, 1:], original)
    with pytest.raises(ValueError, match="not inside"):
        locality.extent(np.zeros((5, 5)), (5, 0))


@pytest.mark.parametrize("contrast", [1.0, 0.3])
def test_detail_has_the_extent_of_what_is_not_flat(original, contrast):
    inside = _square(40)[None, ..., None]
    # Other noise: detail, though not the original's.
    others = contrast * (_noise(jax.random.key(1), 8) - 0.5) + 0.5
    found = locality.detail(jnp.where(inside, others, 0.5), original, sigma=3.0)
    assert jnp.mean(found[40:56, 40:56]) == pytest.approx(contrast**2, rel=0.1)
    assert jnp.max(found[:10]) < 1e-4 * contrast**2
    extent = locality.extent(1 - found / contrast**2, CENTRE)
    assert extent.side == pytest.approx(40, abs=2)
    with pytest.raises(ValueError, match="samples of shape"):
        locality.detail(original[None, :9], original)
