"""Convolutions that XLA's stock operation makes slowly on some backend.

Each comes in its stock form, in a faster one, and as a function that chooses between
them by backend. The forms agree to rounding.

**Depthwise convolutions** on CPU are sums of shifted images
(`shifted_depthwise_convolution`): XLA has no fast grouped convolution there. Their
derivative along the image is a sum of shifted images, too, with the kernel turned;
JAX would make it of slices that are transposed one by one. Other backends take the
stock form. Milliseconds of processor time, value and gradient by the image, between a
ReLU and a clipped one:

| image, kernel, stride | images | stock | transposed slices | shifted |
|---|---|---|---|---|
| 56 x 56 x 144, 3 x 3 | 1 | 25 | 23 | 0.8 |
| | 4 | 97 | 94 | 6.6 |
| 112 x 112 x 96, 3 x 3, 2 | 1 | 109 | 18 | 2.4 |
| | 4 | 470 | 96 | 41 to 49 |
| 56 x 56 x 144, 5 x 5, 2 | 1 | 82 | 1.2 | 1.4 |
| | 4 | 336 | 6.9 | 8 to 12 |
| 14 x 14 x 384, 7 x 7 | 1 | 11 | 2.5 | 1.0 |
| | 4 | 39 | 10 | 4.0 |
| 56 x 56 x 96, 7 x 7 | 1 | 38 | 10 | 3.3 |
| | 4 | 151 | 41 | 15 |

Four images of 56 x 56 x 96 in bfloat16, with a 7 x 7 kernel, take 235 ms by transposed
slices, which add in bfloat16, and 13 ms as here.

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

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import ArrayLike, DTypeLike
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
    shifts are slices without stride.
    """
    rows, columns = kernel.shape[:2]
    if stride == 1:
        return _sum_of_shifts(x[None], kernel[None, :, :, 0], (padding, padding))[0]
    height, width = (
        (side + sum(padding) - window) // stride + 1
        for side, window in zip(x.shape[:2], (rows, columns), strict=True)
    )
    total: ArrayLike = 0
    for i, row in enumerate(_phases(x, stride, padding)[:rows]):
        for j, phase in enumerate(row[:columns]):
            taps = kernel[None, i::stride, j::stride, 0]
            # What is beyond the last place of the kernel; negative where that crops.
            ends = tuple(
                (0, place + window - 1 - side)
                for place, window, side in zip(
                    (height, width), taps.shape[1:3], phase.shape[:2], strict=True
                )
            )
            total = total + _sum_of_shifts(phase[None], taps, ends)[0]
    return jnp.asarray(total)


Padding2d: TypeAlias = tuple[tuple[int, int], ...]
"""Zeros before and after the rows, and before and after the columns."""


def _sum_of_shifts(
    x: Float[Array, "n h w c"], kernel: Float[Array, "m k l c"], padding: Padding2d
) -> Float[Array, "n H W c"]:
    """Correlates every channel of n images with its kernel, without stride.

    It is a primitive, since nothing else in JAX lets one state the transpose of a
    linear function and keeps forward mode and vmap: functions with custom_vjp have no
    forward mode, and linear_call has no vmap.

    Args:
      x: n images.
      kernel: a kernel for each image, or one for all (m = 1).
      padding: zeros around each image; negative numbers crop.

    Raises:
      TypeError: the types differ, which XLA's convolution refuses, too.
    """
    if x.dtype != kernel.dtype:
        raise TypeError(
            "image and kernel of a depthwise convolution should have one type, "
            f"not {x.dtype} and {kernel.dtype}"
        )
    return _sum_of_shifts_p.bind(x, kernel, padding=padding)


def _add_shifts(x: Array, kernel: Array, *, padding: Padding2d) -> Array:
    # Without the barrier, XLA's fusion may compute what x is computed from again for
    # every tap.
    image = jax.lax.optimization_barrier(_padded(x, padding)).astype(_wide(x))
    taps = kernel.astype(_wide(x))
    rows, columns = taps.shape[1:3]
    height, width = image.shape[1] - rows + 1, image.shape[2] - columns + 1
    total: ArrayLike = 0
    for i in range(rows):
        for j in range(columns):
            tap = image[:, i : i + height, j : j + width]
            total = total + tap * taps[:, i, j][:, None, None]
    return jnp.asarray(total, x.dtype)


