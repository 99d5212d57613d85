"""Chains against densities known in closed form, and the laws of chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.identity import lane_key
from invjax.inversion.execution import Execution
from invjax.inversion.objective import SIGMA
from invjax.preimages import mcmc
from invjax.preimages.chain import projection_directions
from invjax.preimages.kernels import Hmc, Mala
from invjax.sensitivity import jacobian
from tests.conftest import micro_representation

pytestmark = pytest.mark.slow

SHAPE = (4, 4, 1)
SIZE = 16
TV_WEIGHT = 400.0
TOGETHER = Execution(width=4, scan=True)
TIMID = Mala(target_acceptance=1 - 1e-6)


def _apply(matrix, image):
    return matrix @ image.ravel()


def _linear(matrix):
    return jax.tree_util.Partial(_apply, jnp.asarray(matrix, jnp.float32))


def _differences() -> np.ndarray:
    """Rows: every forward difference of a 4 x 4 image, so TV = |D x|^2."""
    numbers = np.arange(SIZE).reshape(4, 4)
    pairs = [*zip(numbers[:, :-1].ravel(), numbers[:, 1:].ravel(), strict=True)]
    pairs += zip(numbers[:-1].ravel(), numbers[1:].ravel(), strict=True)
    rows = np.zeros((len(pairs), SIZE))
    for row, (first, second) in zip(rows, pairs, strict=True):
        row[first], row[second] = -1, 1
    return rows


def _gaussian(matrix, image, temperature):
    """Mean and covariance of exp(-E / T) in image units, float64.

    E = |A (x - x0)|^2 / |A x0|^2 + lambda_V |D (255 x - 128)|^2 / sigma^2.
    """
    matrix = np.asarray(matrix, np.float64)
    truth = np.asarray(image, np.float64).ravel()
    data = matrix.T @ matrix / np.sum((matrix @ truth) ** 2)
    differences = _differences()
    smooth = TV_WEIGHT * (255 / SIGMA) ** 2 * differences.T @ differences
    precision = 2 / temperature * (data + smooth)
    covariance = np.linalg.inv(precision)
    return covariance @ (2 / temperature * data @ truth), covariance


def _draw(key, matrix, image, start=None, **settings):
    defaults = dict(
        num_samples=400, num_warmup=600, thin=10, tv_weight=TV_WEIGHT, alpha_weight=0.0
    )
    starts = jnp.stack([image if start is None else start] * 4)
    return mcmc.sample(
        jax.random.split(key, 4),
        _linear(matrix)(image),
        _linear(matrix),
        starts,
        **(defaults | dict(execution=TOGETHER) | settings),
    )


@pytest.fixture
def image(key):
    return jax.random.uniform(key, SHAPE, minval=0.3, maxval=0.7)


@pytest.mark.parametrize(
    "kernel",
    [Mala(), Hmc(num_leaps=5)],
    ids=lambda kernel: type(kernel).__name__,
)
def test_mean_and_covariance_of_a_gaussian(key, image, kernel):
    temperature = 1e-3
    matrix = np.eye(SIZE)
    mean, covariance = _gaussian(matrix, image, temperature)
    found = _draw(key, matrix, image, temperature=temperature, kernel=kernel)
    draws = found.images.reshape(-1, SIZE).astype(np.float64)
    # Fewer than the 1,600 draws, and enough for the tolerances below.
    sizes = found.diagnostics.projection_ess
    assert np.all(sizes > 300) and np.all(found.diagnostics.projection_rhat < 1.05)
    errors = np.sqrt(np.diag(covariance) / sizes.min())
    assert np.all(np.abs(draws.mean(0) - mean) < 4 * errors)
    # In the coordinates in which the truth is the identity; the expected relative
    # error of a covariance of 16 numbers is about sqrt(17 / ess).
    factor = np.linalg.inv(np.linalg.cholesky(covariance))
    whitened = factor @ np.cov(draws.T) @ factor.T
    np.testing.assert_allclose(np.diag(whitened), 1, atol=4 * np.sqrt(2 / sizes.min()))
    off_diagonal = whitened - np.diag(np.diag(whitened))
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(sizes.min())
    assert np.linalg.norm(np.cov(draws.T)) == pytest.approx(
        np.linalg.norm(covariance), rel=0.2
    )


def test_draws_vary_where_a_representation_is_blind(key, image):
    # The code depends on 6 of 16 directions; the regulariser alone bounds the others.
    generator = np.random.default_rng(3)
    # With rows of zeros, so that the program compiled for the other tests will do.
    matrix = np.zeros((SIZE, SIZE))
    matrix[:6] = np.linalg.qr(generator.normal(size=(SIZE, 6)))[0].T
    matrix[0] = 1 / 4  # the mean, on which total variation does not depend
    temperature = 1e-3
    mean, covariance = _gaussian(matrix, image, temperature)
    found = _draw(key, matrix, image, temperature=temperature, num_samples=800)
    draws = found.images.reshape(-1, SIZE).astype(np.float64)
    sizes = found.diagnostics.projection_ess
    assert np.all(sizes > 200)
    expected = np.sort(np.linalg.eigvalsh(covariance))
    # Eigenvalues of a sample's covariance deviate by about sqrt(16 / ess).
    np.testing.assert_allclose(
        np.sort(np.linalg.eigvalsh(np.cov(draws.T))), expected, rtol=0.45
    )
    # What varies most is what the Jacobian ignores: the leading direction of the draws
    # lies in its null space, as far as that of the exact covariance does.
    _, vectors = np.linalg.eigh(np.cov(draws.T))
    widest = vectors[:, -1].reshape(SHAPE)
    ignored = jacobian.null_direction(_linear(matrix), image, widest)
    _, analytic = np.linalg.eigh(covariance)
    exact = jacobian.null_direction(
        _linear(matrix), image, analytic[:, -1].reshape(SHAPE)
    )
    assert float(ignored.kept) > 0.9
    assert float(ignored.kept) == pytest.approx(float(exact.kept), abs=0.05)


def test_adaptation_reaches_the_target_and_is_then_frozen(key, image):
    settings = dict(temperature=1e-3, num_samples=100, num_warmup=1000)
    found = _draw(key, np.eye(SIZE), image, **settings)
    np.testing.assert_allclose(found.acceptance, 0.574, atol=0.1)
    timid = _draw(key, np.eye(SIZE), image, kernel=TIMID, **settings)
    assert np.all(timid.acceptance > 0.98)
    assert np.all(timid.rates < found.rates)


def test_heating_is_one_for_chains_at_their_temperature(key, image):
    mean, _ = _gaussian(np.eye(SIZE), image, 1.0)
    mode = jnp.asarray(mean.reshape(SHAPE), jnp.float32)
    settings = dict(temperature=1e-3, start=mode)
    # Equipartition: E above the mode is T / 2 for each of the 16 numbers.
    warm = _draw(key, np.eye(SIZE), image, **settings)
    np.testing.assert_allclose(warm.heating, 1, atol=0.2)
    cold = _draw(
        key,
        np.eye(SIZE),
        image,
        kernel=TIMID,
        num_warmup=40,
        num_samples=1,
        **settings,
    )
    assert np.all(cold.heating < 0.5)


def test_the_step_size_follows_the_energy_and_not_the_temperature(key, image):
    cold = _draw(key, np.eye(SIZE), image, temperature=1e-5, num_samples=1)
    hot = _draw(key, np.eye(SIZE), image, temperature=1e-3, num_samples=1)
    np.testing.assert_allclose(cold.rates, hot.rates, rtol=0.5)


@pytest.mark.parametrize("goal", [0.11, 0.2])
def test_calibration_reaches_the_target_error(key, image, goal):
    found = _draw(key, np.eye(SIZE), image, target_error=goal, num_warmup=1500)
    means = found.relative_errors.mean(axis=1)
    # Each chain by itself, and its error is the one that its temperature implies.
    np.testing.assert_allclose(means, goal, rtol=0.1)
    truth = np.asarray(image, np.float64).ravel()
    for number, temperature in enumerate(found.temperatures):
        mean, covariance = _gaussian(np.eye(SIZE), image, float(temperature))
        squared = np.trace(covariance) + np.sum((mean - truth) ** 2)
        implied = np.sqrt(squared / np.sum(truth**2))
        rms = np.sqrt(np.mean(found.relative_errors[number] ** 2))
        assert rms == pytest.approx(implied, rel=0.1)


def test_no_temperature_gets_under_the_error_of_the_mode(key, image):
    mean, _ = _gaussian(np.eye(SIZE), image, 1.0)
    truth = np.asarray(image, np.float64).ravel()
    floor = np.linalg.norm(mean - truth) / np.linalg.norm(truth)
    assert floor > 0.06
    found = _draw(key, np.eye(SIZE), image, target_error=0.05, num_warmup=1500)
    # The chains are cold, and their errors say that they are at the floor.
    np.testing.assert_allclose(found.relative_errors.mean(), floor, rtol=0.02)
    warm = _draw(key, np.eye(SIZE), image, target_error=0.11, num_warmup=1500)
    assert np.all(found.temperatures < 0.01 * warm.temperatures)


def _network_draws(keys, starts, phi, code, **settings):
    return mcmc.sample(
        keys,
        code,
        phi,
        starts,
        temperature=1e-5,
        num_samples=3,
        num_warmup=40,
        thin=2,
        **settings,
    )


def test_a_chain_is_the_same_alone_and_in_any_batch():
    phi = micro_representation("relu1")
    starts = jax.random.uniform(jax.random.key(1), (3, 16, 16, 3))
    code = phi(starts[0])
    keys = [lane_key(0, 7, start) for start in range(3)]
    execution = Execution(width=1, scan=False)
    together = _network_draws(keys, starts, phi, code, execution=execution)
    reverse = _network_draws(keys[::-1], starts[::-1], phi, code, execution=execution)
    alone = _network_draws(keys[1:2], starts[1:2], phi, code, execution=execution)
    for field in ("images", "energies", "acceptance", "rates"):
        values = getattr(together, field)
        np.testing.assert_array_equal(values[::-1], getattr(reverse, field))
        np.testing.assert_array_equal(values[1:2], getattr(alone, field))
    assert len({image.tobytes() for image in together.images[:, -1]}) == 3


def test_a_padded_chunk_gives_every_chain_once(key, image):
    phi = _linear(np.eye(SIZE))
    keys = jax.random.split(key, 4)
    starts = jnp.stack([image, image + 0.1, image - 0.1, image + 0.2])

    def draw(num_chains):
        return mcmc.sample(
            keys[:num_chains],
            phi(image),
            phi,
            starts[:num_chains],
            temperature=1e-3,
            num_samples=2,
            num_warmup=40,
            thin=10,
            tv_weight=TV_WEIGHT,
            alpha_weight=0.0,
            execution=TOGETHER,
        )

    padded, full = draw(3), draw(4)
    assert padded.images.shape == (3, 2, *SHAPE)
    np.testing.assert_array_equal(padded.images, full.images[:3])
    assert len({chain.tobytes() for chain in full.images}) == 4


def test_what_is_returned_belongs_to_the_images(key):
    phi = micro_representation("relu1")
    starts = jax.random.uniform(key, (2, 16, 16, 3))
    code = phi(starts[0])
    found = _network_draws(jax.random.split(key, 2), starts, phi, code)
    for chain in range(2):
        for draw in range(3):
            picture = found.images[chain, draw]
            error = jnp.linalg.norm(phi(picture) - code) / jnp.linalg.norm(code)
            assert found.relative_errors[chain, draw] == pytest.approx(
                float(error), rel=1e-3
            )
            directions = projection_directions((16, 16, 3))
            expected = np.tensordot(directions, picture, axes=3)
            np.testing.assert_allclose(
                found.projections[chain, draw], expected, rtol=1e-4, atol=1e-5
            )
    assert np.all(np.isnan(found.diagnostics.projection_rhat))  # three draws


def test_diagnostics_separate_mixed_chains_from_stuck_ones():
    generator = np.random.default_rng(0)
    mixed = generator.normal(size=(4, 500, 3))
    apart = mixed + 5 * np.arange(4)[:, None, None]
    good = mcmc.diagnose(mixed[..., 0], mixed)
    bad = mcmc.diagnose(apart[..., 0], apart)
    np.testing.assert_allclose(good.projection_ess, 2000, rtol=0.2)
    np.testing.assert_allclose(good.projection_rhat, 1, atol=0.02)
    assert np.all(bad.projection_rhat > 2) and np.all(bad.projection_ess < 20)
    single = mcmc.diagnose(mixed[:1, :, 0], mixed[:1])
    assert np.isnan(single.energy_rhat) and float(single.energy_ess) > 300


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "either temperature or target_error"),
        ({"temperature": 1.0, "target_error": 0.1}, "either temperature or"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"target_error": -0.1}, "target_error is -0.1"),
        ({"temperature": np.ones(3)}, r"temperature has shape \(3,\)"),
        ({"temperature": 1.0, "num_samples": 0}, "num_samples is 0"),
        ({"temperature": 1.0, "num_warmup": 5}, "num_warmup is 5"),
        ({"temperature": 1.0, "thin": 0}, "thin is 0"),
    ],
)
def test_refuses_in_one_line(key, image, settings, words):
    with pytest.raises(ValueError, match=words) as caught:
        _draw(key, np.eye(SIZE), image, **settings)
    assert "\n" not in str(caught.value)


def test_refuses_starts_that_do_not_fit(key, image):
    phi = _linear(np.eye(SIZE))
    keys = jax.random.split(key, 2)
    with pytest.raises(ValueError, match="2 keys; as many keys as images, 1, are"):
        mcmc.sample(keys, phi(image), phi, image[None], temperature=1.0)
    broken = jnp.stack([image, image * jnp.nan])
    with pytest.raises(ValueError, match="images holds values that are infinite"):
        mcmc.sample(keys, phi(image), phi, broken, temperature=1.0, execution=TOGETHER)
    bright = jnp.stack([image, image + 1e30])
    with pytest.raises(ValueError, match="energy of a start"):
        mcmc.sample(keys, phi(image), phi, bright, temperature=1.0, execution=TOGETHER)
