"""Any callable can be an argument of a compiled function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from invjax import callables
from invjax.callables import TracedCallable


def test_arguments_trace_arrays_and_keep_the_rest() -> None:
    traces: list[None] = []

    def scaled(factor: Array, image: Array, *, power: int) -> Array:
        traces.append(None)
        return factor * image**power

    image = jnp.ones((2, 2, 1), jnp.float32)
    for factor in (1.0, 2.0, 3.0):
        phi = jax.tree_util.Partial(scaled, jnp.float32(factor), power=2)
        np.testing.assert_array_equal(callables.encode(phi, image), factor * image)
    assert len(traces) == 1
    assert callables.code_shape(phi, (2, 2, 1)) == (2, 2, 1)
    assert len(traces) == 1


def test_a_callable_that_cannot_be_hashed_is_refused() -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, image: Array) -> Array:
            return image

    with pytest.raises(TypeError, match="hashable") as caught:
        callables.encode(Unhashable(), jnp.ones((2, 2, 1)))
    assert "\n" not in str(caught.value)
    phi = functools.partial(lambda factor, image: factor * image, 2.0)
    np.testing.assert_array_equal(
        callables.encode(phi, jnp.ones((2, 2, 1))), np.full((2, 2, 1), 2.0)
    )


def test_a_callable_is_wrapped_once() -> None:
    phi = TracedCallable.of(jnp.tanh)
    assert TracedCallable.of(phi) is phi


def test_the_leaves_are_the_arrays_alone() -> None:
    def scaled(factor: Array, offset: float, image: Array) -> Array:
        return factor * image + offset

    phi = TracedCallable.of(jax.tree_util.Partial(scaled, jnp.float32(2), 0.5))
    assert [leaf.item() for leaf in jax.tree.leaves(phi)] == [2.0]
    changed = jax.tree.map(lambda leaf: 2 * leaf, phi)
    np.testing.assert_array_equal(changed(jnp.ones((1, 1, 1))), [[[4.5]]])
