"""The abstract pattern has colours, edges and detail at all scales."""

import numpy as np
import pytest

from invjax.images import abstract, pixels
from invjax.metrics import naturalness


@pytest.fixture(scope="module")
def pattern():
    return abstract.abstract_pattern(224)


def test_range_and_repetition(pattern):
    assert pattern.dtype == np.float32
    assert pattern.shape == (224, 224, 3)
    assert 0 <= pattern.min() < 0.1
    assert 0.9 < pattern.max() <= 1
    np.testing.assert_array_equal(pattern, abstract.abstract_pattern(224))


def test_it_is_colourful_and_has_edges_and_all_scales(pattern):
    assert np.all(pattern.std((0, 1)) > 0.1)
    assert 0.1 < naturalness.chroma_fraction(pattern) < 0.5
    # Few differences between neighbours are large: a normal distribution has 3.
    differences = np.diff(pattern.mean(-1), axis=1)
    assert np.mean(differences**4) / np.mean(differences**2) ** 2 > 6
    assert naturalness.lattice_spikes(pattern, 8) < 1.3
    histogram = naturalness.orientation_histogram(pattern.mean(-1))
    assert histogram.min() > 0.03
    spectrum = naturalness.radial_spectrum(pattern)
    slope = np.polyfit(np.log(spectrum.frequency[1:]), np.log(spectrum.power[1:]), 1)[0]
    assert -3 < slope < -1.5


def test_sizes_show_the_same_picture(pattern):
    large = pixels.centre_crop(abstract.abstract_pattern(448), 224)
    assert np.abs(large - pattern).mean() < 0.02
    assert abstract.abstract_pattern(1).shape == (1, 1, 3)
    with pytest.raises(ValueError, match="size is 0"):
        abstract.abstract_pattern(0)
