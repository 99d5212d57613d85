"""Laws of views, and both transposes of their sampling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.inversion import canvas, views
from invjax.inversion.views import Views

SHAPE = (24, 20, 3)
VIEWS = Views(zoom=0.3, rotation=20.0, shift=0.3, colour=0.2, noise=0.05, margin=0.3)
STRENGTH = jnp.float32(1)


def _canvas(seed: int = 0) -> jax.Array:
    shape = VIEWS.canvas_shape(SHAPE)
    return 40 * jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def _shown(key: jax.Array, z: jax.Array, strength: jax.Array = STRENGTH) -> jax.Array:
    return views.show(views.draw(key, VIEWS, strength, SHAPE), VIEWS, z)


def test_at_strength_zero_a_view_is_the_central_crop(key):
    z = _canvas()
    np.testing.assert_array_equal(
        _shown(key, z, jnp.float32(0)), canvas.central_crop(z, SHAPE)
    )


def test_views_of_one_key_are_equal_and_of_others_differ(key):
    z = _canvas()
    other = jax.random.fold_in(key, 1)
    np.testing.assert_array_equal(_shown(key, z), _shown(key, z))
    assert float(jnp.max(jnp.abs(_shown(key, z) - _shown(other, z)))) > 10


def test_jit_and_vmap(key):
    keys = jax.random.split(key, 3)
    stack = jnp.stack([_canvas(seed) for seed in range(3)])
    one_by_one = [_shown(k, z) for k, z in zip(keys, stack, strict=True)]
    for found in (
        jax.jit(jax.vmap(_shown))(keys, stack),
        jax.vmap(_shown)(keys, stack),
    ):
        np.testing.assert_allclose(found, np.stack(one_by_one), atol=2e-3)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_gradient_is_that_of_the_function(key, strength):
    """A view is affine in the canvas: a finite difference is exact up to rounding."""
    z, direction = _canvas(), _canvas(1)
    shown = functools.partial(_shown, key, strength=jnp.float32(strength))
    weights = jax.random.normal(jax.random.key(2), SHAPE, jnp.float32)
    slope = jnp.vdot(jax.grad(lambda z: jnp.vdot(weights, shown(z)))(z), direction)
    difference = jnp.vdot(weights, shown(z + direction) - shown(z))
    np.testing.assert_allclose(slope, difference, rtol=1e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options", [VIEWS, Views(zoom=0.6, rotation=30.0, shift=0.45, margin=0.05)]
)
def test_the_gathered_transpose_equals_the_scattered_one(seed, options):
    """Also where the view reaches beyond the canvas."""
    view = views.draw(jax.random.key(seed), options, STRENGTH, SHAPE)
    cotangent = jax.random.normal(jax.random.key(9), SHAPE, jnp.float32)
    shape = jax.ShapeDtypeStruct(options.canvas_shape(SHAPE), jnp.float32)
    place = (view.zoom, view.angle, view.shift, options, shape)
    gathered = views._gathered(cotangent, *place)
    scattered = views._scattered(cotangent, *place)
    np.testing.assert_allclose(gathered, scattered, atol=2e-4)
    assert float(jnp.max(jnp.abs(scattered))) > 1


def test_amplitudes(key):
    """Uniform up to the largest value, or normal of the deviation, in grey levels."""
    keys = jax.random.split(key, 2000)
    draw = functools.partial(
        views.draw, views=VIEWS, strength=jnp.float32(0.5), image_shape=(20, 20, 3)
    )
    drawn = jax.vmap(draw)(keys)
    assert float(jnp.max(jnp.abs(jnp.log(drawn.zoom)))) == pytest.approx(0.15, rel=0.01)
    assert float(jnp.max(jnp.abs(drawn.angle))) == pytest.approx(
        np.radians(10), rel=0.01
    )
    assert float(jnp.max(jnp.abs(drawn.shift))) == pytest.approx(3, rel=0.01)
    assert float(jnp.std(jnp.log(drawn.gain))) == pytest.approx(0.1, rel=0.1)
    assert float(jnp.std(drawn.offset)) == pytest.approx(255 * 0.05, rel=0.1)
    assert float(jnp.std(drawn.noise)) == pytest.approx(255 * 0.025, rel=0.1)


def test_known_views(key):
    """A zoom of 2 shows the middle half; a shift moves; a gain and an offset act."""
    z = jnp.broadcast_to(jnp.arange(36, dtype=jnp.float32)[:, None, None], (36, 32, 3))
    plain = views.draw(key, VIEWS, jnp.float32(0), SHAPE)
    shown = views.show(plain._replace(zoom=jnp.float32(2)), VIEWS, z)
    np.testing.assert_allclose(shown[:, 0, 0], 17.5 + (np.arange(24) - 11.5) / 2)
    shown = views.show(plain._replace(shift=jnp.array([1.0, 0.0])), VIEWS, z)
    np.testing.assert_allclose(shown[:, 0, 0], 7 + np.arange(24))
    seen = plain._replace(gain=jnp.full(3, 2.0), offset=jnp.full(3, 5.0))
    shown = views.show(seen, VIEWS, z)
    np.testing.assert_allclose(shown[:, 0, 0], 2 * (6 + np.arange(24)) + 5)
    turned = views.show(plain._replace(angle=jnp.float32(np.pi / 2)), VIEWS, z)
    np.testing.assert_allclose(turned[0, :, 0], 17.5 - (np.arange(20) - 9.5), atol=1e-4)
