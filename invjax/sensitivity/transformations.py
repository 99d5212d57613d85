"""Transformations of an image to which a representation may be invariant.

Each function takes an image [h, w, c] in [0, 1] and a traced amount. At amount 0 it is
the identity. Results are not clipped. Geometric transformations are about the centre of
the image and interpolate bilinearly, so that shifts by whole pixels are exact and
others also blur. Beyond the border the image is reflected with its outermost pixels
repeated (d c b a | a b c d | d c b a).
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from invjax.callables import TracedCallable
from invjax.images import pixels
from invjax.representations import as_representation
from invjax.types import (
    Image,
    RepresentationLike,
    Scalar,
)

_AT_ONCE = 4


def shift(image: Image, amount: Scalar) -> Image:
    """Moves the content to the right by `amount` pixels.

    Examples:
      >>> row = jnp.array([[[1.0], [2.0], [3.0]]])
      >>> shift(row, jnp.float32(1)).ravel().tolist()
      [1.0, 1.0, 2.0]
    """
    rows, columns = _grid(image)
    return _sample(image, rows, columns - amount)


def shift_down(image: Image, amount: Scalar) -> Image:
    """Moves the content down by `amount` pixels."""
    rows, columns = _grid(image)
    return _sample(image, rows - amount, columns)


def rotation(image: Image, amount: Scalar) -> Image:
    """Rotates the content by `amount` degrees, anticlockwise on screen."""
    angle = jnp.deg2rad(amount)
    rows, columns, centre = _centred(image)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return _sample(
        image,
        centre[0] + cosine * rows + sine * columns,
        centre[1] - sine * rows + cosine * columns,
    )


def scale(image: Image, amount: Scalar) -> Image:
    """Magnifies the content by exp(`amount`)."""
    factor = jnp.exp(-amount)
    rows, columns, centre = _centred(image)
    return _sample(image, centre[0] + factor * rows, centre[1] + factor * columns)


def brightness(image: Image, amount: Scalar) -> Image:
    """Adds `amount` to every value."""
    return image + amount


def contrast(image: Image, amount: Scalar) -> Image:
    """Multiplies the distance from the mean colour by 1 + `amount`."""
    mean = jnp.mean(image, axis=(0, 1), keepdims=True)
    return image + amount * (image - mean)


def blur(image: Image, amount: Scalar) -> Image:
    """Blurs the image with a Gaussian of standard deviation `amount` pixels.

    It multiplies the coefficients of the cosine transform, whose basis functions are
    reflected at the border. That is exact for every amount, and smooth in the amount
    at 0.
    """
    height, width, _ = image.shape
    # Frequencies of the cosines in radians per pixel.
    vertical = jnp.pi * jnp.arange(height, dtype=image.dtype)[:, None, None] / height
    horizontal = jnp.pi * jnp.arange(width, dtype=image.dtype)[None, :, None] / width
    gain = jnp.exp(-0.5 * amount**2 * (vertical**2 + horizontal**2))
    cosines = jax.scipy.fft.dctn(image, axes=(0, 1), norm="ortho")
    return jax.scipy.fft.idctn(gain * cosines, axes=(0, 1), norm="ortho")


class Transformation(NamedTuple):
    """A transformation of images.

    Attributes:
      apply: function of an image and an amount.
      unit: unit of the amount.
    """

    apply: Callable[[Image, Scalar], Image]
    unit: str


TRANSFORMATIONS = {
    "shift": Transformation(shift, "pixels"),
    "shift_down": Transformation(shift_down, "pixels"),
    "rotation": Transformation(rotation, "degrees"),
    "scale": Transformation(scale, "log of the factor"),
    "brightness": Transformation(brightness, "fraction of the range"),
    "contrast": Transformation(contrast, "fraction of the contrast"),
    "blur": Transformation(blur, "pixels, standard deviation"),
}
"""The transformations of this module by name."""


class Sensitivity(NamedTuple):
    """Relative changes of a code and of an image x under a transformation T.

    Attributes:
      amounts: the amounts of the transformation.
      code: |phi(T x) - phi(x)| / |phi(x)| at each amount.
      pixels: |T x - x| / |x| at each amount.
      code_slope, pixel_slope: change divided by the amount, at the smallest amount
        other than 0; NaN if there is none.
    """

    amounts: Float[Array, " t"]
    code: Float[Array, " t"]
    pixels: Float[Array, " t"]
    code_slope: Scalar
    pixel_slope: Scalar


def sensitivity(
    phi: RepresentationLike,
    image: ArrayLike,
    transformation: Callable[[Image, Scalar], Image],
    amounts: ArrayLike | Sequence[float],
) -> Sensitivity:
    """Measures the relative change of a code under a transformation of the image.

    Args:
      phi: the representation, or its name.
      image: [h, w, c] in phi's range.
      transformation: a function of this module, or any pure function of an image and an
        amount.
      amounts: [t], in the unit of the transformation.

    Examples:
      >>> found = sensitivity(jnp.ravel, jnp.ones((2, 2, 1)), brightness, [0.0, 0.5])
      >>> found.code.tolist(), found.code_slope.item()
      ([0.0, 0.5], 1.0)
    """
    amounts = jnp.atleast_1d(jnp.asarray(amounts, jnp.float32))
    image = jnp.asarray(pixels.checked(image), jnp.float32)
    phi = as_representation(phi)
    return _sensitivity(TracedCallable.of(phi), image, amounts, transformation)


@functools.partial(jax.jit, static_argnames="transformation")
def _sensitivity(
    phi: TracedCallable,
    image: Image,
    amounts: Float[Array, " t"],
    transformation: Callable[[Image, Scalar], Image],
) -> Sensitivity:
    code = phi(image)

    def changes(amount: Scalar) -> tuple[Scalar, Scalar]:
        transformed = transformation(image, amount)
        return (
            jnp.linalg.norm(phi(transformed) - code) / jnp.linalg.norm(code),
            jnp.linalg.norm(transformed - image) / jnp.linalg.norm(image),
        )

    of_code, of_pixels = jax.lax.map(changes, amounts, batch_size=_AT_ONCE)
    sizes = jnp.where(amounts == 0, jnp.inf, jnp.abs(amounts))
    smallest = jnp.argmin(sizes)
    unit = jnp.where(jnp.isinf(sizes[smallest]), jnp.nan, sizes[smallest])
    return Sensitivity(
        amounts=amounts,
        code=of_code,
        pixels=of_pixels,
        code_slope=of_code[smallest] / unit,
        pixel_slope=of_pixels[smallest] / unit,
    )


def _grid(image: Image) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    height, width, _ = image.shape
    rows, columns = jnp.meshgrid(
        jnp.arange(height, dtype=image.dtype),
        jnp.arange(width, dtype=image.dtype),
        indexing="ij",
    )
    return rows, columns


def _centred(
    image: Image,
) -> tuple[Float[Array, "h w"], Float[Array, "h w"], tuple[float, float]]:
    """Coordinates of the pixels from the centre, and the coordinates of the centre."""
    rows, columns = _grid(image)
    centre = ((image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2)
    return rows - centre[0], columns - centre[1], centre


def _sample(
    image: Image, rows: Float[Array, "h w"], columns: Float[Array, "h w"]
) -> Image:
    """Interpolates the image at coordinates, channel by channel."""
    return jax.vmap(
        lambda channel: jax.scipy.ndimage.map_coordinates(
            channel, [rows, columns], order=1, mode="reflect"
        ),
        in_axes=-1,
        out_axes=-1,
    )(image)