def _sum_of_shifts_by_image(
    cotangent: Array, x: Any, kernel: Array, *, padding: Padding2d
) -> Array:
    """The transpose along the image: the same of the cotangent, with turned kernels."""
    del x
    turned = tuple(
        (window - 1 - before, window - 1 - after)
        for window, (before, after) in zip(kernel.shape[1:3], padding, strict=True)
    )
    return _sum_of_shifts(cotangent, kernel[:, ::-1, ::-1], turned)


def _sum_of_shifts_by_kernel(
    cotangent: Array, x: Array, kernel: Any, *, padding: Padding2d
) -> Array:
    """The transpose along the kernel: sums of products over images and places."""
    count, rows, columns, _ = kernel.aval.shape
    image, slope = _padded(x, padding).astype(_wide(x)), cotangent.astype(_wide(x))
    height, width = slope.shape[1:3]
    axes = (0, 1, 2) if count == 1 else (1, 2)
    sums = [
        jnp.sum(image[:, i : i + height, j : j + width] * slope, axes)
        for i in range(rows)
        for j in range(columns)
    ]
    by_kernel = jnp.stack(sums, axis=-2).reshape(count, rows, columns, -1)
    return by_kernel.astype(x.dtype)


def _padded(x: Array, padding: Padding2d) -> Array:
    pads = [(0, 0, 0), *((*sides, 0) for sides in padding), (0, 0, 0)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), pads)


def _wide(x: Array) -> DTypeLike:
    """The type to add in: float32 for shorter floats.

    Sums are then rounded once, as XLA's convolutions are, and need less time on CPU.
    """
    return jnp.float32 if x.dtype.itemsize < 4 else x.dtype


def _sum_of_shifts_of_many(
    arguments: Sequence[Array], axes: Sequence[int | None], *, padding: Padding2d
) -> tuple[Array, int]:
    """The rule of vmap: more images, and more kernels where these are not shared."""
    (x, kernel), (x_axis, kernel_axis) = arguments, axes
    size = next(
        array.shape[axis]
        for array, axis in zip(arguments, axes, strict=True)
        if axis is not None
    )
    x = batching.bdim_at_front(x, x_axis, size)
    count = x.shape[1]
    if kernel_axis is not None or kernel.shape[0] > 1:
        kernel = batching.bdim_at_front(kernel, kernel_axis, size)
        shape = kernel.shape[2:]
        kernel = jnp.broadcast_to(kernel, (size, count, *shape)).reshape(-1, *shape)
    y = _sum_of_shifts(x.reshape(-1, *x.shape[2:]), kernel, padding)
    return y.reshape(size, count, *y.shape[1:]), 0


def _sum_of_shifts_shape(x: Any, kernel: Any, *, padding: Padding2d) -> Any:
    sides = (
        side + sum(both) - window + 1
        for side, both, window in zip(
            x.shape[1:3], padding, kernel.shape[1:3], strict=True
        )
    )
    return x.update(shape=(x.shape[0], *sides, x.shape[3]), weak_type=False)


_sum_of_shifts_p = Primitive("sum_of_shifts")
_sum_of_shifts_p.def_impl(jax.jit(_add_shifts, static_argnames="padding"))
_sum_of_shifts_p.def_abstract_eval(_sum_of_shifts_shape)
ad.defbilinear(_sum_of_shifts_p, _sum_of_shifts_by_image, _sum_of_shifts_by_kernel)
batching.primitive_batchers[_sum_of_shifts_p] = _sum_of_shifts_of_many
mlir.register_lowering(
    _sum_of_shifts_p, mlir.lower_fun(_add_shifts, multiple_results=False)
)


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
    height, width, channels = padded.shape
    split = padded.reshape(height // stride, stride, width // stride, stride, channels)
    return [[split[:, i, :, j] for j in range(stride)] for i in range(stride)]
