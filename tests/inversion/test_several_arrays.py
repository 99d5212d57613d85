"""Codes of several arrays: pytrees, with a weight for each array's data term."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax.inversion import objective
from invjax.preimages import mcmc, repulsion
from invjax.sensitivity import jacobian

SHAPE = (8, 8, 3)
KEY = jax.random.key(3)
SETTINGS: dict = {"image_shape": SHAPE, "num_steps": 60, "tv_weight": 0.01}
IMAGE = np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)


class Layers(NamedTuple):
    """A code as a network of one's own may return it."""

    shallow: jax.Array
    deep: jax.Array


def shallow(image):
    return jnp.sin(3 * image[::2, ::2])


def deep(image):
    return jnp.mean(jnp.square(image), axis=(0, 1))


def as_tuple(image):
    return shallow(image), deep(image)


def as_dict(image):
    return {"shallow": shallow(image), "deep": deep(image)}


def as_named(image):
    return Layers(shallow(image), deep(image))


def nested(image):
    return [{"a": shallow(image)}, (deep(image),)]


FUNCTIONS = (as_tuple, as_dict, as_named, nested)


def invert(phi, code=None, **settings):
    code = phi(IMAGE) if code is None else code
    return invjax.invert(KEY, code, phi, **SETTINGS | settings)


@pytest.mark.parametrize("phi", FUNCTIONS)
def test_any_tree_of_arrays_is_a_code(phi):
    expected, result = invert(as_tuple), invert(phi)
    # The arrays of a dict are in the order of their names, which changes the sum.
    np.testing.assert_allclose(result.image, expected.image, atol=1e-4)
    assert float(result.energy) < 0.5 * float(result.history[0])
    errors = [
        objective.squared_error(found, wanted, jnp.float32(1))
        for found, wanted in zip(
            jax.tree.leaves(phi(result.image)), jax.tree.leaves(phi(IMAGE)), strict=True
        )
    ]
    np.testing.assert_allclose(result.terms.data, np.mean(errors), rtol=1e-4)


def test_one_array_in_a_tree_is_as_one_array():
    alone = invert(shallow)
    for phi in (lambda image: (shallow(image),), lambda image: {"a": shallow(image)}):
        np.testing.assert_array_equal(invert(phi).image, alone.image)


def test_an_array_of_weight_zero_does_not_count():
    result = invert(as_dict, code_weights={"shallow": 1.0, "deep": 0})
    np.testing.assert_allclose(result.image, invert(shallow).image, atol=1e-5)
    other = invert(as_dict, code_weights={"shallow": 0.0, "deep": 1})
    np.testing.assert_allclose(other.image, invert(deep).image, atol=1e-5)
    assert np.abs(other.image - result.image).max() > 0.01


def test_one_weight_is_for_all_arrays():
    half = invert(as_tuple)
    np.testing.assert_array_equal(invert(as_tuple, code_weights=0.5).image, half.image)
    whole = invert(as_tuple, code_weights=1.0)
    # Twice the data term is half the regularisers, at half of the objective.
    assert float(whole.terms.data) > float(half.terms.data)


def test_lanes_do_not_depend_on_each_other():
    keys = jax.random.split(KEY, 3)
    codes = jax.tree.map(
        lambda *parts: np.stack(parts), *(as_dict(IMAGE * n) for n in (1.0, 0.5, 0.8))
    )
    weights: dict = {"shallow": np.array([0.1, 1, 3], np.float32), "deep": 2.0}
    batch = invjax.invert_batch(keys, codes, as_dict, code_weights=weights, **SETTINGS)
    for lane, key in enumerate(keys):
        code = jax.tree.map(lambda part, lane=lane: part[lane], codes)
        one = {"shallow": weights["shallow"][lane], "deep": 2.0}
        alone = invjax.invert(key, code, as_dict, code_weights=one, **SETTINGS)
        np.testing.assert_array_equal(batch.image[lane], alone.image)
        np.testing.assert_array_equal(batch.energy[lane], alone.energy)


def test_codes_of_as_many_lanes_as_arrays_are_not_mixed_up():
    def phi(image):
        return deep(image), jnp.mean(image, axis=(0, 1))

    keys = jax.random.split(KEY, 2)
    one, other = phi(IMAGE), phi(0.5 * IMAGE)
    codes = (np.stack([one[0], other[0]]), np.stack([one[1], other[1]]))
    batch = invjax.invert_batch(keys, codes, phi, **SETTINGS)
    for lane, code in enumerate((one, other)):
        alone = invjax.invert(keys[lane], code, phi, **SETTINGS)
        np.testing.assert_array_equal(batch.image[lane], alone.image)


def test_each_array_has_a_mask():
    mask = np.zeros((4, 4, 1), np.float32)
    mask[:2] = 1
    result = invert(as_dict, mask={"shallow": mask, "deep": None})
    error = np.square(shallow(result.image) - shallow(IMAGE)).mean((1, 2))
    assert error[:2].mean() < 0.3 * error[2:].mean()
    np.testing.assert_array_equal(
        invert(as_dict, mask=1.0).image, invert(as_dict).image
    )


