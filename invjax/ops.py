"""Primitives with a form that is faster than the stock one. Images are [h, w, c]."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
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


def strided_convolution(
    x: Float[Array, "h w c"],
    kernel: Float[Array, "k l c d"],
    *,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W d"]:
    """Correlates the image with every kernel, at every `stride`-th pixel.

    On GPU a stride of 4 or more, that is AlexNet's and CaffeNet's conv1, goes by
    `space_to_depth_convolution`: whole AlexNet relu5 steps take 0.82 (TF32) and 0.72
    (bfloat16) of the time there, on one H100 with 512 lanes. For smaller strides, not
    measured on GPU, and on CPU it is the stock operation. Both agree to rounding. Value
    and gradient of one image on CPU, stock against space-to-depth, in ms: AlexNet's
    conv1 4.3 and 4.8, CaffeNet's 6.0 and 6.5, VGG-M's 12 and 19, ResNet50's 9.4 and 13,
    EfficientNet-Lite0's stem 2.0 and 2.1; with more channels than an image's it
    takes 1.7 times as long or more.

    Args:
      x: one image, any value range.
      kernel: one k x l window of all channels per feature.
      stride: pixels between windows.
      padding: zeros at (top and left, bottom and right).
    """
    if jax.default_backend() == "cpu" or stride < 4:
        return stock_strided_convolution(x, kernel, stride=stride, padding=padding)
    return space_to_depth_convolution(x, kernel, stride=stride, padding=padding)


def stock_strided_convolution(
    x: Float[Array, "h w c"],
    kernel: Float[Array, "k l c d"],
    *,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W d"]:
    """`strided_convolution` by a convolution with stride."""
    return jax.lax.conv_general_dilated(
        x[None],
        kernel,
        window_strides=(stride, stride),
        padding=(padding, padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]


def space_to_depth_convolution(
    x: Float[Array, "h w c"],
    kernel: Float[Array, "k l c d"],
    *,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W d"]:
    """`strided_convolution` without stride, over blocks of pixels.

    Each `stride` x `stride` block becomes one pixel of `stride`^2 c channels; the
    kernel, padded with zeros to whole blocks, likewise.
    """
    rows, columns, channels, features = kernel.shape
    counts, taps, pads, extra = [], [], [], []
    for side, window in zip(x.shape[:2], (rows, columns), strict=True):
        places = (side + sum(padding) - window) // stride + 1
        blocks = -(-window // stride)
        count = places + blocks - 1
        # Less than zero crops what is in no window.
        pads.append((padding[0], count * stride - side - padding[0], 0))
        extra.append((0, blocks * stride - window))
        counts.append(count)
        taps.append(blocks)
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), (*pads, (0, 0, 0)))
    depth = stride * stride * channels
    image = (
        padded.reshape(counts[0], stride, counts[1], stride, channels)
        .transpose(0, 2, 1, 3, 4)
        .reshape(*counts, depth)
    )
    weights = (
        jnp.pad(kernel, (*extra, (0, 0), (0, 0)))
        .reshape(taps[0], stride, taps[1], stride, channels, features)
        .transpose(0, 2, 1, 3, 4, 5)
        .reshape(*taps, depth, features)
    )
    return stock_strided_convolution(image, weights, stride=1, padding=(0, 0))


def max_pool(
    x: Float[Array, "h w c"],
    *,
    window: int,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W c"]:
    """Maximum of every window of every channel, padded with -inf.

    Equals `flax.linen.max_pool`, of infinities and NaN as well: the value to the bit,
    the gradient in what each pixel gets from which windows. The first of equal maxima
    (row by row) takes the whole gradient; where that is padding, as in an all -inf
    window that begins there, the gradient is lost. Forward mode follows the same
    choice. (The stock operation's own gives 0 for all -inf windows.)

    The position of each maximum is kept as a small integer. Both derivatives only
    compare it with the place in the window: the reverse one gathers, for each pixel,
    from the windows that cover it, where the stock one searches all windows again and
    scatters. Value and gradient of one image on CPU, in ms: 0.6 against 2.8 for
    AlexNet's pool1 (3 / 2 on 55 x 55 x 64), 3 against 70 for VGG16's (2 / 2 on 224 x
    224 x 64), 2.4 against 14 for ResNet50's (3 / 2 on 112 x 112 x 64, padded). On one
    H100 a pool of this kind took whole AlexNet relu5 steps to 0.81 of their time, in
    TF32 and in bfloat16. So there is one form for all backends; TPUs were not measured.

    Args:
      x: one image, any value range.
      window: side of the windows in pixels.
      stride: pixels between windows.
      padding: pixels at (top and left, bottom and right).
    """
    return _max_pool(x, window, stride, padding)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, stride, padding):
    return functools.reduce(jnp.maximum, _taps(x, -jnp.inf, window, stride, padding))


@_max_pool.defjvp
def _max_pool_jvp(window, stride, padding, primals, tangents):
    y, position = _maxima(primals[0], window, stride, padding)
    return y, _at_maxima(tangents[0], position, window, stride, padding)


def _at_maxima(
    x: Float[Array, "h w c"],
    position: Array,
    window: int,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W c"]:
    """What stands at one place of each window."""
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
    """`max_pool`, whose derivative is in part that of the windows' means.

    Args:
      x: one image, any value range.
      spread: share of the derivative, 0 to 1, that every place of a window has an equal
        part of, padding included; traced.
      window, stride, padding: as in `max_pool`.
    """
    return _spreading_max_pool(x, spread, window, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _spreading_max_pool(x, spread, window, stride, padding):
    del spread
    return _max_pool(x, window, stride, padding)


def _spreading_max_pool_forward(x, spread, window, stride, padding):
    y, position = _maxima(x, window, stride, padding)
    return y, (position, spread, jax.ShapeDtypeStruct(x.shape, x.dtype))


def _spreading_max_pool_backward(window, stride, padding, kept, cotangent):
    position, spread, x = kept
    functions = (
        lambda tangent: _at_maxima(tangent, position, window, stride, padding),
        lambda tangent: _window_sums(tangent, window, stride, padding),
    )
    sharp, even = (
        jax.linear_transpose(function, x)(cotangent)[0] for function in functions
    )
    # Shares of the cotangent instead would take XLA on CPU ten times as long.
    share = spread.astype(cotangent.dtype)
    return (1 - share) * sharp + share / window**2 * even, jnp.zeros_like(spread)


_spreading_max_pool.defvjp(_spreading_max_pool_forward, _spreading_max_pool_backward)


def _window_sums(
    x: Float[Array, "h w c"], window: int, stride: int, padding: tuple[int, int]
) -> Float[Array, "H W c"]:
    """Sum of every window, padded with zeros: along columns, then along rows."""
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
    """Maximum of each window, and its place in it as a small integer."""
    first, *others = _taps(x, -jnp.inf, window, stride, padding)
    dtype = jnp.int8 if window**2 <= 128 else jnp.int32
    y = highest = first
    position = jnp.zeros(y.shape, dtype)
    for number, tap in enumerate(others, 1):
        # Stock comparison: NaN gives way to what follows, though the maximum is NaN.
        is_kept = highest >= tap
        highest = jnp.where(is_kept, highest, tap)
        position = jnp.where(is_kept, position, jnp.asarray(number, dtype))
        y = jnp.maximum(y, tap)
    # Otherwise XLA may find the positions once again for each pixel of the gradient.
    y, position = jax.lax.optimization_barrier((y, position))
    return y, position


def _taps(
    x: Float[Array, "h w c"],
    border: float,
    window: int,
    stride: int,
    padding: tuple[int, int],
) -> list[Array]:
    """What each of the places of a window sees, row by row: [H, W, c] each."""
    pads = [(*padding, 0), (*padding, 0), (0, 0, 0)]
    padded = jax.lax.pad(x, jnp.asarray(border, x.dtype), pads)
    # Windows move in whole strides, so the last pixels may be in none.
    rows, columns = (side - window + 1 for side in padded.shape[:2])
    return [
        padded[i : i + rows : stride, j : j + columns : stride]
        for i in range(window)
        for j in range(window)
    ]


def local_response_norm(
    x: Float[Array, "h w c"],
    *,
    size: int,
    kappa: float,
    alpha: float,
    beta: float,
) -> Float[Array, "h w c"]:
    """x / (kappa + alpha S)^beta, S the sum of x^2 over `size` neighbouring channels.

    Missing neighbours count as zero. The derivative along t, with b = kappa + alpha S,

        b^-beta t - 2 alpha beta x b^(-beta - 1) (sum of x t over the neighbours)

    is written out, since on CPU the automatic one of a sum of shifted slices is slow,
    value and gradient of one image, in ms: 0.6 against 3.3 for CaffeNet's norm1
    (27 x 27 x 96), 8 against 50 for VGG-M's (109 x 109 x 96). Both agree to rounding.
    The form is the same on all backends; only CPU was measured.

    Args:
      x: one image, any value range.
      size: number of channels summed; odd.
      kappa: added to the sum; positive.
      alpha: factor of the sum.
      beta: exponent.
    """
    return _local_response_norm(x, size, kappa, alpha, beta)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _local_response_norm(x, size, kappa, alpha, beta):
    return x * (kappa + alpha * _channel_sums(x * x, size)) ** -beta


@_local_response_norm.defjvp
def _local_response_norm_jvp(size, kappa, alpha, beta, primals, tangents):
    x, tangent = primals[0], tangents[0]
    base = kappa + alpha * _channel_sums(x * x, size)
    factor = base**-beta
    bend = -2 * alpha * beta * x * (factor / base)
    y = x * factor
    return y, factor * tangent + bend * _channel_sums(x * tangent, size)


def _channel_sums(x: Float[Array, "h w c"], size: int) -> Float[Array, "h w c"]:
    """Sums over `size` neighbouring channels, zero beyond the first and last."""
    half = size // 2
    pads = ((0, 0), (0, 0), (half, half))
    zero = np.zeros((), x.dtype)
    return jax.lax.reduce_window(x, zero, jax.lax.add, (1, 1, size), (1, 1, 1), pads)


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
