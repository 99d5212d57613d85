"""Convolutions that XLA's stock operation makes slowly on some backend.

Each comes in its stock form, in a faster one, and as a function that chooses between
them by backend. The forms agree to rounding.

**Depthwise convolutions** on CPU are sums of shifted images
(`shifted_depthwise_convolution`): XLA has no fast grouped convolution there, and the
stock form is 8 to 24 times slower (value and gradient). Other backends take the stock
form.

**Convolutions with a stride of 4 or more**, which are conv1 of AlexNet and CaffeNet,
are computed on GPU without stride over blocks of pixels
(`space_to_depth_convolution`). Whole steps of AlexNet relu5 then take 0.82 (TF32) and
0.72 (bfloat16) of the time, on one H100 with 512 lanes. Smaller strides, which were not
measured on GPU, and CPU take the stock form. Value and gradient of one image on CPU:

| layer | stock | space to depth |
|---|---|---|
| AlexNet conv1 | 4.3 ms | 4.8 ms |
| CaffeNet conv1 | 6.0 ms | 6.5 ms |
| VGG-M conv1 | 12 ms | 19 ms |
| ResNet50 stem | 9.4 ms | 13 ms |
| EfficientNet-Lite0 stem | 2.0 ms | 2.1 ms |

With more input channels than an image's three, space to depth takes at least 1.7 times
as long as the stock form.
"""

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
    """Correlates every channel with a kernel of its own, in the backend's fastest form.

    Args:
      x: activations of one image, any value range.
      kernel: one k x l kernel per channel.
      stride: pixels between kernel positions.
      padding: rows and columns of zeros at (the top and left, the bottom and right).

    Examples:
      >>> x, kernel = jnp.ones((6, 6, 2)), jnp.ones((3, 3, 1, 2))
      >>> depthwise_convolution(x, kernel, stride=1, padding=(0, 0)).shape
      (4, 4, 2)
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
    """`depthwise_convolution` as XLA's convolution with one group per channel."""
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
    """`depthwise_convolution` as a sum of shifted images, one per kernel element.

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
    """Correlates an image with every kernel, in the backend's fastest form.

    Args:
      x: activations of one image, any value range.
      kernel: one k x l kernel over all input channels per output channel.
      stride: pixels between kernel positions.
      padding: rows and columns of zeros at (the top and left, the bottom and right).

    Examples:
      >>> x, kernel = jnp.ones((9, 9, 3)), jnp.ones((3, 3, 3, 5))
      >>> strided_convolution(x, kernel, stride=2, padding=(0, 0)).shape
      (4, 4, 5)
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
    """`strided_convolution` as XLA's convolution with stride."""
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
    """`strided_convolution` as a convolution without stride over blocks of pixels.

    Each block of `stride` x `stride` pixels becomes one pixel of `stride`^2 c channels.
    The kernel is padded with zeros to whole blocks and arranged in the same way.
    """
    rows, columns, channels, features = kernel.shape
    counts, taps, pads, extra = [], [], [], []
    for side, window in zip(x.shape[:2], (rows, columns), strict=True):
        places = (side + sum(padding) - window) // stride + 1
        blocks = -(-window // stride)
        count = places + blocks - 1
        # A negative padding crops pixels that are under no kernel position.
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
    """Parts of the padded image: [i][j] has rows i, i + stride, ... and columns so."""
    before, after = padding
    # Padded to a multiple of the stride, so that all parts have the same size.
    extra = [-(side + before + after) % stride for side in x.shape[:2]]
    pads = [(before, after + more) for more in extra]
    padded = jnp.pad(x, (*pads, (0, 0)))
    if stride == 1:
        return [[padded]]
    height, width, channels = padded.shape
    split = padded.reshape(height // stride, stride, width // stride, stride, channels)
    return [[split[:, i, :, j] for j in range(stride)] for i in range(stride)]