def test_the_data_term_is_given_one_array_at_a_time():
    def gram_error(code, target, mask):
        del mask
        grams = (jnp.einsum("...i,...j->ij", x, x) for x in (code, target))
        return jnp.mean(jnp.square(jnp.subtract(*grams)))

    result = invert(as_dict, data_term=gram_error, num_steps=40)
    assert float(result.objective) < 0.1 * float(result.history[0])


def test_a_start_is_dead_where_no_pixel_changes_any_array():
    def phi(image):
        return jax.nn.relu(image.mean() - 2), jax.nn.relu(image[0, 0] - 2)

    target = (np.float32(1), np.ones(3, np.float32))
    assert bool(invert(phi, target).dead_start)

    def half(image):
        return jax.nn.relu(image.mean() - 2), image[0, 0]

    assert not bool(invert(half, target).dead_start)


@pytest.mark.parametrize("preset", ["fast", "adam", "ijcv2016", "natural"])
def test_every_preset_inverts_several_arrays(preset):
    result = invert(as_dict, preset=preset, num_steps=8)
    assert np.all(np.isfinite(result.image))
    assert float(result.objective) < float(result.history[0])


def test_samples_of_several_arrays():
    code = as_dict(IMAGE)
    keys = jax.random.split(KEY, 2)
    repelled = repulsion.repel(keys, code, as_dict, **SETTINGS)
    assert repelled.images.shape == (2, *SHAPE)
    samples = mcmc.sample(
        keys, code, as_dict, repelled.images, temperature=1e-4, num_samples=2,
        num_warmup=40,
    )  # fmt: skip
    assert samples.images.shape == (2, 2, *SHAPE)
    assert np.all(np.isfinite(samples.energies))


REFUSED: dict = {
    "one array": (deep(IMAGE), {}, "the code is one array (3,), but"),
    "fewer arrays": ((deep(IMAGE),), {}, "the code is a tuple of [0] (3,), but"),
    "another name": ({"shallow": 1, "depth": 2}, {}, "['depth'] (), ['shallow'] ()"),
    "another shape": (
        {"shallow": np.ones((4, 4, 3)), "deep": np.ones(4)}, {},
        "codes have shape (4,) at ['deep']",
    ),
    "zeros": (
        {"shallow": np.ones((4, 4, 3)), "deep": np.zeros(3)}, {},
        "target code at ['deep'] is zero",
    ),
    "words": ({"shallow": "cat", "deep": np.ones(3)}, {}, "the code is a str"),
    "negative": (None, {"code_weights": {"shallow": -1, "deep": 1}}, "from 0 up"),
    "all zero": (None, {"code_weights": 0.0}, "code_weights are all zero"),
    "one weight": (None, {"code_weights": {"deep": 1}}, "code_weights are not of the"),
    "a list": (None, {"code_weights": [1, 2]}, "code_weights are not of the structure"),
    "mask": (None, {"mask": {"deep": np.ones(3)}}, "mask are not of the structure"),
    "mask's shape": (
        None, {"mask": {"shallow": np.ones((3, 3, 1)), "deep": None}},
        "mask has shape (3, 3, 1), codes have (4, 4, 3)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_in_one_line(case):
    code, settings, words = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        invert(as_dict, code, **settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_weights_are_for_several_arrays():
    with pytest.raises(ValueError, match="code_weights are for codes of several"):
        invert(deep, code_weights=1.0)


def test_lanes_are_counted_alike_in_all_arrays():
    codes = {"shallow": np.ones((2, 4, 4, 3)), "deep": np.ones((3, 3))}
    with pytest.raises(ValueError, match=r"one for each lane, \[l, ...\]"):
        invjax.invert_batch(jax.random.split(KEY, 2), codes, as_dict, **SETTINGS)


def test_what_takes_one_array_says_so():
    with pytest.raises(TypeError, match="returns a dict of .*; one array is accepted"):
        jacobian.num_features(as_dict, IMAGE)


def test_each_lane_has_a_mask():
    keys = jax.random.split(KEY, 2)
    masks = np.zeros((2, 4, 4, 1), np.float32)
    masks[0, :2] = masks[1, 2:] = 1
    codes = np.stack([shallow(IMAGE)] * 2)
    batch = invjax.invert_batch(keys, codes, shallow, mask=masks, **SETTINGS)
    for lane in range(2):
        alone = invjax.invert(
            keys[lane], codes[0], shallow, mask=masks[lane], **SETTINGS
        )
        np.testing.assert_array_equal(batch.image[lane], alone.image)
    with pytest.raises(ValueError, match="one for each of 2 lanes, is accepted"):
        invjax.invert_batch(
            keys, codes, shallow, mask=np.ones((3, 4, 4, 1)), **SETTINGS
        )
    zero = np.stack([masks[0], 0 * masks[0]])
    with pytest.raises(ValueError, match="zero under the mask in lane 1"):
        invjax.invert_batch(keys, codes, shallow, mask=zero, **SETTINGS)
