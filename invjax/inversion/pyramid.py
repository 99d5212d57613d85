"""An image pyramid as coordinates for gradient descent.

An image z is a sum of levels q_s of halving size,

    z = sum over levels s of 2^(s / 4) up^s(q_s),

where q_s has 1 / 2^s of z's height and width, and `up` doubles both by linear
interpolation. Photographs, and the gradients of their representations, have most of
their energy at low frequencies; steps of equal size in every coordinate of the pyramid
then change coarse structure most. Scaled Fourier coefficients have that property, too,
but each of them spans the image, while the curvature of a representation varies from
place to place: Adam scales its steps coordinate by coordinate, which suits local
coordinates better.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from invjax.types import Image

Levels: TypeAlias = tuple[Float[Array, "_ _ _"], ...]
"""q_0, q_1, ... from fine to coarse; the last is one colour for the whole image."""

_SMALLEST = 7
_EXPONENT = 0.25

_LARGEST_DENSE = 32
"""Levels up to this size are halved by matrices: faster to run and to compile."""

_EXACT = jax.lax.Precision.HIGHEST


def level_shapes(image_shape: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """Shapes of the levels for an image [h, w, c]: halved, rounded up, down to 7.

    Examples:
      >>> level_shapes((20, 14, 3))
      ((20, 14, 3), (10, 7, 3), (5, 4, 3), (1, 1, 3))
    """
    height, width, channels = image_shape
    shapes = [(height, width, channels)]
    while max(height, width) > _SMALLEST:
        height, width = -(-height // 2), -(-width // 2)
        shapes.append((height, width, channels))
    return (*shapes, (1, 1, channels))


def analyse(z: Image) -> Levels:
    """Levels whose sum is z [h, w, c]: z itself as the finest, zeros as the others."""
    _, *others = level_shapes(z.shape)
    return (z, *(jnp.zeros(shape, z.dtype) for shape in others))


def synthesise(levels: Levels) -> Image:
    """The sum z [h, w, c] of the levels; linear in them."""
    *images, colour = levels
    # The weight of the colour is that of a level of one pixel.
    z = max(images[0].shape[:2]) ** _EXPONENT * jnp.broadcast_to(
        colour, images[-1].shape
    )
    for number in reversed(range(len(images))):
        height, width, _ = images[number].shape
        if number < len(images) - 1:
            z = _double(_double(z, axis=0), axis=1)[:height, :width]
        z = z + 2 ** (_EXPONENT * number) * images[number]
    return z


def adjoint(z: Image) -> Levels:
    """The transpose of `synthesise`: the gradient at the levels of a gradient at z.

    It is written out, since what JAX derives is slower on CPU and takes longer to
    compile.
    """
    *shapes, _ = level_shapes(z.shape)
    levels = []
    for number, (height, width, _) in enumerate(shapes):
        if number > 0:
            if max(height, width) <= _LARGEST_DENSE:
                z = jnp.einsum(
                    "hi,ijc->hjc", _halving(z.shape[0], z.dtype), z, precision=_EXACT
                )
                z = jnp.einsum(
                    "wj,hjc->hwc", _halving(z.shape[1], z.dtype), z, precision=_EXACT
                )
            else:
                rows, columns = 2 * height - z.shape[0], 2 * width - z.shape[1]
                z = jnp.pad(z, ((0, rows), (0, columns), (0, 0)))
                # Keeps XLA from computing a level again for each of the coarser ones.
                z = jax.lax.optimization_barrier(_halve(_halve(z, axis=0), axis=1))
        levels.append(2 ** (_EXPONENT * number) * z)
    colour = max(shapes[0][:2]) ** _EXPONENT * jnp.sum(z, axis=(0, 1), keepdims=True)
    return (*levels, colour)


def _double(x: Float[Array, "h w c"], *, axis: int) -> Array:
    """Doubles the pixels along an axis by interpolation; the border is replicated."""
    last = x.shape[axis] - 1
    before = jnp.concatenate(
        [
            jax.lax.slice_in_dim(x, 0, 1, axis=axis),
            jax.lax.slice_in_dim(x, 0, last, axis=axis),
        ],
        axis=axis,
    )
    after = jnp.concatenate(
        [
            jax.lax.slice_in_dim(x, 1, last + 1, axis=axis),
            jax.lax.slice_in_dim(x, last, last + 1, axis=axis),
        ],
        axis=axis,
    )
    pair = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
    shape = list(x.shape)
    shape[axis] *= 2
    return pair.reshape(shape)


def _halve(y: Float[Array, "h w c"], *, axis: int) -> Array:
    """The transpose of `_double`: weights 1/4, 3/4, 3/4, 1/4, the border replicated."""
    side = y.shape[axis]
    ends = [
        jax.lax.slice_in_dim(y, place, place + 1, axis=axis) for place in (0, side - 1)
    ]
    padded = jnp.concatenate([ends[0], y, ends[1]], axis=axis)
    taps = [
        jax.lax.slice_in_dim(padded, first, first + side - 1, 2, axis)
        for first in range(4)
    ]
    return 0.25 * (taps[0] + taps[3]) + 0.75 * (taps[1] + taps[2])


def _halving(side: int, dtype: DTypeLike) -> Array:
    """The matrix of `_halve` for `side` pixels; an odd number is padded by a zero."""
    half = -(-side // 2)
    matrix = np.zeros((half, 2 * half), np.float32)
    for pixel in range(2 * half):
        nearest = pixel // 2
        other = nearest + (1 if pixel % 2 else -1)
        matrix[nearest, pixel] += 0.75
        matrix[min(max(other, 0), half - 1), pixel] += 0.25
    return jnp.asarray(matrix[:, :side], dtype)
