"""Identification of originals among candidates."""

import numpy as np
import pytest

from invjax.metrics import identification
from tests.conftest import micro_representation


def _candidates(number: int = 30, size: int = 50) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(number, size))


def test_originals_and_noisy_ones_are_identified():
    candidates = _candidates()
    numbers = np.array([4, 7, 7, 29])
    noise = 0.3 * np.random.default_rng(1).normal(size=(4, 50))
    # Correlation knows neither scale nor offset.
    found = identification.identify(
        3 * (candidates[numbers] + noise) + 5, candidates, numbers
    )
    assert found.rank.tolist() == [0, 0, 0, 0]
    assert found.percentile.tolist() == [1, 1, 1, 1]


def test_noise_is_identified_by_chance():
    candidates = _candidates(100)
    numbers = np.arange(100)
    noise = np.random.default_rng(2).normal(size=(100, 50))
    found = identification.identify(noise, candidates, numbers)
    # A uniform percentile: the mean of a hundred deviates by 0.03.
    assert np.mean(found.percentile) == pytest.approx(0.5, abs=0.1)
    assert np.mean(found.rank) == pytest.approx(49.5, abs=10)


def test_rank_counts_the_better_ones():
    candidates = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = identification.identify(np.array([[3.0, 2, 1]]), candidates, np.array([1]))
    assert found.rank.tolist() == [1] and found.percentile.tolist() == [0.5]


def test_a_constant_reconstruction_is_at_chance():
    found = identification.identify(np.ones((1, 50)), _candidates(), np.array([3]))
    assert found.rank.tolist() == [0] and found.percentile.tolist() == [0.5]


def test_centring_removes_what_reconstructions_have_in_common():
    candidates = _candidates()
    numbers = np.arange(10)
    tint = 50 * candidates[20]
    tinted = candidates[numbers] + tint
    plain = identification.identify(tinted, candidates, numbers)
    assert np.all(plain.rank >= 1)
    centred = identification.identify(tinted, candidates, numbers, centred=True)
    assert np.all(centred.rank == 0)


@pytest.mark.parametrize(
    ("candidates", "numbers", "options", "message"),
    [
        (_candidates(1), [0], {}, "1 candidates"),
        (_candidates(), [3, 3], {"centred": True}, "at least two images"),
    ],
)
def test_what_cannot_be_ranked_is_refused(candidates, numbers, options, message):
    with pytest.raises(ValueError, match=message):
        identification.identify(
            candidates[numbers], candidates, np.array(numbers), **options
        )


def test_features_are_means_over_places_of_clipped_images():
    phi = micro_representation("relu2")
    image = np.random.default_rng(0).uniform(-0.5, 1.5, (32, 32, 3)).astype(np.float32)
    (found,) = identification.features(phi, [image])
    code = np.asarray(phi(np.clip(image, 0, 1)))
    np.testing.assert_allclose(found, code.mean((0, 1)), rtol=1e-5)
    (vector,) = identification.features(micro_representation("fc3"), [image])
    assert vector.shape == (10,)
