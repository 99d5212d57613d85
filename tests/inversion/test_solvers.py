"""Each solver's steps against a literal numpy version, and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.inversion import pyramid
from invjax.inversion.objective import SIGMA
from invjax.inversion.solvers import (
    Adam,
    DecayedAdaGrad,
    HeavyBall,
    PyramidAdam,
    Solver,
)

SHAPE = (8, 9, 3)
SOLVERS = (
    HeavyBall(),
    DecayedAdaGrad(),
    Adam(),
    PyramidAdam(),
)


def _iterate(solver: Solver, z, gradients, rates) -> np.ndarray:
    state = solver.init(jnp.asarray(z))
    for gradient, rate in zip(gradients, rates, strict=True):
        state = solver.update(jnp.asarray(gradient), state, jnp.float32(rate))
    return np.asarray(solver.variable(state))


@pytest.fixture
def draws() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    z = generator.normal(size=SHAPE).astype(np.float32)
    gradients = 1e-9 * generator.normal(size=(5, *SHAPE)).astype(np.float32)
    return z, gradients


def test_heavy_ball_is_the_papers_update_in_x(draws):
    z, gradients = draws
    rates = [4e-3, 4e-3, 4e-3, 4e-4, 4e-4]
    x, momentum, previous = z.astype(np.float64) / SIGMA, 0.0, None
    for gradient, rate in zip(gradients.astype(np.float64), rates, strict=True):
        if rate != previous:
            momentum = 0.0  # the buffer is reset whenever the rate changes
        momentum = 0.9 * momentum - rate * (SIGMA * gradient)  # dE/dx = sigma dE/dz
        x, previous = x + momentum, rate
    found = _iterate(HeavyBall(), z, gradients, rates)
    np.testing.assert_allclose(found, x * SIGMA, rtol=1e-4, atol=1e-4)


def test_decayed_adagrad_is_the_papers_update(draws):
    z, gradients = draws
    # Both regimes of the sum 1 / rate + sqrt(G): gradients are about 1e-9.
    rates = [1e9, 1e10, 1e9, 1e6, 1e9]
    expected, momentum, squares = z.astype(np.float64), 0.0, 0.0
    for gradient, rate in zip(gradients.astype(np.float64), rates, strict=True):
        squares = 0.9 * squares + gradient**2
        momentum = 0.9 * momentum - gradient / (1 / rate + np.sqrt(squares))
        expected = expected + momentum
    found = _iterate(DecayedAdaGrad(), z, gradients, rates)
    assert np.max(np.abs(expected - z)) > 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_adam_is_adam_on_the_pixels(draws):
    z, gradients = draws
    gradients = 1e3 * gradients  # 1e-6: some hundred epsilon
    expected, first, second = z.astype(np.float64), 0.0, 0.0
    rates = [8.0, 7.0, 4.0, 2.0, 1.0]
    for count, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        first = 0.9 * first + 0.1 * gradient.astype(np.float64)
        second = 0.999 * second + 0.001 * gradient.astype(np.float64) ** 2
        size = np.sqrt(second / (1 - 0.999**count)) + 1e-8
        expected = expected - rate * first / (1 - 0.9**count) / size
    found = _iterate(Adam(), z, gradients, rates)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)


def test_pyramid_adam_is_adam_on_the_levels(draws):
    z, gradients = draws
    gradients = 1e3 * gradients
    shapes = pyramid.level_shapes(SHAPE)
    # The synthesis as a matrix, column by column: no transform of the gradient.
    sizes = [int(np.prod(shape)) for shape in shapes]
    flat = np.eye(sum(sizes), dtype=np.float32)
    columns = []
    for row in flat:
        parts = np.split(row, np.cumsum(sizes)[:-1])
        levels = tuple(
            jnp.asarray(part.reshape(shape))
            for part, shape in zip(parts, shapes, strict=True)
        )
        columns.append(np.asarray(pyramid.synthesise(levels)).ravel())
    matrix = np.stack(columns, axis=1).astype(np.float64)
    q = np.zeros(sum(sizes))
    q[: z.size] = z.ravel()
    first, second = np.zeros_like(q), np.zeros_like(q)
    rates = [4.0, 3.0, 2.0, 1.0, 0.5]
    for count, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        slope = matrix.T @ gradient.astype(np.float64).ravel()
        first = 0.93 * first + 0.07 * slope
        second = 0.9 * second + 0.1 * slope**2
        size = np.sqrt(second / (1 - 0.9**count)) + 1e-8
        q = q - rate * first / (1 - 0.93**count) / size
    found = _iterate(PyramidAdam(), z, gradients, rates)
    expected = (matrix @ q).reshape(SHAPE)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("shape", [(8, 8, 3), (7, 9, 1), (6, 5, 3)])
def test_the_start_stands_for_itself(solver: Solver, shape):
    z = jax.random.normal(jax.random.key(0), shape, jnp.float32)
    found = solver.variable(solver.init(z))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, z, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_a_moved_state_stands_elsewhere_and_remembers(solver: Solver, draws):
    z, gradients = draws
    state = solver.init(jnp.asarray(z))
    state = solver.update(jnp.asarray(gradients[0]), state, jnp.float32(1.0))
    goal = jnp.asarray(z[::-1])
    moved = solver.move(state, goal)
    np.testing.assert_allclose(solver.variable(moved), goal, atol=1e-5)
    for old, new in zip(state[1:], moved[1:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, old, new)


RATES = {"HeavyBall": 0.05 / SIGMA**2, "DecayedAdaGrad": 0.1, "Adam": 0.3}


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_descends_a_quadratic_to_its_minimum(solver: Solver):
    goal = 3 * jax.random.normal(jax.random.key(1), SHAPE)
    largest = RATES.get(type(solver).__name__, 0.3)
    schedule = np.cos(np.linspace(0, np.pi / 2, 400)) ** 2
    if isinstance(solver, HeavyBall):
        schedule = np.ones(400)  # a change of rate would drop the momentum

    @jax.jit
    def step(state, rate):
        z = solver.variable(state)
        return solver.update(z - goal, state, rate)

    state = solver.init(jnp.zeros(SHAPE))
    for rate_scale in schedule:
        state = step(state, jnp.float32(largest * rate_scale))
    np.testing.assert_allclose(solver.variable(state), goal, atol=2e-2)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_update_is_the_same_compiled_and_traced_once(solver: Solver, draws):
    z, gradients = draws
    traces: list[None] = []

    @jax.jit
    def update(gradient, state, rate):
        traces.append(None)
        return solver.update(gradient, state, rate)

    eager = compiled = solver.init(jnp.asarray(z))
    for number, gradient in enumerate(gradients):
        rate = jnp.float32(1e-3 * (number + 1))
        eager = solver.update(jnp.asarray(gradient), eager, rate)
        compiled = update(jnp.asarray(gradient), compiled, rate)
    # The first state has the types of the later ones, and rates are arguments.
    assert len(traces) == 1
    for one, other in zip(
        jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_dtype_is_kept(solver: Solver):
    with jax.enable_x64(True):
        z = jnp.ones(SHAPE, jnp.float64)
        rate = jnp.asarray(0.1, jnp.float64)
        state = solver.update(0.1 * z, solver.init(z), rate)
        assert solver.variable(state).dtype == jnp.float64
