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


def test_standard_errors_equal_the_deviation_of_estimates(image):
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


def test_refuses_in_one_line(key, image):
    phi = linear(with_values(12, np.ones(10)))
    with pytest.raises(ValueError, match="num_probes is 1") as caught:
        effective_dimension.effective_dimension(key, phi, image, num_probes=1)
    assert "\n" not in str(caught.value)
