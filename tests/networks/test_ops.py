"""The fast forms of operations equal the stock ones in value and gradient."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.typing import DTypeLike

from invjax.networks import NETWORKS, layers
from invjax.networks.layers import Conv, Layer, MaxPool
from invjax.networks.ops import activations, pooling
from invjax.networks.ops.convolution import (
    depthwise_convolution,
    shifted_depthwise_convolution,
    space_to_depth_convolution,
    stock_depthwise_convolution,
    stock_strided_convolution,
    strided_convolution,
)

Options: TypeAlias = tuple[tuple[str, Any], ...]
"""Keyword arguments as a hashable tuple of (name, value)."""

# Side, channels, window, stride, padding: EfficientNet-Lite0's, and unusual ones.
CASES = [
    (12, 8, 3, 1, (1, 1)),
    (12, 8, 3, 2, (0, 1)),
    (14, 6, 5, 2, (1, 2)),
    (14, 6, 5, 1, (2, 2)),
    (13, 4, 5, 2, (2, 2)),
    (11, 3, 3, 3, (1, 0)),
    (9, 5, 4, 2, (0, 0)),
    (5, 2, 5, 1, (0, 0)),
]


def _all_layers(table: tuple[Layer, ...]) -> Iterator[Layer]:
    for layer in table:
        yield layer
        for inner in (getattr(layer, "layers", ()), getattr(layer, "shortcut", ())):
            yield from _all_layers(inner)


_LAYERS = [
    layer for network in NETWORKS.values() for layer in _all_layers(network.layers)
]

# Window, stride, padding: those of the networks, and unusual ones.
POOLS = sorted(
    {
        (layer.window, layer.stride, layers.sides(layer.padding))
        for layer in _LAYERS
        if isinstance(layer, MaxPool)
    }
    | {
        (2, 1, (0, 0)),
        (2, 3, (0, 0)),
        (3, 1, (1, 1)),
        (3, 3, (2, 0)),
        (5, 2, (1, 2)),
    }
)

# Kernel, stride, padding: likewise.
CONVOLUTIONS = sorted(
    {
        (layer.kernel, layer.stride, layers.sides(layer.padding))
        for layer in _LAYERS
        if isinstance(layer, Conv) and layer.stride > 1
    }
    | {(4, 4, (0, 0)), (2, 3, (0, 0)), (5, 3, (4, 1)), (1, 4, (0, 0))}
)


def _arguments(side: int, channels: int, window: int) -> tuple[Array, Array]:
    random = np.random.RandomState(0)
    x = random.randn(side, side + 1, channels)
    kernel = random.randn(window, window, 1, channels)
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


@pytest.mark.parametrize(("side", "channels", "window", "stride", "padding"), CASES)
def test_shifted_depthwise_equals_stock(
    side: int, channels: int, window: int, stride: int, padding: tuple[int, int]
) -> None:
    x, kernel = _arguments(side, channels, window)
    options: Any = {"stride": stride, "padding": padding}

    @functools.partial(jax.jit, static_argnums=0)
    def run(operation: Callable[..., Array], x: Array, kernel: Array) -> Any:
        y, pull = jax.vjp(lambda *a: operation(*a, **options), x, kernel)
        # A cotangent without symmetries.
        return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    stock, wanted_slopes = run(stock_depthwise_convolution, x, kernel)
    fast, slopes = run(shifted_depthwise_convolution, x, kernel)
    np.testing.assert_allclose(fast, stock, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(slopes, wanted_slopes, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


Depthwise: TypeAlias = Callable[[Array, Array], Array]

# Even, oblong and tall kernels; strides; more zeros before than the kernel is wide.
DERIVATIVES: Any = {
    "even": ((3, 4), {"stride": 1, "padding": (2, 1)}),
    "stride of 2": ((3, 3), {"stride": 2, "padding": (0, 1)}),
    "far": ((2, 3), {"stride": 1, "padding": (4, 0)}),
}


def _both_depthwise(case: str) -> tuple[tuple[Depthwise, Depthwise], Any]:
    """The stock form and the shifted one, and (x, kernel), twice."""
    shape, options = DERIVATIVES[case]
    random = np.random.RandomState(0)
    shapes = 2 * [(6, 7, 2), (*shape, 1, 2)]
    given = [jnp.asarray(random.randn(*shape), jnp.float32) for shape in shapes]
    stock = functools.partial(stock_depthwise_convolution, **options)
    fast = functools.partial(shifted_depthwise_convolution, **options)
    return (stock, fast), (given[:2], given[2:])


def _check_both(forms: Any, modes: Callable[[Depthwise], Any], tolerance: float = 1e-5):
    wanted, found = jax.jit(lambda: [modes(form) for form in forms])()
    for one, other in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        one, other = (np.asarray(value, np.float64) for value in (one, other))
        np.testing.assert_allclose(other, one, atol=tolerance * np.abs(one).max())


def _bent(form: Depthwise) -> Callable[[Array, Array], Array]:
    """A scalar with derivatives of every order."""
    return lambda x, kernel: jnp.sum(jnp.sin(form(x, kernel)))


@pytest.mark.parametrize("case", DERIVATIVES)
def test_every_derivative_of_the_shifted_form_is_the_stock_one(case: str) -> None:
    forms, (given, along) = _both_depthwise(case)

    def modes(form: Depthwise) -> Any:
        slopes = jax.grad(_bent(form), (0, 1))
        return (
            jax.jvp(form, given, along),
            jax.linearize(form, *given)[1](*along),
            jax.jvp(slopes, given, along),
            jax.grad(lambda *a: sum(jnp.vdot(s, s) for s in slopes(*a)), (0, 1))(
                *given
            ),
        )

    _check_both(forms, modes)


@pytest.mark.parametrize("case", DERIVATIVES)
def test_batches_of_images_and_of_kernels(case: str) -> None:
    forms, (x, kernel) = _both_depthwise(case)
    images, kernels = (
        jnp.stack([one, 2 * one[::-1], one - 1]) for one in (x[0], kernel[1])
    )

    def modes(form: Depthwise) -> Any:
        slopes = jax.grad(_bent(form), (0, 1))
        by_image = jax.vmap(slopes, (0, None))
        return (
            by_image(images, kernels[0]),
            jax.vmap(slopes, (None, 0))(images[0], kernels),
            jax.vmap(slopes)(images, kernels),
            jax.vmap(form, (1, 3), 2)(
                jnp.moveaxis(images, 0, 1), jnp.moveaxis(kernels, 0, 3)
            ),
            jax.vmap(by_image, (None, 0))(images, kernels),
            jax.vmap(by_image, (0, 0))(jnp.stack([images] * 3), kernels),
            jax.grad(
                lambda x, k: jnp.sum(jax.vmap(_bent(form), (0, None))(x, k)), (0, 1)
            )(images, kernels[0]),
        )

    _check_both(forms, modes)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_floats_are_added_in_float32(dtype: DTypeLike) -> None:
    random = np.random.RandomState(0)
    x = jnp.asarray(random.randn(12, 12, 4), dtype)
    kernel = jnp.asarray(random.randn(7, 7, 1, 4), dtype)

    @jax.jit
    def run(x: Array, kernel: Array) -> Any:
        form = functools.partial(
            shifted_depthwise_convolution, stride=1, padding=(3, 3)
        )
        y, pull = jax.vjp(form, x, kernel)
        return y, pull(jnp.ones_like(y))

    wanted = run(x.astype(jnp.float32), kernel.astype(jnp.float32))
    for one, other in zip(
        jax.tree.leaves(run(x, kernel)), jax.tree.leaves(wanted), strict=True
    ):
        assert one.dtype == dtype
        # To one rounding; sums of 49 terms in the short type are off by several.
        bound = float(jnp.finfo(dtype).eps) * np.abs(other)
        assert np.all(np.abs(np.asarray(one, np.float32) - other) <= bound + 1e-5)


def test_shifted_depthwise_in_float64() -> None:
    with jax.enable_x64(True):
        random = np.random.RandomState(0)
        given = tuple(
            map(jnp.asarray, (random.randn(6, 7, 2), random.randn(3, 3, 1, 2)))
        )
        options: Any = {"stride": 1, "padding": (1, 0)}
        _check_both(
            [
                functools.partial(stock_depthwise_convolution, **options),
                functools.partial(shifted_depthwise_convolution, **options),
            ],
            lambda form: jax.value_and_grad(_bent(form), (0, 1))(*given),
            1e-13,
        )


def test_image_and_kernel_of_two_types_are_refused() -> None:
    x, kernel = _arguments(8, 3, 3)
    with pytest.raises(TypeError, match="one type, not float32 and bfloat16"):
        shifted_depthwise_convolution(
            x, kernel.astype(jnp.bfloat16), stride=1, padding=(1, 1)
        )


def test_the_shifted_form_has_no_slow_transpose() -> None:
    """Slices are not put into zeros one by one, and a batch is not transposed."""
    (_, fast), (given, _) = _both_depthwise("even")
    text = jax.jit(jax.grad(_bent(fast))).lower(*given).as_text()
    # The image and the cotangent.
    assert text.count("stablehlo.pad") == 2
    batch = jnp.stack([given[0]] * 3)
    several = jax.jit(jax.vmap(jax.grad(_bent(fast)), (0, None)))
    # A batch stays in front: nothing is transposed.
    assert "stablehlo.transpose" not in several.lower(batch, given[1]).as_text()


@pytest.mark.parametrize(("backend", "form"), [("cpu", "shifted"), ("gpu", "stock")])
def test_the_form_is_chosen_by_backend(
    monkeypatch: pytest.MonkeyPatch, backend: str, form: str
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, kernel = _arguments(8, 3, 3)
    program = jax.make_jaxpr(
        lambda *a: depthwise_convolution(*a, stride=1, padding=(1, 1))
    )(x, kernel)
    is_stock = "conv_general_dilated" in str(program)
    assert is_stock == (form == "stock")


def test_dtype_is_kept() -> None:
    x, kernel = _arguments(8, 3, 3)
    low = depthwise_convolution(
        x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), stride=1, padding=(1, 1)
    )
    assert low.dtype == jnp.bfloat16


def test_clipped_relu() -> None:
    x = jnp.array([-1.0, 0.0, 2.0, 6.0, 7.0])
    value, slope = jax.vmap(
        jax.value_and_grad(lambda x: activations.clipped_relu(x, 6.0))
    )(x)
    np.testing.assert_array_equal(value, [0, 0, 2, 6, 6])
    np.testing.assert_array_equal(slope, [0, 0, 1, 0, 0])


def _stock_pool(
    x: Array, *, window: int, stride: int, padding: tuple[int, int]
) -> Array:
    return nn.max_pool(x, (window, window), (stride, stride), (padding, padding))


@functools.partial(jax.jit, static_argnames=("operation", "options"))
def _value_and_pull(
    operation: Callable[..., Array], x: Array, options: Options
) -> tuple[Array, Array]:
    y, pull = jax.vjp(lambda x: operation(x, **dict(options)), x)
    # A cotangent of small integers, whose sums are exact in any order.
    cotangent = (jnp.arange(y.size) % 23 + 1).astype(y.dtype)
    return y, pull(cotangent.reshape(y.shape))[0]


def _check_pool(x: Array, window: int, stride: int, padding: tuple[int, int]) -> None:
    options = (("window", window), ("stride", stride), ("padding", padding))
    stock, wanted = _value_and_pull(_stock_pool, x, options)
    fast, slope = _value_and_pull(pooling.max_pool, x, options)
    assert fast.dtype == slope.dtype == x.dtype
    np.testing.assert_array_equal(fast, stock)
    np.testing.assert_array_equal(np.signbit(fast), np.signbit(stock))
    np.testing.assert_array_equal(slope, wanted)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("window", "stride", "padding"), POOLS)
def test_max_pool_equals_stock_to_the_bit(
    window: int, stride: int, padding: tuple[int, int], dtype: DTypeLike
) -> None:
    random = np.random.RandomState(0)
    x = jnp.asarray(random.randn(13, 14, 3), dtype)
    _check_pool(x, window, stride, padding)
    # Ties in nearly every window, also between zeros of both signs.
    _check_pool(jnp.round(x), window, stride, padding)
    _check_pool(jnp.maximum(x, 0), window, stride, padding)


@pytest.mark.parametrize(("window", "stride", "padding"), POOLS)
def test_max_pool_of_infinities_and_nan_equals_stock(
    window: int, stride: int, padding: tuple[int, int]
) -> None:
    random = np.random.RandomState(0)
    values = np.array([-np.inf, np.inf, np.nan, 0, 1], np.float32)
    for weights in ([0.9, 0, 0, 0.1, 0], [0.2] * 5, [1, 0, 0, 0, 0], [0, 0, 1, 0, 0]):
        x = jnp.asarray(random.choice(values, (13, 14, 3), p=weights))
        _check_pool(x, window, stride, padding)


def test_windows_of_more_positions_than_a_byte_counts() -> None:
    _check_pool(jnp.asarray(np.random.RandomState(0).randn(14, 13, 1)), 12, 2, (0, 1))


def test_max_pool_in_float64() -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.RandomState(0).randn(11, 12, 2))
        assert x.dtype == jnp.float64
        _check_pool(x, 3, 2, (0, 1))


def test_the_first_of_equal_maxima_takes_the_gradient() -> None:
    def total(x: Array) -> Array:
        return pooling.max_pool(x, window=2, stride=2, padding=(0, 0)).sum()

    slope = jax.grad(total)(jnp.ones((4, 4, 1)))[..., 0]
    np.testing.assert_array_equal(
        slope, [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    )


@pytest.mark.parametrize(("window", "stride", "padding"), POOLS)
def test_forward_mode_of_max_pool(
    window: int, stride: int, padding: tuple[int, int]
) -> None:
    random = np.random.RandomState(0)
    x, tangent = jnp.asarray(random.randn(2, 13, 14, 3), jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def slopes(operation: Callable[..., Array], x: Array) -> Any:
        def pool(x: Array) -> Array:
            return operation(x, window=window, stride=stride, padding=padding)

        _, linear = jax.linearize(pool, x)
        return jax.jvp(pool, (x,), (tangent,))[1], linear(tangent)

    for found, wanted in zip(
        slopes(pooling.max_pool, x), slopes(_stock_pool, x), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    # The two modes are transposes of each other also where there are ties.
    ties = jnp.round(x)
    found = slopes(pooling.max_pool, ties)[0]
    options = (("window", window), ("stride", stride), ("padding", padding))
    cotangent = (jnp.arange(found.size) % 23 + 1.0).reshape(found.shape)
    _, pulled = _value_and_pull(pooling.max_pool, ties, options)
    np.testing.assert_allclose(
        jnp.vdot(found, cotangent), jnp.vdot(tangent, pulled), rtol=1e-4, atol=1e-3
    )


def test_second_derivatives_of_max_pool() -> None:
    x, tangent = jnp.asarray(np.random.RandomState(0).randn(2, 7, 7, 2), jnp.float32)

    def product(operation: Callable[..., Array]) -> Array:
        def cubes(x: Array) -> Array:
            return jnp.sum(operation(x, window=3, stride=2, padding=(0, 1)) ** 3)

        return jax.jvp(jax.grad(cubes), (x,), (tangent,))[1]

    np.testing.assert_allclose(
        product(pooling.max_pool), product(_stock_pool), rtol=1e-5
    )


def test_max_pool_of_a_batch_equals_a_loop() -> None:
    batch = jnp.asarray(np.random.RandomState(0).randn(3, 9, 8, 2), jnp.float32)

    def total(x: Array) -> Array:
        return jnp.sum(pooling.max_pool(x, window=3, stride=2, padding=(0, 1)) ** 2)

    slopes = jax.vmap(jax.grad(total))(batch)
    wanted = jnp.stack([jax.grad(total)(x) for x in batch])
    np.testing.assert_array_equal(slopes, wanted)


@pytest.mark.parametrize(("kernel", "stride", "padding"), CONVOLUTIONS)
def test_space_to_depth_equals_stock(
    kernel: int, stride: int, padding: tuple[int, int]
) -> None:
    random = np.random.RandomState(0)
    weights = jnp.asarray(random.randn(kernel, kernel, 3, 5), jnp.float32)
    x = jnp.asarray(random.randn(23, 24, 3), jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def run(operation: Callable[..., Array], x: Array, weights: Array) -> Any:
        y, pull = jax.vjp(
            lambda *a: operation(*a, stride=stride, padding=padding), x, weights
        )
        return y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    stock = run(stock_strided_convolution, x, weights)
    fast = run(space_to_depth_convolution, x, weights)
    for found, wanted in zip(fast, stock, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_forward_mode_and_vmap_of_space_to_depth() -> None:
    random = np.random.RandomState(0)
    x = jnp.asarray(random.randn(2, 23, 24, 3), jnp.float32)
    weights = jnp.asarray(random.randn(11, 11, 3, 4), jnp.float32)

    def fast(x: Array) -> Array:
        return space_to_depth_convolution(x, weights, stride=4, padding=(2, 2))

    _, tangent = jax.jvp(fast, (x[0],), (x[0],))
    np.testing.assert_allclose(tangent, fast(x[0]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(jax.vmap(fast)(x)[1], fast(x[1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("backend", "stride", "channels"),
    [("cpu", 4, 3), ("gpu", 4, 48), ("gpu", 2, 3)],
)
def test_strided_convolution_is_chosen_by_backend(
    monkeypatch: pytest.MonkeyPatch, backend: str, stride: int, channels: int
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, kernel = jnp.zeros((23, 23, 3)), jnp.zeros((11, 11, 3, 4))
    program = jax.make_jaxpr(
        lambda *a: strided_convolution(*a, stride=stride, padding=(2, 2))
    )(x, kernel)
    (convolution,) = (
        equation
        for equation in program.eqns
        if equation.primitive.name == "conv_general_dilated"
    )
    assert convolution.invars[0].aval.shape[-1] == channels


def test_dtype_of_a_strided_convolution_is_kept() -> None:
    x, kernel = jnp.zeros((9, 9, 3), jnp.bfloat16), jnp.zeros((3, 3, 3, 4))
    low = kernel.astype(jnp.bfloat16)
    for operation in (strided_convolution, space_to_depth_convolution):
        assert operation(x, low, stride=2, padding=(0, 1)).dtype == jnp.bfloat16


def _plain_norm(
    x: Array, *, size: int, kappa: float, alpha: float, beta: float
) -> Array:
    half, channels = size // 2, x.shape[-1]
    squares = jnp.pad(x * x, ((0, 0), (0, 0), (half, half)))
    total = sum(squares[..., i : i + channels] for i in range(size))
    return x * (kappa + alpha * total) ** -beta


# CaffeNet's; VGG-M's with a larger alpha, so that the derivative's second term counts;
# a sum over one channel; a wide sum.
NORMS = [
    {"size": 5, "kappa": 1.0, "alpha": 2e-5, "beta": 0.75},
    {"size": 5, "kappa": 2.0, "alpha": 0.5, "beta": 0.75},
    {"size": 1, "kappa": 0.5, "alpha": 1.0, "beta": 0.5},
    {"size": 9, "kappa": 1.0, "alpha": 1.0, "beta": 2.0},
]


@pytest.mark.parametrize("options", NORMS)
def test_local_response_norm_equals_its_plain_form(options: dict[str, Any]) -> None:
    x = jnp.asarray(np.random.RandomState(0).randn(5, 6, 7), jnp.float32)
    pairs = tuple(options.items())
    plain, wanted = _value_and_pull(_plain_norm, x, pairs)
    fast, slope = _value_and_pull(activations.local_response_norm, x, pairs)
    np.testing.assert_allclose(fast, plain, rtol=1e-6)
    np.testing.assert_allclose(slope, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", NORMS)
def test_forward_mode_and_vmap_of_local_response_norm(options: dict[str, Any]) -> None:
    x = jnp.asarray(np.random.RandomState(0).randn(2, 5, 6, 7), jnp.float32)

    def slopes(operation: Callable[..., Array]) -> Any:
        def norm(x: Array) -> Array:
            return operation(x, **options)

        def squares(x: Array) -> Array:
            return jnp.sum(norm(x) ** 2)

        second = jax.jvp(jax.grad(squares), (x[0],), (x[1],))[1]
        return jax.jvp(norm, (x[0],), (x[1],))[1], second, jax.vmap(norm)(x)

    for found, wanted in zip(
        slopes(activations.local_response_norm), slopes(_plain_norm), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_dtype_of_local_response_norm_is_kept() -> None:
    x = jnp.ones((2, 3, 8), jnp.bfloat16)
    options: Any = NORMS[0]

    def norm(x: Array) -> Array:
        return activations.local_response_norm(x, **options)

    y, slope = jax.jvp(norm, (x,), (x,))
    (pulled,) = jax.vjp(norm, x)[1](y)
    assert y.dtype == slope.dtype == pulled.dtype == jnp.bfloat16
