"""Identities of images and codes are the first 32 bits of a SHA-256."""

import hashlib

import numpy as np

from invjax import identity


def noise(height, width, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, 256, (height, width, channels), np.uint8)
    return levels.astype(np.float32) / np.float32(255)


def test_image_id_is_the_head_of_the_sha256():
    image = noise(4, 6)
    pixels = np.rint(image * 255).astype(np.uint8)
    expected = int(hashlib.sha256(pixels.tobytes()).hexdigest()[:8], 16)
    assert identity.image_id(image) == expected
    assert type(identity.image_id(image)) is int
    # Memory order is not part of an image.
    assert identity.image_id(np.asfortranarray(image)) == expected
    assert identity.image_id(image[::-1]) != expected


def test_image_id_is_fixed_for_ever():
    assert identity.image_id(np.zeros((2, 2, 3), np.float32)) == 0x15EC7BF0


def test_code_id_hashes_float32_bytes():
    code = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    expected = int(hashlib.sha256(code.tobytes()).hexdigest()[:8], 16)
    assert identity.code_id(code) == expected
    assert identity.code_id(np.asfortranarray(code)) == expected
    assert identity.code_id(code.astype(np.float64)) == expected
    assert identity.code_id(code + 1) != expected
