"""Fast forms equal the stock ones, value and gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import ops

# side, channels, window, stride, padding: EfficientNet-Lite0's kinds, and odd ones.
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


def _arguments(side, channels, window):
    random = np.random.RandomState(0)
    x = random.randn(side, side + 1, channels)
    kernel = random.randn(window, window, 1, channels)
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


@pytest.mark.parametrize(("side", "channels", "window", "stride", "padding"), CASES)
def test_shifted_depthwise_equals_stock(side, channels, window, stride, padding):
    x, kernel = _arguments(side, channels, window)
    options: Any = {"stride": stride, "padding": padding}

    @functools.partial(jax.jit, static_argnums=0)
    def run(operation, x, kernel):
        y, pull = jax.vjp(lambda *a: operation(*a, **options), x, kernel)
        # A cotangent without symmetries.
        return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    stock, wanted_slopes = run(ops.stock_depthwise_convolution, x, kernel)
    fast, slopes = run(ops.shifted_depthwise_convolution, x, kernel)
    np.testing.assert_allclose(fast, stock, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(slopes, wanted_slopes, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_forward_mode_and_vmap():
    x, kernel = _arguments(8, 3, 3)
    options: Any = {"stride": 2, "padding": (0, 1)}

    def fast(x):
        return ops.shifted_depthwise_convolution(x, kernel, **options)

    _, tangent = jax.jvp(fast, (x,), (x,))
    np.testing.assert_allclose(tangent, fast(x), rtol=1e-5, atol=1e-5)
    batch = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(jax.vmap(fast)(batch)[1], fast(2 * x), rtol=1e-6)


@pytest.mark.parametrize(("backend", "form"), [("cpu", "shifted"), ("gpu", "stock")])
def test_the_form_is_chosen_by_backend(monkeypatch, backend, form):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, kernel = _arguments(8, 3, 3)
    program = jax.make_jaxpr(
        lambda *a: ops.depthwise_convolution(*a, stride=1, padding=(1, 1))
    )(x, kernel)
    is_stock = "conv_general_dilated" in str(program)
    assert is_stock == (form == "stock")


def test_dtype_is_kept():
    x, kernel = _arguments(8, 3, 3)
    low = ops.depthwise_convolution(
        x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), stride=1, padding=(1, 1)
    )
    assert low.dtype == jnp.bfloat16


def test_clipped_relu():
    x = jnp.array([-1.0, 0.0, 2.0, 6.0, 7.0])
    value, slope = jax.vmap(jax.value_and_grad(lambda x: ops.clipped_relu(x, 6.0)))(x)
    np.testing.assert_array_equal(value, [0, 0, 2, 6, 6])
    np.testing.assert_array_equal(slope, [0, 0, 1, 0, 0])
