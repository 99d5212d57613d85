"""What people try with `invert` and is not meant: one clear line each, or it works."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax.inversion import api
from invjax.preimages import mcmc, repulsion
from invjax.representations import as_representation
from invjax.sensitivity import jacobian, transformations

SHAPE = (8, 8, 3)
CODE = np.full(3, 0.4, np.float32)
KEY = jax.random.key(0)


def phi(image):
    return jnp.mean(image, axis=(0, 1))


def invert(key=KEY, code=CODE, function=phi, **settings):
    defaults: Any = {"image_shape": SHAPE, "num_steps": 2}
    return invjax.invert(key, code, function, **(defaults | settings))


def invert_batch(keys, codes, function=phi, **settings):
    defaults: Any = {"image_shape": SHAPE, "num_steps": 2}
    return invjax.invert_batch(keys, codes, function, **(defaults | settings))


TRANSFORMED = {
    "jit": lambda: jax.jit(lambda code: invert(code=code).image)(CODE),
    "jit of a constant": lambda: jax.jit(lambda: invert().image)(),
    "jit of the key": lambda: jax.jit(lambda key: invert(key).image)(KEY),
    "vmap": lambda: jax.vmap(lambda code: invert(code=code).image)(CODE[None]),
    "vmap of keys": lambda: jax.vmap(lambda key: invert(key).image)(KEY[None]),
    "vmap of weights": lambda: jax.vmap(lambda tv: invert(tv_weight=tv).energy)(
        jnp.ones(2)
    ),
    "vmap of a closure": lambda: jax.vmap(
        lambda gain: invert(function=lambda image: gain * phi(image)).image
    )(jnp.ones(2)),
    "grad": lambda: jax.grad(lambda code: invert(code=code).image.sum())(CODE),
    "grad of parameters": lambda: jax.grad(
        lambda gain: invert(
            function=jax.tree_util.Partial(lambda g, x: g * phi(x), gain)
        ).image.sum()
    )(jnp.float32(1)),
    "batch": lambda: jax.jit(lambda codes: invert_batch(KEY[None], codes).image)(
        CODE[None]
    ),
    "estimate": lambda: jax.jit(
        lambda code: api.estimate(code, phi, image_shape=SHAPE).seconds_per_lane
    )(CODE),
    "sample": lambda: jax.jit(
        lambda code: (
            mcmc.sample(
                KEY[None], code, phi, np.zeros((1, *SHAPE), np.float32), temperature=1.0
            ).energies
        )
    )(CODE),
    "repel": lambda: jax.jit(
        lambda code: (
            repulsion.repel(
                jax.random.split(KEY, 2), code, phi, image_shape=SHAPE
            ).images
        )
    )(CODE),
}


@pytest.mark.parametrize("case", TRANSFORMED)
def test_jit_vmap_and_grad_are_told_what_to_do(case):
    with pytest.raises(TypeError, match="cannot run inside jax.jit, vmap") as caught:
        TRANSFORMED[case]()
    text = str(caught.value)
    assert "\n" not in text
    assert "invert_batch in place of vmap" in text and "not differentiable" in text


def test_grad_of_something_else_may_invert():
    """Nothing of the inversion is traced there."""
    slope = jax.grad(lambda x: x * float(invert().energy))(2.0)
    assert float(slope) == float(invert().energy)


@pytest.mark.parametrize("key", [0, np.uint32(7), None, "0", np.zeros(2, np.int32)])
def test_a_number_is_no_key(key):
    calls = (
        lambda: invert(key),
        lambda: invert_batch(key, CODE[None]),
        lambda: invert_batch([key], CODE[None]),
        lambda: invjax.invert_stream(key, CODE[None], phi, image_shape=SHAPE),
        lambda: repulsion.repel(key, CODE, phi, image_shape=SHAPE),
        lambda: jacobian.leading_directions(key, phi, np.zeros(SHAPE), num=1),
    )
    for call in calls:
        with pytest.raises(TypeError, match="a random key is accepted") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_raw_keys_give_the_same_lanes():
    raw = jax.random.PRNGKey(0)
    np.testing.assert_array_equal(invert(raw).image, invert().image)
    codes = np.stack([CODE, CODE])
    typed = invert_batch(jax.random.split(KEY, 2), codes)
    for keys in (jax.random.split(raw, 2), np.asarray(jax.random.split(raw, 2))):
        np.testing.assert_array_equal(invert_batch(keys, codes).image, typed.image)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (KEY, "one key; as many keys as codes, 2, are accepted"),
        (jax.random.PRNGKey(0), "one key; as many keys as codes, 2, are accepted"),
        (jax.random.split(KEY, 3), "3 keys; as many keys as codes, 2, are"),
        ([KEY], "1 keys; as many keys as codes, 2, are accepted"),
    ],
)
def test_there_are_as_many_keys_as_codes(keys, words):
    with pytest.raises(ValueError, match=words) as caught:
        invert_batch(keys, np.stack([CODE, CODE]))
    assert "\n" not in str(caught.value)
    assert "jax.random.split(key, 2)" in str(caught.value)


def test_invert_takes_one_key():
    with pytest.raises(ValueError, match="one key is accepted"):
        invert(jax.random.split(KEY, 2))


def test_a_name_is_taken_wherever_a_representation_is(tmp_path):
    image = np.random.default_rng(0).uniform(size=(16, 16, 1)).astype(np.float32)
    hogb = invjax.representation("hogb")
    code = hogb(jnp.asarray(image))
    rest: Any = {"image_shape": (16, 16, 1), "num_steps": 2}
    expected = invjax.invert(KEY, code, hogb, **rest).image
    found = invjax.invert(KEY, code, "hogb", **rest).image
    np.testing.assert_array_equal(found, expected)
    (together,) = invjax.invert_batch(KEY[None], code[None], "hogb", **rest).image
    np.testing.assert_array_equal(together, expected)
    ((_, streamed),) = invjax.invert_stream(KEY[None], code[None], "hogb", **rest)
    np.testing.assert_array_equal(streamed.image[0], expected)
    assert api.chunk_bytes(code, "hogb", **rest) > 0
    assert jacobian.num_features("hogb", image) == code.size
    by_name = transformations.sensitivity("hogb", image, transformations.shift, [1.0])
    by_phi = transformations.sensitivity(hogb, image, transformations.shift, [1.0])
    np.testing.assert_array_equal(by_name.code, by_phi.code)
    assert as_representation(phi) is phi


@pytest.mark.parametrize("name", ["hogg", "alexnet", "alexnet/relu9", ""])
def test_an_unknown_name_is_one_line(name):
    with pytest.raises(ValueError) as caught:
        invert(function=name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", [None, 3, CODE])
def test_what_cannot_be_called_is_no_representation(function):
    with pytest.raises(TypeError, match="cannot be called; a pure function") as caught:
        invert(function=function)
    assert "\n" not in str(caught.value)


PARTS = {
    "tuple": (np.ones((4, 4, 3)), np.ones(3)),
    "list": [np.ones((4, 4, 3)), np.ones(3)],
    "tuple of equal shapes": (np.ones(3), np.ones(3)),
    "dict": {"shallow": np.ones((4, 4, 3)), "deep": np.ones(3)},
    "nested": {"a": (np.ones(2), np.ones(3))},
}


@pytest.mark.parametrize("case", PARTS)
def test_a_code_of_parts_is_refused_where_phi_returns_one_array(case):
    words = r"the code is a \w+ of .*, but the representation returns one array \(3,\)"
    with pytest.raises(ValueError, match=words) as caught:
        invert(code=PARTS[case])
    assert "\n" not in str(caught.value)
    if case != "tuple of equal shapes":
        with pytest.raises(ValueError, match=words):
            invert_batch(KEY[None], PARTS[case])


@pytest.mark.parametrize(
    "function",
    [
        lambda image: None,
        lambda image: (),
        lambda image: 0.5,
        lambda image: {"shallow": image[::4, ::4], "number": 3},
    ],
)
def test_a_representation_without_arrays_is_refused(function):
    with pytest.raises(TypeError, match="the representation returns a ") as caught:
        invert(function=function)
    assert "\n" not in str(caught.value)
    assert "an array, or a pytree of arrays, is accepted" in str(caught.value)


def test_classes_have_no_derivative():
    with pytest.raises(TypeError, match="returns int32, which has no derivative"):
        invert(function=lambda image: jnp.argmax(image, 0).astype(jnp.int32))


def test_numbers_of_any_type_are_a_code():
    expected = invert(code=np.array([1, 0, 2], np.float32)).image
    for code in (
        np.array([1, 0, 2], np.float64),
        np.array([1, 0, 2], np.int64),
        np.array([1, 0, 2], np.uint8),
        [1, 0, 2],
        (1.0, 0.0, 2.0),
        jnp.asarray([1, 0, 2], jnp.bfloat16),
    ):
        np.testing.assert_array_equal(invert(code=code).image, expected)
    flags = np.array([True, False, True])
    np.testing.assert_array_equal(
        invert(code=flags).image, invert(code=flags.astype(np.float32)).image
    )


def test_codes_of_lanes_may_be_a_list():
    keys = jax.random.split(KEY, 2)
    listed = invert_batch(keys, [CODE, jnp.asarray(2 * CODE)])
    stacked = invert_batch(keys, np.stack([CODE, 2 * CODE]))
    np.testing.assert_array_equal(listed.image, stacked.image)


@pytest.mark.parametrize("code", ["cat", None, object(), np.array(["cat", "dog"])])
def test_what_is_no_number_is_no_code(code):
    with pytest.raises(ValueError, match="accepted") as caught:
        invert(code=code)
    assert "\n" not in str(caught.value)


def test_a_batch_of_codes_is_for_invert_batch():
    with pytest.raises(ValueError, match="invert_batch takes several codes"):
        invert(code=CODE[None])
    with pytest.raises(ValueError, match=r"\[l, ...\], is accepted"):
        invert_batch(KEY[None], np.float32(0.4))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((224, 224), r"\(height, width, channels\) is accepted"),
        (224, r"\(height, width, channels\) is accepted"),
        ("224", r"\(height, width, channels\) is accepted"),
        ((224.0, 224.0, 3), r"\(height, width, channels\) is accepted"),
        ((0, 8, 3), r"\(height, width, channels\) is accepted"),
        ((1, 8, 8, 3), r"\(height, width, channels\) is accepted"),
        ((3, 224, 224), r"channels first; .* here \(224, 224, 3\)"),
        ((1, 28, 30), r"channels first; .* here \(28, 30, 1\)"),
        (None, r"needs it"),
    ],
)
def test_image_shapes_of_other_kinds_are_one_line(shape, words):
    with pytest.raises(ValueError, match=words) as caught:
        invert(image_shape=shape)
    assert "\n" not in str(caught.value)


def test_shapes_of_any_sequence_of_integers_are_accepted():
    expected = invert().image
    for shape in (list(SHAPE), np.array(SHAPE), jnp.asarray(SHAPE)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(invert(image_shape=shape).image, expected)
