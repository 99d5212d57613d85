"""Effective dimensions against the spectra of known matrices."""

import jax
import numpy as np
import pytest

from invjax.sensitivity import effective_dimension
from tests.conftest import micro_representation
from tests.linear_maps import SHAPE, linear, with_values

pytestmark = pytest.mark.slow


@pytest.fixture
def image(key):
    return jax.random.uniform(key, SHAPE)


def test_effective_dimensions_lie_within_their_errors(key, image):
    values = np.array([4.0] + [2.0] * 5 + [1.0] * 10 + [0.1] * 10)
    phi = linear(with_values(50, values))
    squares = values**2
    found = effective_dimension.effective_dimension(key, phi, image, num_probes=400)
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
    phi = linear(with_values(50, 1 / np.sqrt(np.arange(1.0, 31.0))))
    keys = jax.random.split(jax.random.key(5), 60)
    runs = [
        effective_dimension.effective_dimension(key, phi, image, num_probes=16)
        for key in keys
    ]
    for name in ("stable_rank", "participation_ratio"):
        values = [float(getattr(run, name).value) for run in runs]
        errors = [float(getattr(run, name).standard_error) for run in runs]
        assert np.mean(errors) == pytest.approx(np.std(values), rel=0.35)


def test_participation_ratio_is_not_below_the_stable_rank(key):
    phi = micro_representation("relu2")
    image = jax.random.uniform(key, (16, 16, 3))
    found = effective_dimension.effective_dimension(key, phi, image)
    assert 1 <= float(found.stable_rank.value) < float(found.participation_ratio.value)


@pytest.mark.parametrize("cutoff", [0.3, 3.0])
def test_ridge_dimension_is_the_sum_over_the_spectrum(key, image, cutoff):
    values = np.linspace(0.1, 5, 20)
    truth = np.sum(values**2 / (values**2 + cutoff**2))
    found = effective_dimension.ridge_dimension(
        key, linear(with_values(30, values)), image, cutoff, num_probes=200
    )
    assert abs(float(found.value) - truth) < 3.3 * float(found.standard_error) + 1e-3
    assert float(found.standard_error) < 0.05 * truth


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda phi, x: effective_dimension.ridge_dimension(jax.random.key(0), phi, x, 0.0),
         "cutoff is 0.0"),
        (lambda phi, x: effective_dimension.effective_dimension(
            jax.random.key(0), phi, x, num_probes=1), "num_probes is 1"),
    ],
)  # fmt: skip
def test_refuses_in_one_line(image, call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(linear(with_values(12, np.ones(10))), image)
    assert "\n" not in str(caught.value)
