"""Products with the Jacobian against dense Jacobians and matrices of known factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.images import spectrum
from invjax.sensitivity import jacobian
from tests.conftest import micro_representation
from tests.linear_maps import SHAPE, SIZE, linear, with_values

pytestmark = pytest.mark.slow


@pytest.fixture
def image(key):
    return jax.random.uniform(key, SHAPE)


@pytest.mark.parametrize("num_features", [12, 40, 60])
def test_singular_values_and_directions_are_numpys(key, image, num_features):
    matrix = np.random.default_rng(1).normal(size=(num_features, SIZE))
    left, values, right = np.linalg.svd(matrix)
    smaller = min(matrix.shape)
    found = jacobian.leading_directions(
        key, linear(matrix), image, num=6, num_products=smaller
    )
    np.testing.assert_allclose(found.values, values[:6], rtol=1e-4)
    cosines = np.sum(np.asarray(found.images).reshape(6, -1) * right[:6], axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-3)
    # All products were used, so nothing is left over.
    assert np.all(np.asarray(found.residuals) < 1e-3 * values[0])
    alone = jacobian.singular_values(
        key, linear(matrix), image, num=6, num_products=smaller
    )
    np.testing.assert_array_equal(alone, found.values)


def test_residuals_bound_the_error_of_the_values(key, image):
    values = 1 / np.arange(1.0, 41.0)
    phi = linear(with_values(50, values))
    found = jacobian.leading_directions(key, phi, image, num=8, num_products=14)
    errors = np.abs(np.asarray(found.values)[:, None] - values).min(axis=1)
    assert np.all(errors <= np.asarray(found.residuals) + 1e-5)
    assert float(found.residuals[7]) > 1e-4  # 14 products are not enough for all
    assert float(found.residuals[0]) < 1e-4


def test_directions_of_a_network_are_its_dense_jacobians(key):
    phi = micro_representation("relu2")
    image = jax.random.uniform(key, (16, 16, 3))
    dense = jax.jacrev(phi)(image).reshape(-1, image.size)
    _, values, right = np.linalg.svd(np.asarray(dense, np.float64))
    found = jacobian.leading_directions(key, phi, image, num=8, num_products=40)
    np.testing.assert_allclose(found.values, values[:8], rtol=1e-3)
    cosines = np.sum(np.asarray(found.images).reshape(8, -1) * right[:8], axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-2)
    # The response to each direction is its singular value.
    gains = [
        float(jnp.linalg.norm(dense @ direction.ravel())) for direction in found.images
    ]
    np.testing.assert_allclose(gains, found.values, rtol=1e-3)


def test_works_inside_jit(key, image):
    phi = linear(with_values(12, np.arange(1.0, 11.0)))
    compiled = jax.jit(lambda at: jacobian.singular_values(key, phi, at, num=3))
    np.testing.assert_allclose(compiled(image), [10, 9, 8], rtol=1e-3)


@pytest.mark.parametrize("num_features", [10, 30])
def test_null_direction_is_the_projection(key, image, num_features):
    matrix = with_values(num_features, np.linspace(1, 3, num_features))
    _, _, right = np.linalg.svd(matrix)
    null_space = right[num_features:]
    direction = np.asarray(spectrum.natural_direction(key, SHAPE), np.float64)
    expected = null_space.T @ (null_space @ direction.ravel())
    found = jacobian.null_direction(linear(matrix), image, 7 * direction)
    np.testing.assert_allclose(np.ravel(found.image), expected, atol=1e-4)
    assert float(found.kept) == pytest.approx(np.linalg.norm(expected), rel=1e-3)
    assert float(found.gain) < 1e-4
    first = np.linalg.norm(matrix @ direction.ravel())
    assert float(found.first_gain) == pytest.approx(first, rel=1e-4)
    assert bool(found.is_converged)
    assert int(found.num_steps) < 300


def test_cutoff_keeps_directions_of_smaller_singular_values(key, image):
    values = np.concatenate([np.full(10, 10.0), np.full(30, 1e-2)])
    matrix = with_values(40, values)
    _, _, right = np.linalg.svd(matrix)
    direction = np.asarray(jax.random.normal(key, SHAPE), np.float64)
    direction /= np.linalg.norm(direction)
    for cutoff in (1e-3, 0.3, 100.0):
        filtered = cutoff**2 / (values**2 + cutoff**2) * (right @ direction.ravel())
        found = jacobian.null_direction(linear(matrix), image, direction, cutoff=cutoff)
        np.testing.assert_allclose(np.ravel(found.image), right.T @ filtered, atol=1e-3)


def test_null_direction_of_a_network_hardly_moves_its_code(key):
    phi = micro_representation("fc3")
    image = jax.random.uniform(key, (32, 32, 3))
    direction = spectrum.natural_direction(key, (32, 32, 3))
    found = jacobian.null_direction(phi, image, direction)
    assert float(found.kept) > 0.9  # 10 features of 3,072 numbers
    assert float(found.gain) < 1e-3 * float(found.first_gain)
    steps = jnp.array([1e-3, 1e-2])
    along = jacobian.code_change(phi, image, direction, steps)
    ignored = jacobian.code_change(phi, image, found.image, steps)
    assert np.all(np.asarray(ignored) < 0.2 * np.asarray(along))


def test_code_change_of_a_linear_map_is_a_straight_line(key, image):
    matrix = with_values(12, np.arange(1.0, 11.0))
    direction = np.asarray(jax.random.normal(key, SHAPE))
    steps = np.array([-0.2, 0.0, 1e-3, 0.2])
    found = jacobian.code_change(linear(matrix), image, direction, steps)
    unit = direction.ravel() / np.sqrt(np.mean(direction**2))
    slope = np.linalg.norm(matrix @ unit) / np.linalg.norm(matrix @ np.ravel(image))
    np.testing.assert_allclose(found, np.abs(steps) * slope, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda phi, x: jacobian.singular_values(jax.random.key(0), phi, x, num=99),
         "num is 99"),
        (lambda phi, x: jacobian.null_direction(phi, x, jnp.zeros(SHAPE)),
         "direction is zero"),
        (lambda phi, x: jacobian.null_direction(phi, x, x[0]), "direction has shape"),
        (lambda phi, x: jacobian.null_direction(phi, x, x, cutoff=-1.0),
         "cutoff is -1.0"),
    ],
)  # fmt: skip
def test_refuses_in_one_line(image, call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(linear(with_values(12, np.ones(10))), image)
    assert "\n" not in str(caught.value)
