"""The paper's shallow representations as the registry has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax import callables
from invjax.representations.paper import SHALLOW


@pytest.fixture(scope="module")
def image():
    return jax.random.uniform(jax.random.key(0), (98, 130, 1))


@pytest.mark.parametrize("name", SHALLOW)
def test_the_list_knows_their_geometry(name: str):
    rows = {row.name: row for row in invjax.list_representations()}
    phi = invjax.representation(name)
    assert rows[name].code_shape == callables.code_shape(phi, (224, 224, 1))
    assert rows[name].available


@pytest.mark.parametrize("name", SHALLOW)
def test_a_unit_sees_its_receptive_field(name: str, image):
    phi = SHALLOW[name]
    code = phi(image)
    row, column = code.shape[0] // 2, code.shape[1] // 2
    weights = jax.random.normal(jax.random.key(1), code.shape[-1:])

    def unit(image):
        return jnp.sum(weights * phi(image)[row, column])

    support = np.argwhere(np.abs(jax.grad(unit)(image)[..., 0]) > 0)
    sides = np.ptp(support, axis=0) + 1
    field = phi.geometry.receptive_field
    assert np.all(sides <= field) and np.all(sides >= field - 2), sides


@pytest.mark.parametrize("name", SHALLOW)
@pytest.mark.parametrize("shape", [(3, 4), (5, 3)])
def test_the_smallest_image_of_a_code(name: str, shape: tuple[int, int]):
    phi = SHALLOW[name]
    height, width, channels = phi.smallest_image((*shape, 1))
    assert callables.code_shape(phi, (height, width, channels))[:2] == shape
    for smaller in ((height - 1, width, 1), (height, width - 1, 1)):
        assert callables.code_shape(phi, smaller)[:2] != shape


def test_they_are_arguments_of_compiled_functions(image):
    apply = jax.jit(lambda phi, image: phi(image))
    for phi in SHALLOW.values():
        np.testing.assert_allclose(apply(phi, image), phi(image), atol=1e-4)


def test_grey_of_colour_is_the_papers():
    photograph = jax.random.uniform(jax.random.key(2), (64, 64, 3))
    grey = photograph @ jnp.array([[0.2989], [0.5870], [0.1140]])
    phi = invjax.representation("hogb")
    np.testing.assert_allclose(phi(photograph), phi(grey), atol=1e-4)


def test_inverts_to_a_grey_image(image, key):
    phi = invjax.representation("dsift")
    code = phi(image)
    result = invjax.invert(key, code, phi, image_shape=image.shape, num_steps=100)
    error = jnp.linalg.norm(phi(result.image) - code) / jnp.linalg.norm(code)
    assert result.image.shape == image.shape
    assert float(error) < 0.3
