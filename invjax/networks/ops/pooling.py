"""Max-pooling that keeps the position of each maximum, and a relaxed form of it.

The position of the maximum in each window is kept as a small integer, and both
derivatives compare it with the positions in the window. The reverse one gathers, for
each pixel, from the windows that cover it; the stock operation searches all windows
again and scatters. Value and gradient of one image on CPU:

| layer | window / stride | input | stock | here |
|---|---|---|---|---|
| AlexNet pool1 | 3 / 2 | 55 x 55 x 64 | 2.8 ms | 0.6 ms |
| VGG16 pool1 | 2 / 2 | 224 x 224 x 64 | 70 ms | 3 ms |
| ResNet50 stem, padded | 3 / 2 | 112 x 112 x 64 | 14 ms | 2.4 ms |

On one H100 a pool of this kind took whole steps of AlexNet relu5 to 0.81 of their time,
in TF32 and in bfloat16. So there is one form for all backends; TPUs were not measured.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def max_pool(
    x: Float[Array, "h w c"],
    *,
    window: int,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W c"]:
    """The maximum of every window of every channel, padded with -inf.

    It equals `flax.linen.max_pool`, also for infinities and NaN: the value to the bit,
    and the gradient in what each pixel gets from which windows. The first of equal
    maxima (row by row) takes the whole gradient. Where that is padding, as in a window
    of -inf only that begins in the padding, the gradient is lost. Forward mode makes
    the same choice, where that of the stock operation gives 0 for windows of -inf only.

    Args:
      x: activations of one image, any value range.
      window: side of the windows in pixels.
      stride: pixels between windows.
      padding: pixels at (the top and left, the bottom and right).

    Examples:
      >>> x = jnp.arange(16.0).reshape(4, 4, 1)
      >>> max_pool(x, window=2, stride=2, padding=(0, 0))[..., 0]
      Array([[ 5.,  7.],
             [13., 15.]], dtype=float32)
    """
    return _max_pool(x, window, stride, padding)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: Array, window: int, stride: int, padding: tuple[int, int]) -> Array:
    return functools.reduce(jnp.maximum, _taps(x, -jnp.inf, window, stride, padding))


@_max_pool.defjvp
def _max_pool_jvp(
    window: int, stride: int, padding: tuple[int, int], primals: Any, tangents: Any
) -> Any:
    y, position = _maxima(primals[0], window, stride, padding)
    return y, _at_maxima(tangents[0], position, window, stride, padding)


def _at_maxima(
    x: Float[Array, "h w c"],
    position: Array,
    window: int,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W c"]:
    """The value at one position of each window; positions are as in `_maxima`."""
    found = jnp.zeros(position.shape, x.dtype)
    for number, tap in enumerate(_taps(x, 0, window, stride, padding)):
        is_here = position == jnp.asarray(number, position.dtype)
        found = found + jnp.where(is_here, tap, 0)
    return found


def spreading_max_pool(
    x: Float[Array, "h w c"],
    spread: Float[Array, ""],
    *,
    window: int,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W c"]:
    """`max_pool` with a derivative that is partly that of average pooling.

    Only reverse mode is defined.

    Args:
      x: activations of one image, any value range.
      spread: fraction of the derivative, 0 to 1, that is divided evenly over all
        positions of a window, padding included; the maximum has the rest. Traced.
      window, stride, padding: as in `max_pool`.
    """
    return _spreading_max_pool(x, spread, window, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _spreading_max_pool(
    x: Array, spread: Array, window: int, stride: int, padding: tuple[int, int]
) -> Array:
    del spread
    return _max_pool(x, window, stride, padding)


def _spreading_max_pool_forward(
    x: Array, spread: Array, window: int, stride: int, padding: tuple[int, int]
) -> Any:
    y, position = _maxima(x, window, stride, padding)
    return y, (position, spread, jax.ShapeDtypeStruct(x.shape, x.dtype))


def _spreading_max_pool_backward(
    window: int, stride: int, padding: tuple[int, int], residuals: Any, cotangent: Array
) -> tuple[Array, Array]:
    position, spread, x = residuals
    functions = (
        lambda tangent: _at_maxima(tangent, position, window, stride, padding),
        lambda tangent: _window_sums(tangent, window, stride, padding),
    )
    sharp, even = (
        jax.linear_transpose(function, x)(cotangent)[0] for function in functions
    )
    # Scaling the cotangent, before the transposes, takes XLA on CPU ten times as long.
    fraction = spread.astype(cotangent.dtype)
    pulled = (1 - fraction) * sharp + fraction / window**2 * even
    return pulled, jnp.zeros_like(spread)


_spreading_max_pool.defvjp(_spreading_max_pool_forward, _spreading_max_pool_backward)


def _window_sums(
    x: Float[Array, "h w c"], window: int, stride: int, padding: tuple[int, int]
) -> Float[Array, "H W c"]:
    """The sum of every window, padded with zeros: over its rows, then its columns."""
    padded = jnp.pad(x, (padding, padding, (0, 0)))
    height, width = (side - window + 1 for side in padded.shape[:2])
    rows = functools.reduce(
        jnp.add, [padded[i : i + height : stride] for i in range(window)]
    )
    return functools.reduce(
        jnp.add, [rows[:, j : j + width : stride] for j in range(window)]
    )


def _maxima(
    x: Float[Array, "h w c"], window: int, stride: int, padding: tuple[int, int]
) -> tuple[Array, Array]:
    """The maximum of each window, and its position there, counted row by row from 0."""
    first, *others = _taps(x, -jnp.inf, window, stride, padding)
    dtype = jnp.int8 if window**2 <= 128 else jnp.int32
    y = highest = first
    position = jnp.zeros(y.shape, dtype)
    for number, tap in enumerate(others, 1):
        # As the stock operation compares: a NaN gives up the position to what follows,
        # although the maximum is NaN.
        is_kept = highest >= tap
        highest = jnp.where(is_kept, highest, tap)
        position = jnp.where(is_kept, position, jnp.asarray(number, dtype))
        y = jnp.maximum(y, tap)
    # Without it XLA may find the positions again for every pixel of the gradient.
    y, position = jax.lax.optimization_barrier((y, position))
    return y, position


def _taps(
    x: Float[Array, "h w c"],
    border: float,
    window: int,
    stride: int,
    padding: tuple[int, int],
) -> list[Array]:
    """The image at each position of the windows, row by row: one [H, W, c] for each."""
    pads = [(*padding, 0), (*padding, 0), (0, 0, 0)]
    padded = jax.lax.pad(x, jnp.asarray(border, x.dtype), pads)
    # Windows move in whole strides, so the last pixels may be in no window.
    rows, columns = (side - window + 1 for side in padded.shape[:2])
    return [
        padded[i : i + rows : stride, j : j + columns : stride]
        for i in range(window)
        for j in range(window)
    ]
