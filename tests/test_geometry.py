"""Local geometry against dense Jacobians and matrices of known factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import geometry, spectrum
from tests.conftest import micro_representation

pytestmark = pytest.mark.slow

SHAPE = (4, 5, 2)
SIZE = 40


def _matrix(num_features: int, values: np.ndarray, seed: int = 0) -> np.ndarray:
    """[num_features, 40] with the given singular values, float64."""
    generator = np.random.default_rng(seed)
    left, _ = np.linalg.qr(generator.normal(size=(num_features, len(values))))
    right, _ = np.linalg.qr(generator.normal(size=(SIZE, len(values))))
    return (left * values) @ right.T


def _linear(matrix: np.ndarray):
    """The matrix as a representation, an array leaf of a pytree."""
    return jax.tree_util.Partial(_apply, jnp.asarray(matrix, jnp.float32))


def _apply(matrix, image):
    return matrix @ image.ravel()


@pytest.fixture
def image(key):
    return jax.random.uniform(key, SHAPE)


@pytest.mark.parametrize("num_features", [12, 40, 60])
def test_singular_values_and_directions_are_numpys(key, image, num_features):
    matrix = np.random.default_rng(1).normal(size=(num_features, SIZE))
    left, values, right = np.linalg.svd(matrix)
    smaller = min(matrix.shape)
    found = geometry.leading_directions(
        key, _linear(matrix), image, num=6, num_products=smaller
    )
    np.testing.assert_allclose(found.values, values[:6], rtol=1e-4)
    cosines = np.sum(np.asarray(found.images).reshape(6, -1) * right[:6], axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-3)
    # All products were used, so nothing is left over.
    assert np.all(np.asarray(found.residuals) < 1e-3 * values[0])
    alone = geometry.singular_values(
        key, _linear(matrix), image, num=6, num_products=smaller
    )
    np.testing.assert_array_equal(alone, found.values)


def test_residuals_bound_the_error_of_the_values(key, image):
    values = 1 / np.arange(1.0, 41.0)
    phi = _linear(_matrix(50, values))
    found = geometry.leading_directions(key, phi, image, num=8, num_products=14)
    errors = np.abs(np.asarray(found.values)[:, None] - values).min(axis=1)
    assert np.all(errors <= np.asarray(found.residuals) + 1e-5)
    assert float(found.residuals[7]) > 1e-4  # 14 products are not enough for all
    assert float(found.residuals[0]) < 1e-4


def test_directions_of_a_network_are_its_dense_jacobians(key):
    phi = micro_representation("relu2")
    image = jax.random.uniform(key, (16, 16, 3))
    dense = jax.jacrev(phi)(image).reshape(-1, image.size)
    _, values, right = np.linalg.svd(np.asarray(dense, np.float64))
    found = geometry.leading_directions(key, phi, image, num=8, num_products=40)
    np.testing.assert_allclose(found.values, values[:8], rtol=1e-3)
    cosines = np.sum(np.asarray(found.images).reshape(8, -1) * right[:8], axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-2)
    # Image directions are seen by as much as their values say.
    gains = [
        float(jnp.linalg.norm(dense @ direction.ravel())) for direction in found.images
    ]
    np.testing.assert_allclose(gains, found.values, rtol=1e-3)


def test_works_inside_jit(key, image):
    phi = _linear(_matrix(12, np.arange(1.0, 11.0)))
    compiled = jax.jit(lambda at: geometry.singular_values(key, phi, at, num=3))
    np.testing.assert_allclose(compiled(image), [10, 9, 8], rtol=1e-3)


@pytest.mark.parametrize("num_features", [10, 30])
def test_null_direction_is_the_projection(key, image, num_features):
    matrix = _matrix(num_features, np.linspace(1, 3, num_features))
    _, _, right = np.linalg.svd(matrix)
    null_space = right[num_features:]
    direction = np.asarray(spectrum.natural_direction(key, SHAPE), np.float64)
    expected = null_space.T @ (null_space @ direction.ravel())
    found = geometry.null_direction(_linear(matrix), image, 7 * direction)
    np.testing.assert_allclose(np.ravel(found.image), expected, atol=1e-4)
    assert float(found.kept) == pytest.approx(np.linalg.norm(expected), rel=1e-3)
    assert float(found.gain) < 1e-4
    first = np.linalg.norm(matrix @ direction.ravel())
    assert float(found.first_gain) == pytest.approx(first, rel=1e-4)
    assert bool(found.is_converged)
    assert int(found.num_steps) < 300


def test_cutoff_keeps_what_is_seen_less_than_it(key, image):
    values = np.concatenate([np.full(10, 10.0), np.full(30, 1e-2)])
    matrix = _matrix(40, values)
    _, _, right = np.linalg.svd(matrix)
    direction = np.asarray(jax.random.normal(key, SHAPE), np.float64)
    direction /= np.linalg.norm(direction)
    for cutoff in (1e-3, 0.3, 100.0):
        filtered = cutoff**2 / (values**2 + cutoff**2) * (right @ direction.ravel())
        found = geometry.null_direction(
            _linear(matrix), image, direction, cutoff=cutoff
        )
        np.testing.assert_allclose(np.ravel(found.image), right.T @ filtered, atol=1e-3)


def test_null_direction_of_a_network_hardly_moves_its_code(key):
    phi = micro_representation("fc3")
    image = jax.random.uniform(key, (32, 32, 3))
    direction = spectrum.natural_direction(key, (32, 32, 3))
    found = geometry.null_direction(phi, image, direction)
    assert float(found.kept) > 0.9  # 10 features of 3,072 numbers
    assert float(found.gain) < 1e-3 * float(found.first_gain)
    steps = jnp.array([1e-3, 1e-2])
    along = geometry.code_change(phi, image, direction, steps)
    ignored = geometry.code_change(phi, image, found.image, steps)
    assert np.all(np.asarray(ignored) < 0.2 * np.asarray(along))


def test_effective_dimensions_lie_within_their_errors(key, image):
    values = np.array([4.0] + [2.0] * 5 + [1.0] * 10 + [0.1] * 10)
    phi = _linear(_matrix(50, values))
    squares = values**2
    found = geometry.effective_dimension(key, phi, image, num_probes=400)
    assert float(found.spectral_norm) == pytest.approx(4, rel=1e-4)
    expected = (
        (found.squared_frobenius, np.sum(squares)),
        (found.stable_rank, np.sum(squares) / 16),
        (found.participation_ratio, np.sum(squares) ** 2 / np.sum(squares**2)),
    )
    for estimate, truth in expected:
        # A false alarm in a thousand, and no error so large that it says nothing.
        assert abs(float(estimate.value) - truth) < 3.3 * estimate.standard_error
        assert 0 < float(estimate.standard_error) < 0.05 * truth


def test_standard_errors_are_of_the_size_of_the_spread(image):
    phi = _linear(_matrix(50, 1 / np.sqrt(np.arange(1.0, 31.0))))
    keys = jax.random.split(jax.random.key(5), 60)
    runs = [
        geometry.effective_dimension(key, phi, image, num_probes=16) for key in keys
    ]
    for name in ("stable_rank", "participation_ratio"):
        values = [float(getattr(run, name).value) for run in runs]
        errors = [float(getattr(run, name).standard_error) for run in runs]
        assert np.mean(errors) == pytest.approx(np.std(values), rel=0.35)


def test_participation_ratio_is_not_below_the_stable_rank(key):
    phi = micro_representation("relu2")
    image = jax.random.uniform(key, (16, 16, 3))
    found = geometry.effective_dimension(key, phi, image)
    assert 1 <= float(found.stable_rank.value) < float(found.participation_ratio.value)


@pytest.mark.parametrize("cutoff", [0.3, 3.0])
def test_ridge_dimension_is_the_sum_over_the_spectrum(key, image, cutoff):
    values = np.linspace(0.1, 5, 20)
    truth = np.sum(values**2 / (values**2 + cutoff**2))
    found = geometry.ridge_dimension(
        key, _linear(_matrix(30, values)), image, cutoff, num_probes=200
    )
    assert abs(float(found.value) - truth) < 3.3 * float(found.standard_error) + 1e-3
    assert float(found.standard_error) < 0.05 * truth


def test_code_change_of_a_linear_map_is_a_straight_line(key, image):
    matrix = _matrix(12, np.arange(1.0, 11.0))
    direction = np.asarray(jax.random.normal(key, SHAPE))
    steps = np.array([-0.2, 0.0, 1e-3, 0.2])
    found = geometry.code_change(_linear(matrix), image, direction, steps)
    unit = direction.ravel() / np.sqrt(np.mean(direction**2))
    slope = np.linalg.norm(matrix @ unit) / np.linalg.norm(matrix @ np.ravel(image))
    np.testing.assert_allclose(found, np.abs(steps) * slope, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda phi, x: geometry.singular_values(jax.random.key(0), phi, x, num=99),
         "num is 99"),
        (lambda phi, x: geometry.null_direction(phi, x, jnp.zeros(SHAPE)),
         "direction is zero"),
        (lambda phi, x: geometry.null_direction(phi, x, x[0]), "direction has shape"),
        (lambda phi, x: geometry.null_direction(phi, x, x, cutoff=-1.0),
         "cutoff is -1.0"),
        (lambda phi, x: geometry.ridge_dimension(jax.random.key(0), phi, x, 0.0),
         "cutoff is 0.0"),
        (lambda phi, x: geometry.effective_dimension(
            jax.random.key(0), phi, x, num_probes=1), "num_probes is 1"),
    ],
)  # fmt: skip
def test_refuses_in_one_line(image, call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(_linear(_matrix(12, np.ones(10))), image)
    assert "\n" not in str(caught.value)
