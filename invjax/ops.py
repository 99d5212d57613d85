"""Primitives with a form that is faster than the stock one. Images are [h, w, c]."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float


def depthwise_convolution(
    x: Float[Array, "h w c"],
    kernel: Float[Array, "k l 1 c"],
    *,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W c"]:
    """Correlates every channel with a kernel of its own.

    On CPU this adds up shifted copies, since XLA has no fast grouped convolution there
    (8 to 24 times slower, value and gradient). Elsewhere it is the stock operation.
    Both agree to rounding.

    Args:
      x: one image, any value range.
      kernel: one k x l window per channel.
      stride: pixels between windows.
      padding: zeros at (top and left, bottom and right).
    """
    if jax.default_backend() == "cpu":
        return shifted_depthwise_convolution(x, kernel, stride=stride, padding=padding)
    return stock_depthwise_convolution(x, kernel, stride=stride, padding=padding)


def stock_depthwise_convolution(
    x: Float[Array, "h w c"],
    kernel: Float[Array, "k l 1 c"],
    *,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W c"]:
    """`depthwise_convolution` by a convolution with one group per channel."""
    return jax.lax.conv_general_dilated(
        x[None],
        kernel,
        window_strides=(stride, stride),
        padding=(padding, padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )[0]


def shifted_depthwise_convolution(
    x: Float[Array, "h w c"],
    kernel: Float[Array, "k l 1 c"],
    *,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W c"]:
    """`depthwise_convolution` as a sum over the k l taps of shifted images.

    Rows and columns are first split by their remainder modulo the stride, so that all
    shifts are slices without stride, whose transposes XLA fuses.
    """
    rows, columns = kernel.shape[:2]
    height, width = (
        (side + sum(padding) - window) // stride + 1
        for side, window in zip(x.shape[:2], (rows, columns), strict=True)
    )
    phases = _phases(x, stride, padding)
    total: ArrayLike = 0
    for i in range(rows):
        for j in range(columns):
            phase = phases[i % stride][j % stride]
            top, left = i // stride, j // stride
            tap = phase[top : top + height, left : left + width]
            total = total + tap * kernel[i, j, 0][None, None]
    return jnp.asarray(total)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def clipped_relu(x: Float[Array, "..."], ceiling: float) -> Float[Array, "..."]:
    """min(max(x, 0), ceiling), with derivative 0 at both ends (as PyTorch's ReLU6).

    The derivative is told from the result, which the next layer keeps anyhow. Told from
    the argument, XLA's fusion on CPU would compute a depthwise convolution below once
    again for every tap of its own transpose (half as fast for EfficientNet-Lite0).
    """
    return jnp.clip(x, 0, ceiling)


@clipped_relu.defjvp
def _clipped_relu_jvp(ceiling, primals, tangents):
    y = clipped_relu(primals[0], ceiling)
    return y, jnp.where((y > 0) & (y < ceiling), tangents[0], 0)


def _phases(
    x: Float[Array, "h w c"], stride: int, padding: tuple[int, int]
) -> list[list[Array]]:
    """phases[i][j] holds rows i, i + stride, ... and columns j, j + stride, ..."""
    before, after = padding
    # Up to whole strides, so that all phases are of one size.
    extra = [-(side + before + after) % stride for side in x.shape[:2]]
    pads = [(before, after + more) for more in extra]
    padded = jnp.pad(x, (*pads, (0, 0)))
    if stride == 1:
        return [[padded]]
    height, width, channels = padded.shape
    split = padded.reshape(height // stride, stride, width // stride, stride, channels)
    return [[split[:, i, :, j] for j in range(stride)] for i in range(stride)]
