"""A measure of how far activations are from expected ones."""

import numpy as np


def max_relative_difference(found: object, expected: np.ndarray) -> float:
    """The largest absolute difference over the largest absolute expected value."""
    array = np.asarray(found)
    assert array.shape == expected.shape
    return float(np.max(np.abs(array - expected)) / np.max(np.abs(expected)))
