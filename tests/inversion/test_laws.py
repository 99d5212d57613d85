"""Laws that all operations and all solvers keep, tested over one table of them.

That each equals its reference is tested in test_ops, test_relaxation and test_solvers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from invjax.inversion import pyramid, solvers
from invjax.inversion.solvers import Solver
from invjax.networks.ops import activations, convolution, pooling
from invjax.networks.relaxation import Relaxation
from tests.inversion.test_solvers import SOLVERS

SHAPE = (9, 8, 6)
EXACT = Relaxation(jnp.float32(0.0), jnp.float32(0.0))


def _kernel(x: Array, *shape: int) -> Array:
    return jnp.asarray(np.random.default_rng(3).normal(size=shape), x.dtype)


def _depthwise(form: Callable) -> Callable[[Array], Array]:
    return lambda x: form(x, _kernel(x, 3, 3, 1, 6), stride=2, padding=(0, 1))


def _strided(form: Callable) -> Callable[[Array], Array]:
    return lambda x: form(x, _kernel(x, 5, 5, 6, 4), stride=4, padding=(2, 2))


POOL: Any = {"window": 3, "stride": 2, "padding": (0, 1)}
NORM: Any = {"size": 3, "kappa": 1.0, "alpha": 0.5, "beta": 0.75}

OPERATIONS: dict[str, Callable[[Array], Array]] = {
    "depthwise_convolution": _depthwise(convolution.depthwise_convolution),
    "stock_depthwise_convolution": _depthwise(convolution.stock_depthwise_convolution),
    "shifted_depthwise_convolution": _depthwise(
        convolution.shifted_depthwise_convolution
    ),
    "strided_convolution": _strided(convolution.strided_convolution),
    "stock_strided_convolution": _strided(convolution.stock_strided_convolution),
    "space_to_depth_convolution": _strided(convolution.space_to_depth_convolution),
    "max_pool": lambda x: pooling.max_pool(x, **POOL),
    "local_response_norm": lambda x: activations.local_response_norm(x, **NORM),
    "clipped_relu": lambda x: activations.clipped_relu(x, 1.0),
    "relu": lambda x: activations.relu(x, EXACT),
    "relu clipped": lambda x: activations.relu(x, EXACT, ceiling=1.0),
    "hard_sigmoid": activations.hard_sigmoid,
    "hard_swish": activations.hard_swish,
    "quick_gelu": activations.quick_gelu,
    "spreading_max_pool": lambda x: pooling.spreading_max_pool(
        x, EXACT.pool_spread, **POOL
    ),
    "pyramid": lambda x: pyramid.synthesise(pyramid.adjoint(x)),
}

each_operation = pytest.mark.parametrize("name", OPERATIONS)
each_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)


def _images(*shape: int) -> Array:
    return jax.random.normal(jax.random.key(0), (*shape, *SHAPE))


def _energy(operation: Callable[[Array], Array], x: Array) -> Array:
    y = operation(x)
    # Weights without symmetries, and a slope also where y is zero.
    return jnp.sum(
        (y + 1) ** 2 * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
    )


def test_the_table_is_complete():
    operations = {
        name
        for module in (activations, convolution, pooling)
        for name, item in vars(module).items()
        if getattr(item, "__module__", "") == module.__name__
        and not name.startswith("_")
    }
    assert len(operations) > 8 and operations <= set(OPERATIONS)
    named = {
        item
        for item in vars(solvers).values()
        if getattr(item, "__module__", "") == solvers.__name__
        and hasattr(item, "update")
    }
    assert named - {Solver} == {type(solver) for solver in SOLVERS}


@each_operation
def test_an_operation_compiled_or_batched_is_the_same(name: str):
    slope = jax.value_and_grad(lambda x: _energy(OPERATIONS[name], x))
    batch = _images(3)
    together = jax.jit(jax.vmap(slope))(batch)
    for number, x in enumerate(batch):
        alone = slope(x)
        for found, wanted in zip(together, alone, strict=True):
            np.testing.assert_allclose(found[number], wanted, rtol=1e-4, atol=1e-4)


@each_operation
def test_the_slope_of_an_operation_at_a_flat_image_is_finite(name: str):
    for level in (0.0, 0.5):
        flat = jnp.full(SHAPE, level)
        slope = jax.grad(lambda x: _energy(OPERATIONS[name], x))(flat)
        assert np.all(np.isfinite(slope))


@each_operation
def test_the_slope_of_an_operation_agrees_with_differences(name: str):
    """Along one direction in float64; no kink lies within the step of 1e-6."""
    with jax.enable_x64(True):
        random = np.random.default_rng(1)
        point, direction = (jnp.asarray(random.normal(size=SHAPE)) for _ in range(2))

        def value(x: Array) -> Array:
            return _energy(OPERATIONS[name], x)

        step = 1e-6
        above, below = value(point + step * direction), value(point - step * direction)
        found = jnp.sum(jax.grad(value)(point) * direction)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, (above - below) / (2 * step), rtol=1e-6)


@each_operation
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_an_operation_keeps_the_dtype(name: str, dtype: str):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=SHAPE), dtype)
        y, pull = jax.vjp(OPERATIONS[name], x)
        assert y.dtype == x.dtype == pull(y)[0].dtype


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, amount: activations.relu(x, Relaxation.of(amount)),
        lambda x, amount: pooling.spreading_max_pool(x, amount, **POOL),
    ],
)
def test_a_relaxed_operation_is_traced_once_for_all_amounts(operation):
    traces: list[None] = []

    @jax.jit
    def slope(x: Array, amount: Array) -> Array:
        traces.append(None)
        return jax.grad(lambda x: _energy(lambda x: operation(x, amount), x))(x)

    x = _images()
    found = [slope(x, jnp.float32(amount)) for amount in (0.0, 0.5, 1.0)]
    assert len(traces) == 1
    assert np.any(found[0] != found[1]) and np.any(found[1] != found[2])
    exact = OPERATIONS["relu"]
    if operation(x, jnp.float32(1.0)).shape != SHAPE:
        exact = OPERATIONS["max_pool"]
    np.testing.assert_array_equal(operation(x, jnp.float32(1.0)), exact(x))


@each_solver
def test_a_batch_of_solvers_is_a_loop(solver: Solver):
    """Each with a rate of its own; other widths round differently."""
    z, gradients = _images(3), 1e-6 * _images(2, 3)[:, ::-1]
    rates = jnp.array([0.5, 1.0, 2.0])
    together = jax.vmap(solver.init)(z)
    for gradient in gradients:
        together = jax.vmap(solver.update)(gradient, together, rates)
    for lane in range(3):
        state = solver.init(z[lane])
        for gradient in gradients[:, lane]:
            state = solver.update(gradient, state, rates[lane])
        for found, wanted in zip(
            jax.tree.leaves(together), jax.tree.leaves(state), strict=True
        ):
            np.testing.assert_allclose(found[lane], wanted, rtol=1e-4, atol=1e-5)


@each_solver
def test_without_a_slope_a_solver_stays(solver: Solver):
    """A gradient of zero does not make it divide by zero."""
    z = _images()
    state = solver.init(z)
    for _ in range(3):
        state = solver.update(jnp.zeros_like(z), state, jnp.float32(1.0))
    found = solver.variable(state)
    np.testing.assert_allclose(found, solver.variable(solver.init(z)))
