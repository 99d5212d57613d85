"""The split of colour from brightness."""

import jax.numpy as jnp
import numpy as np
import pytest

from invjax.images import colour


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(size=(6, 7, 3)).astype(np.float32)


def test_energies_add_up(image):
    parts = colour.opponent(image)
    np.testing.assert_allclose(jnp.sum(parts**2), np.sum(image**2), rtol=1e-5)


def test_grey_has_no_chroma(image):
    grey = image[..., :1]
    found = colour.opponent(grey)
    np.testing.assert_allclose(found[..., 1:], 0, atol=1e-7)
    np.testing.assert_allclose(found[..., 0], np.sqrt(3) * grey[..., 0], rtol=1e-6)


def test_known_colours():
    red, yellow = (np.array([[c]], np.float32) for c in ((1, 0, 0), (1, 1, 0)))
    root = np.sqrt([3, 2, 6])
    np.testing.assert_allclose(colour.opponent(red)[0, 0], 1 / root, rtol=1e-6)
    np.testing.assert_allclose(
        colour.opponent(yellow)[0, 0], [2, 0, 2] / root, atol=1e-6
    )


def test_the_parts_make_the_image(image):
    luminance, chroma = colour.luminance_only(image), colour.chroma_only(image)
    np.testing.assert_allclose(luminance + chroma - image.mean(), image, atol=1e-6)
    np.testing.assert_allclose(colour.opponent(luminance)[..., 1:], 0, atol=1e-6)
    np.testing.assert_allclose(
        colour.opponent(chroma)[..., 0], np.sqrt(3) * image.mean(), rtol=1e-5
    )


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="accepted"):
        colour.opponent(np.zeros((4, 4, 2)))
    with pytest.raises(ValueError, match="accepted"):
        colour.luminance_only(np.zeros((4, 4)))
