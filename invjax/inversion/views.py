"""Views: a canvas as it is seen from another place, in another light, at every step.

A network answers to many things that no photograph has, and a descent finds them: deep
codes are then met by pictures that nobody recognises. Whatever has to survive small
changes of place, size, angle, colour and noise is not met so easily. At each step the
representation is given another random view of the image, on a canvas larger than the
view.

A view is drawn from a key, so that a lane sees the same views whatever runs beside it.
All amplitudes are multiplied by a strength: at strength 0 a view is the central crop of
the canvas, bit for bit.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from invjax.inversion.canvas import Canvas
from invjax.types import Image, PRNGKey, Scalar


@dataclasses.dataclass(frozen=True)
class Views:
    """How views are drawn, at strength 1.

    Attributes:
      zoom: largest size of the logarithm of the magnification, which is uniform.
      rotation: largest size of the angle in degrees, which is uniform.
      shift: largest size of the shift along each axis, as a fraction of the image's
        shorter side, which is uniform.
      colour: standard deviation of the logarithm of each channel's factor; that of its
        offset is half of it, in units of 255 grey levels. Both are normal.
      noise: standard deviation of the normal noise of each pixel, in units of 255 grey
        levels.
      margin: what the canvas has beyond the image on each side, as a fraction of the
        image's shorter side; rounded to pixels.
      number: number of views of a step; the data terms are averaged over them.
    """

    zoom: float = 0.25
    rotation: float = 8.0
    shift: float = 24 / 224
    colour: float = 0.1
    noise: float = 0.03
    margin: float = 32 / 224
    number: int = 1

    def canvas_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape of the canvas around an image.

        Examples:
          >>> Views(margin=1 / 7).canvas_shape((224, 224, 3))
          (288, 288, 3)
        """
        height, width, channels = image_shape
        margin = round(self.margin * min(height, width))
        return (height + 2 * margin, width + 2 * margin, channels)


class View(NamedTuple):
    """One view.

    Attributes:
      zoom: magnification; above 1 the view shows less of the canvas.
      angle: rotation in radians.
      shift: (rows, columns) in pixels.
      gain: factor of each channel.
      offset: what is added to each channel, in grey levels.
      noise: noise of each pixel, in grey levels.
    """

    zoom: Scalar
    angle: Scalar
    shift: Float[Array, "2"]
    gain: Float[Array, " c"]
    offset: Float[Array, " c"]
    noise: Image


def draw(
    key: PRNGKey, views: Views, strength: Scalar, image_shape: tuple[int, int, int]
) -> View:
    """A random view.

    Args:
      key: the view's own key.
      views: how views are drawn.
      strength: factor of all amplitudes, 0 to 1.
      image_shape: (h, w, c) of the view.
    """
    zoom_key, angle_key, shift_key, gain_key, offset_key, noise_key = jax.random.split(
        key, 6
    )
    channels = image_shape[-1]

    def uniform(key: PRNGKey, shape: tuple[int, ...], most: float) -> Array:
        drawn = jax.random.uniform(key, shape, jnp.float32, -1, 1)
        return strength * jnp.float32(most) * drawn

    def normal(key: PRNGKey, shape: tuple[int, ...], deviation: float) -> Array:
        drawn = jax.random.normal(key, shape, jnp.float32)
        return strength * jnp.float32(deviation) * drawn

    return View(
        zoom=jnp.exp(uniform(zoom_key, (), views.zoom)),
        angle=uniform(angle_key, (), math.radians(views.rotation)),
        shift=uniform(shift_key, (2,), views.shift * min(image_shape[:2])),
        gain=jnp.exp(normal(gain_key, (channels,), views.colour)),
        offset=normal(offset_key, (channels,), 255 * views.colour / 2),
        noise=normal(noise_key, image_shape, 255 * views.noise),
    )


def show(view: View, views: Views, canvas: Canvas) -> Image:
    """What a view shows of a canvas.

    Args:
      view: the view.
      views: how it was drawn; bounds how far it reaches.
      canvas: z [H, W, c], grey levels minus the centre. Beyond its border the nearest
        pixel is repeated.

    Returns:
      [h, w, c], grey levels minus the centre.
    """
    seen = _sample(canvas, view.zoom, view.angle, view.shift, views, view.noise.shape)
    return seen * view.gain[None, None] + view.offset[None, None] + view.noise


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _sample(
    canvas: Canvas,
    zoom: Scalar,
    angle: Scalar,
    shift: Float[Array, "2"],
    views: Views,
    shape: tuple[int, int, int],
) -> Image:
    """The canvas at the places of a view's pixels, interpolated bilinearly."""
    return _interpolated(canvas, zoom, angle, shift, shape)


def _interpolated(
    canvas: Canvas,
    zoom: Scalar,
    angle: Scalar,
    shift: Float[Array, "2"],
    shape: tuple[int, ...],
) -> Image:
    rows, columns = _centred(shape)
    y, x = _turned(rows / zoom, columns / zoom, angle)
    places = [
        place + jnp.float32((side - 1) / 2) + moved
        for place, side, moved in zip((y, x), canvas.shape[:2], shift, strict=True)
    ]
    interpolate = functools.partial(
        jax.scipy.ndimage.map_coordinates, order=1, mode="nearest"
    )
    return jax.vmap(interpolate, (-1, None), -1)(canvas, places)


