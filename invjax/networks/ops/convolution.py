"""DOC: to be written."""

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
