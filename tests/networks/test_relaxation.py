"""Relaxed operations: exact values, and the derivatives of smoother functions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from invjax.callables import TracedCallable
from invjax.networks import modules
from invjax.networks.layers import Block, Conv, MaxPool, Relu, Residual
from invjax.networks.ops import activations, pooling
from invjax.networks.relaxation import Relaxation
from invjax.representations.cnn import CnnRepresentation
from tests.conftest import micro_representation

RELAXATION = Relaxation(jnp.float32(0.2), jnp.float32(0.6))


@pytest.mark.parametrize("ceiling", [None, 1.0])
def test_relu_keeps_its_value_and_leaks(ceiling: float | None) -> None:
    x = jnp.array([-2.0, -0.1, 0.3, 0.9, 1.5])

    def total(x: Array) -> Array:
        return jnp.sum(activations.relu(x, RELAXATION, ceiling=ceiling))

    expected = np.clip(x, 0, ceiling)
    np.testing.assert_array_equal(
        activations.relu(x, RELAXATION, ceiling=ceiling), expected
    )
    passes = (x > 0) & (True if ceiling is None else x < ceiling)
    np.testing.assert_allclose(jax.grad(total)(x), np.where(passes, 1, 0.2), rtol=1e-6)


@pytest.mark.parametrize("window, stride, padding", [(3, 2, (0, 0)), (2, 2, (1, 0))])
def test_pool_keeps_its_value_and_spreads_its_gradient(
    window: int, stride: int, padding: tuple[int, int]
) -> None:
    x = jax.random.normal(jax.random.key(0), (9, 9, 2))
    windows: Any = {"window": window, "stride": stride, "padding": padding}
    spread = jnp.float32(0.6)
    y, back = jax.vjp(lambda x: pooling.spreading_max_pool(x, spread, **windows), x)
    exact, sharp = jax.vjp(lambda x: pooling.max_pool(x, **windows), x)
    _, even = jax.vjp(lambda x: _mean_pool(x, **windows), x)
    np.testing.assert_array_equal(y, exact)
    cotangent = jax.random.normal(jax.random.key(1), y.shape)
    expected = 0.4 * sharp(cotangent)[0] + 0.6 * even(cotangent)[0]
    np.testing.assert_allclose(back(cotangent)[0], expected, rtol=1e-5, atol=1e-6)


def _mean_pool(
    x: Array, *, window: int, stride: int, padding: tuple[int, int]
) -> Array:
    """Flax's average pool, which counts the padding as zeros."""
    return nn.avg_pool(x, (window, window), (stride, stride), (padding, padding))


def test_a_relaxed_network_has_the_same_codes_and_other_gradients() -> None:
    phi = micro_representation("relu2")
    image = jax.random.uniform(jax.random.key(0), phi.image_shape)
    code = phi(image)

    def total(phi: CnnRepresentation, image: Array) -> Array:
        return jnp.sum((phi(image) - 1) ** 2)

    exact = jax.grad(total, argnums=1)(phi, image)
    np.testing.assert_array_equal(phi.relaxed(jnp.float32(1.0))(image), code)
    relaxed = jax.grad(total, argnums=1)(phi.relaxed(jnp.float32(1.0)), image)
    assert jnp.linalg.norm(relaxed - exact) > 0.05 * jnp.linalg.norm(exact)
    # At an amount of zero the derivative is exact again.
    still = jax.grad(total, argnums=1)(phi.relaxed(jnp.float32(0.0)), image)
    np.testing.assert_allclose(still, exact, rtol=1e-4, atol=1e-5)


def test_a_dead_network_passes_gradients_once_relaxed() -> None:
    phi = micro_representation("relu2")
    below = {**phi.params["conv1"], "bias": phi.params["conv1"]["bias"] - 1e3}
    dead = jax.tree_util.tree_map(lambda leaf: leaf, phi)
    object.__setattr__(dead, "params", {**phi.params, "conv1": below})
    image = jnp.full(phi.image_shape, 0.5)

    def total(phi: CnnRepresentation, image: Array) -> Array:
        return jnp.sum(phi(image))

    assert not np.any(jax.grad(total, argnums=1)(dead, image))
    assert np.any(jax.grad(total, argnums=1)(dead.relaxed(jnp.float32(1.0)), image))


def test_one_trace_serves_every_amount() -> None:
    phi = TracedCallable.of(micro_representation("pool1"))
    traces: list[None] = []

    @jax.jit
    def gradient(phi: TracedCallable, image: Array, amount: Array) -> Array:
        traces.append(None)
        return jax.grad(lambda x: jnp.sum(phi.relaxed(amount)(x)))(image)

    image = jax.random.uniform(jax.random.key(0), (32, 32, 3))
    found = [gradient(phi, image, jnp.float32(a)) for a in (0.0, 0.5, 1.0)]
    assert len(traces) == 1
    assert np.any(found[0] != found[2])


def test_plain_functions_are_their_own_relaxation() -> None:
    phi = TracedCallable.of(jnp.tanh)
    assert phi.relaxed(jnp.float32(1.0)) is phi


def test_every_kind_of_layer_takes_a_relaxation() -> None:
    table = (
        Block("block1", (Conv("a", 4, kernel=3), Relu("b", 6.0))),
        Residual("sum1", (Relu("c"),)),
        MaxPool("pool1", window=2, stride=2),
    )

    params = {
        "block1": {"a": {"kernel": jnp.ones((3, 3, 3, 4)), "bias": jnp.zeros(4)}},
    }
    x = jax.random.normal(jax.random.key(0), (8, 8, 3))
    exact = modules.forward(table, params, x)
    relaxed = modules.forward(table, params, x, relaxed=RELAXATION)
    np.testing.assert_array_equal(exact, relaxed)
