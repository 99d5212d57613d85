"""Any callable can be an argument of a compiled function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import callables


def test_arguments_trace_arrays_and_keep_the_rest():
    traces: list[None] = []

    def scaled(factor, image, *, power):
        traces.append(None)
        return factor * image**power

    image = jnp.ones((2, 2, 1))
    for factor in (1.0, 2.0, 3.0):
        phi = jax.tree_util.Partial(scaled, jnp.float32(factor), power=2)
        np.testing.assert_array_equal(callables.encode(phi, image), factor * image)
    assert len(traces) == 1
    assert callables.code_shape(phi, (2, 2, 1)) == (2, 2, 1)
    assert len(traces) == 1


def test_a_callable_that_cannot_be_hashed_is_refused():
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, image):
            return image

    with pytest.raises(TypeError, match="hashable"):
        callables.encode(Unhashable(), jnp.ones((2, 2, 1)))
    phi = functools.partial(lambda factor, image: factor * image, 2.0)
    np.testing.assert_array_equal(
        callables.encode(phi, jnp.ones((2, 2, 1))), np.full((2, 2, 1), 2.0)
    )
