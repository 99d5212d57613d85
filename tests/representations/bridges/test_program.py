"""Programs: what is kept of a function, and what is computed in another way."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from invjax.networks.relaxation import Relaxation
from invjax.representations.bridges import program
from tests.representations.bridges.cutting import distance, picture

RELAXED = Relaxation(jnp.float32(0.3), jnp.float32(0.6))


def _kernel(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def _shapes(weights: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    return {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in weights.items()}


def _traced(function: Any, weights: Any, shape: tuple[int, ...], **options: Any) -> Any:
    return program.trace(function, _shapes(weights), shape, **options)


def _pull(traced: Any, weights: Any, x: np.ndarray, relaxation: Any, **options) -> Any:
    def loss(x: Array) -> Array:
        code = program.evaluate(traced.program, weights, x, relaxation, **options)
        return jnp.sum(code**2)

    return jax.jit(jax.value_and_grad(loss))(x)


def test_what_is_above_a_tag_is_gone_with_its_weights():
    weights = {"below": _kernel(4, 5), "beside": _kernel(4, 5), "above": _kernel(5, 6)}

    def function(weights: dict[str, Array], x: Array) -> Array:
        beside = x @ weights["beside"]
        below = program.tagged(x @ weights["below"], "below")
        return (below + beside) @ weights["above"]

    traced = _traced(function, weights, (4,), layer="below")
    assert [name for name, _ in traced.program.weights] == ["below"]
    assert traced.program.code_shape == (5,)
    x = picture((4,))
    found = program.evaluate(traced.program, weights, x, None)
    assert np.array_equal(found, jnp.asarray(x) @ weights["below"])
    assert _traced(function, weights, (4,), layer="none") is None


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, jax.vmap])
def test_tags_are_found_inside_of_calls(wrap: Any):
    def function(weights: dict[str, Array], x: Array) -> Array:
        return wrap(lambda row: program.tagged(row * 2, "twice") + 1)(x)

    traced = _traced(function, {}, (3, 4), layer="twice")
    x = picture((3, 4))
    assert np.array_equal(program.evaluate(traced.program, {}, x, None), 2 * x)


def test_a_tag_inside_a_loop_is_not_found():
    def function(weights: dict[str, Array], x: Array) -> Array:
        step = lambda carry, _: (program.tagged(2 * carry, "twice"), None)  # noqa: E731
        return jax.lax.scan(step, x, None, length=3)[0]

    assert _traced(function, {}, (3,), layer="twice") is None
    traced = _traced(function, {}, (3,))
    assert np.array_equal(
        program.evaluate(traced.program, {}, np.ones(3, np.float32), None), [8, 8, 8]
    )


def test_the_last_of_several_calls_is_the_code():
    def function(weights: dict[str, Array], x: Array) -> Array:
        return program.tagged(program.tagged(x + 1, "more") + 1, "more")

    traced = _traced(function, {}, (2,), layer="more")
    found = program.evaluate(traced.program, {}, np.zeros(2, np.float32), None)
    assert np.array_equal(found, [2, 2])


def test_arrays_inside_a_function_become_weights():
    inside = jnp.asarray(_kernel(3, 3))
    traced = _traced(lambda weights, x: x @ inside, {}, (3,))
    (name,) = traced.constants
    assert [key for key, _ in traced.program.weights] == [name]
    x = picture((3,))
    found = program.evaluate(traced.program, {name: 2 * inside}, x, None)
    assert distance(found, 2 * x @ inside) < 1e-6


def _depthwise(layout: str, padding: Any, stride: int) -> Any:
    numbers = ("NCHW", "OIHW", "NCHW") if layout == "NCHW" else ("NHWC", "HWIO", "NHWC")

    def function(weights: dict[str, Array], x: Array) -> Array:
        image = jnp.transpose(x, (2, 0, 1)) if layout == "NCHW" else x
        channel = 1 if layout == "NCHW" else 3
        return jax.lax.conv_general_dilated(
            image[None],
            weights["kernel"],
            (stride, stride),
            padding,
            dimension_numbers=numbers,
            feature_group_count=image[None].shape[channel],
        )

    shape = (5, 1, 3, 4) if layout == "NCHW" else (3, 4, 1, 5)
    return function, {"kernel": _kernel(*shape)}, (9, 11, 5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolutions_are_sums_of_shifted_images(layout: str, stride: int):
    function, weights, shape = _depthwise(layout, ((1, 2), (1, 2)), stride)
    traced, x = _traced(function, weights, shape), picture(shape)
    found = _pull(traced, weights, x, None)
    wanted = _pull(traced, weights, x, None, stock=True)
    for one, other in zip(found, wanted, strict=True):
        assert distance(one, other) < 1e-5
    equations = jax.make_jaxpr(
        lambda x: program.evaluate(traced.program, weights, x, None)
    )(x)
    assert "conv_general_dilated" not in str(equations)


def test_convolutions_of_other_forms_are_left_as_they_are():
    function, weights, shape = _depthwise("NHWC", ((1, 2), (0, 1)), 1)
    traced, x = _traced(function, weights, shape), picture(shape)
    found = program.evaluate(traced.program, weights, x, None)
    wanted = program.evaluate(traced.program, weights, x, None, stock=True)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("axes", [(2, 3), (1, 2)])
def test_max_pools_are_relaxed(axes: tuple[int, int]):
    def function(weights: dict[str, Array], x: Array) -> Array:
        image = jnp.transpose(x, (2, 0, 1)) if axes == (2, 3) else x
        window, strides, padding = [1] * 4, [1] * 4, [(0, 0)] * 4
        for axis in axes:
            window[axis], strides[axis], padding[axis] = 3, 2, (1, 1)
        return jax.lax.reduce_window(
            image[None], -jnp.inf, jax.lax.max, window, strides, padding
        )

    traced, x = _traced(function, {}, (8, 10, 3)), picture((8, 10, 3))
    stock = _pull(traced, {}, x, None, stock=True)
    for relaxation in (None, Relaxation(jnp.float32(0), jnp.float32(0))):
        for one, other in zip(_pull(traced, {}, x, relaxation), stock, strict=True):
            assert distance(one, other) < 1e-6
    value, pulled = _pull(traced, {}, x, RELAXED)
    assert distance(value, stock[0]) < 1e-6
    # Every pixel has its part; exactly, only those that are a maximum have one.
    assert np.all(pulled != 0) and not np.all(stock[1] != 0)


@pytest.mark.parametrize(
    "relu",
    [jax.nn.relu, lambda x: jnp.maximum(x, 0), lambda x: jnp.maximum(0.0, x)],
)
def test_relus_leak(relu: Any):
    traced = _traced(lambda weights, x: relu(x - 0.5), {}, (40,))
    x = picture((40,))
    value, pulled = _pull(traced, {}, x, RELAXED)
    stock, exact = _pull(traced, {}, x, None, stock=True)
    assert np.array_equal(value, stock)
    # The loss is a square, so that its derivative where the ReLU is off is 0 all the
    # same: the ReLU alone is asked.
    _, vjp = jax.vjp(lambda x: program.evaluate(traced.program, {}, x, RELAXED), x)
    (slopes,) = vjp(np.ones(40, np.float32))
    assert np.allclose(slopes, np.where(x > 0.5, 1.0, 0.3))
    assert np.array_equal(pulled, exact)


@pytest.mark.parametrize(
    "relu6",
    [jax.nn.relu6, lambda x: jnp.clip(x, 0, 6), lambda x: jnp.clip(x, 0.0, 6.0)],
)
def test_relu6_leaks_once_at_either_end(relu6: Any):
    traced = _traced(lambda weights, x: relu6(x), {}, (3,))
    x = np.array([-1, 3, 7], np.float32)
    value, vjp = jax.vjp(lambda x: program.evaluate(traced.program, {}, x, RELAXED), x)
    assert np.array_equal(value, [0, 3, 6])
    (slopes,) = vjp(np.ones(3, np.float32))
    assert np.allclose(slopes, [0.3, 1, 0.3])


def test_maxima_with_other_numbers_do_not_leak():
    traced = _traced(lambda weights, x: jnp.maximum(x, 0.25), {}, (2,))
    x = np.array([0, 1], np.float32)
    _, vjp = jax.vjp(lambda x: program.evaluate(traced.program, {}, x, RELAXED), x)
    (slopes,) = vjp(np.ones(2, np.float32))
    assert np.array_equal(slopes, [0, 1])
