"""The pyramid's shapes, its interpolation against literal loops, its transpose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.inversion import pyramid
from invjax.inversion.pyramid import Levels


def _random_levels(seed: int, image_shape: tuple[int, int, int]) -> Levels:
    generator = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(generator.normal(size=shape).astype(np.float32))
        for shape in pyramid.level_shapes(image_shape)
    )


def _double(x: np.ndarray) -> np.ndarray:
    """Rows doubled by linear interpolation between pixel centres, loop by loop."""
    doubled = np.zeros((2 * len(x), *x.shape[1:]))
    for row in range(2 * len(x)):
        place = (row + 0.5) / 2 - 0.5
        low = int(np.floor(place))
        weight = place - low
        ends = [x[min(max(i, 0), len(x) - 1)] for i in (low, low + 1)]
        doubled[row] = (1 - weight) * ends[0] + weight * ends[1]
    return doubled


def test_level_shapes_halve_and_end_in_one_colour():
    sides = [shape[:2] for shape in pyramid.level_shapes((224, 224, 3))]
    assert [height for height, _ in sides] == [224, 112, 56, 28, 14, 7, 1]
    assert pyramid.level_shapes((33, 8, 1)) == (
        (33, 8, 1),
        (17, 4, 1),
        (9, 2, 1),
        (5, 1, 1),
        (1, 1, 1),
    )
    assert pyramid.level_shapes((5, 7, 3)) == ((5, 7, 3), (1, 1, 3))


@pytest.mark.parametrize("shape", [(16, 16, 3), (19, 12, 1), (5, 6, 3)])
def test_synthesis_is_the_sum_of_enlarged_levels(shape):
    levels = _random_levels(0, shape)
    *images, colour = (np.asarray(level, np.float64) for level in levels)
    expected = np.zeros(shape) + max(shape[:2]) ** 0.25 * colour
    for number, image in enumerate(images):
        # Enlarged step by step, cut at each step to the next finer level.
        for finer in reversed(images[:number]):
            image = _double(_double(image).swapaxes(0, 1)).swapaxes(0, 1)
            image = image[: finer.shape[0], : finer.shape[1]]
        expected += 2 ** (number / 4) * image
    found = pyramid.synthesise(levels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16, 3), (19, 12, 1)])
def test_adjoint_is_the_transpose(shape):
    levels = _random_levels(1, shape)
    z = jax.random.normal(jax.random.key(0), shape)
    forward = jnp.vdot(pyramid.synthesise(levels), z)
    backward = sum(
        jnp.vdot(a, b) for a, b in zip(levels, pyramid.adjoint(z), strict=True)
    )
    np.testing.assert_allclose(forward, backward, rtol=1e-4)


def test_an_image_is_its_own_finest_level():
    z = jax.random.normal(jax.random.key(0), (9, 20, 3))
    levels = pyramid.analyse(z)
    np.testing.assert_array_equal(pyramid.synthesise(levels), z)
    assert tuple(level.shape for level in levels) == pyramid.level_shapes(z.shape)


def test_vmap_and_jit_agree_with_one_image_at_a_time():
    stack = jax.random.normal(jax.random.key(0), (2, 9, 12, 3))
    together = jax.jit(jax.vmap(lambda z: pyramid.synthesise(pyramid.adjoint(z))))(
        stack
    )
    for z, found in zip(stack, together, strict=True):
        alone = pyramid.synthesise(pyramid.adjoint(z))
        np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)
