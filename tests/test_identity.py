"""Identities of images and codes are the first 32 bits of a SHA-256."""

import hashlib

import jax
import numpy as np
import pytest

from invjax import identity, images


def noise(height, width, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, 256, (height, width, channels), np.uint8)
    return levels.astype(np.float32) / np.float32(255)


def test_image_id_is_the_head_of_the_sha256():
    image = noise(4, 6)
    pixels = np.rint(image * 255).astype(np.uint8)
    expected = int(hashlib.sha256(pixels.tobytes()).hexdigest()[:8], 16)
    assert images.image_id(image) == expected
    assert type(images.image_id(image)) is int
    # Memory order is not part of an image.
    assert images.image_id(np.asfortranarray(image)) == expected
    assert images.image_id(image[::-1]) != expected


def test_image_id_is_fixed_for_ever():
    assert images.image_id(np.zeros((2, 2, 3), np.float32)) == 0x15EC7BF0


def test_code_id_hashes_float32_bytes():
    code = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    expected = int(hashlib.sha256(code.tobytes()).hexdigest()[:8], 16)
    assert identity.code_id(code) == expected
    assert identity.code_id(np.asfortranarray(code)) == expected
    assert identity.code_id(code.astype(np.float64)) == expected
    assert identity.code_id(code + 1) != expected


def test_keys_are_typed_or_raw():
    typed, raw = jax.random.key(3), jax.random.PRNGKey(3)
    assert identity.one_key(raw) == identity.one_key(typed) == typed
    assert identity.one_key(np.asarray(raw)) == typed
    split = jax.random.split(typed, 3)
    for keys in (split, list(split), tuple(split), jax.random.split(raw, 3)):
        assert (identity.lane_keys(keys, num=3) == split).all()
    assert identity.lane_keys(split[:1]).shape == (1,)


@pytest.mark.parametrize(
    "key",
    [0, 7.0, None, "seed", np.int64(3), np.arange(2), np.zeros(3, np.uint32), [1, 2]],
)
def test_what_is_no_key_is_refused_in_one_line(key):
    for take in (identity.one_key, identity.lane_keys):
        with pytest.raises(TypeError, match="a random key is accepted") as caught:
            take(key)
        assert "\n" not in str(caught.value)
        assert "jax.random.key(0)" in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "num", "words"),
    [
        (jax.random.key(0), 2, "one key; as many keys as codes, 2,"),
        (jax.random.PRNGKey(0), 3, "one key; as many keys as codes, 3,"),
        (jax.random.split(jax.random.key(0), 4), 3, "4 keys; as many keys as codes, 3"),
        (jax.random.key(0), None, "one key; a key for each lane"),
        (jax.random.split(jax.random.key(0), (2, 2)), 4, r"shape \(2, 2\)"),
    ],
)
def test_keys_that_do_not_fit_are_refused_in_one_line(keys, num, words):
    with pytest.raises(ValueError, match=words) as caught:
        identity.lane_keys(keys, num=num)
    assert "\n" not in str(caught.value)


def test_one_key_is_not_several():
    with pytest.raises(ValueError, match="one key is accepted"):
        identity.one_key(jax.random.split(jax.random.key(0), 1))