def _sample_forward(
    canvas: Canvas,
    zoom: Scalar,
    angle: Scalar,
    shift: Float[Array, "2"],
    views: Views,
    shape: tuple[int, int, int],
) -> Any:
    seen = _interpolated(canvas, zoom, angle, shift, shape)
    return seen, (zoom, angle, shift, jax.ShapeDtypeStruct(canvas.shape, canvas.dtype))


def _sample_backward(
    views: Views, shape: tuple[int, int, int], residuals: Any, cotangent: Image
) -> tuple[Array, Array, Array, Array]:
    """The transpose; places are drawn, so nothing is differentiated by them."""
    zoom, angle, shift, canvas = residuals
    transpose = _scattered if jax.default_backend() == "cpu" else _gathered
    pulled = transpose(cotangent, zoom, angle, shift, views, canvas)
    zeros = (jnp.zeros_like(zoom), jnp.zeros_like(angle), jnp.zeros_like(shift))
    return (pulled, *zeros)


_sample.defvjp(_sample_forward, _sample_backward)


def _scattered(
    cotangent: Image,
    zoom: Scalar,
    angle: Scalar,
    shift: Float[Array, "2"],
    views: Views,
    canvas: jax.ShapeDtypeStruct,
) -> Canvas:
    """JAX's transpose, which adds up at the places of the view's pixels.

    It is the faster form on CPU. On GPUs the order of the sums, and so the bits, would
    differ from run to run.
    """
    del views
    (pulled,) = jax.linear_transpose(
        lambda canvas: _interpolated(canvas, zoom, angle, shift, cotangent.shape),
        canvas,
    )(cotangent)
    return pulled


def _gathered(
    cotangent: Image,
    zoom: Scalar,
    angle: Scalar,
    shift: Float[Array, "2"],
    views: Views,
    canvas: jax.ShapeDtypeStruct,
) -> Canvas:
    """The same, gathered by each pixel of the canvas from the view's pixels around it.

    The view reaches beyond the canvas, where the nearest pixel is repeated: what falls
    there is gathered on a canvas that is large enough, and added to the border.
    """
    border = _border(views, cotangent.shape, canvas.shape)
    size = tuple(side + 2 * border for side in canvas.shape[:2])
    rows, columns = _centred(size)
    y, x = _turned(zoom * (rows - shift[0]), zoom * (columns - shift[1]), -angle)
    height, width = cotangent.shape[:2]
    # In pixels of the view.
    y, x = y + jnp.float32((height - 1) / 2), x + jnp.float32((width - 1) / 2)
    top, left = jnp.round(y), jnp.round(x)
    # A pixel of the view counts up to one pixel of the canvas away along each axis.
    reach = math.ceil(math.exp(abs(views.zoom)) * math.sqrt(2) - 0.5)
    total = jnp.zeros((*size, canvas.shape[-1]), cotangent.dtype)
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            dy, dx = _turned((top + i - y) / zoom, (left + j - x) / zoom, angle)
            weight = _triangle(dy) * _triangle(dx)
            row, column = top + i, left + j
            is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            found = cotangent[
                jnp.clip(row, 0, height - 1).astype(jnp.int32),
                jnp.clip(column, 0, width - 1).astype(jnp.int32),
            ]
            total = total + jnp.where(is_inside, weight, 0)[..., None] * found
    (pulled,) = jax.linear_transpose(
        lambda canvas: jnp.pad(
            canvas, ((border, border), (border, border), (0, 0)), mode="edge"
        ),
        canvas,
    )(total)
    return pulled


def _border(views: Views, shape: tuple[int, ...], canvas_shape: tuple[int, ...]) -> int:
    """Pixels that a view can reach beyond the canvas."""
    angle = math.radians(views.rotation)
    height, width = ((side - 1) / 2 for side in shape[:2])
    turned = (
        height * math.cos(angle) + width * math.sin(angle),
        width * math.cos(angle) + height * math.sin(angle),
    )
    beyond = max(
        math.exp(views.zoom) * reach + views.shift * min(shape[:2]) - (side - 1) / 2
        for reach, side in zip(turned, canvas_shape[:2], strict=True)
    )
    return max(math.ceil(beyond), 0) + 1


def _centred(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Rows [h, w] and columns [h, w] of an image's pixels, counted from its middle."""
    rows, columns = (
        jnp.arange(side, dtype=jnp.float32) - jnp.float32((side - 1) / 2)
        for side in shape[:2]
    )
    return tuple(jnp.meshgrid(rows, columns, indexing="ij"))  # type: ignore[return-value]


def _turned(y: Array, x: Array, angle: Scalar) -> tuple[Array, Array]:
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    return cosine * y - sine * x, sine * y + cosine * x


def _triangle(x: Array) -> Array:
    return jnp.maximum(0, 1 - jnp.abs(x))
