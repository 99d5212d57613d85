"""Layers of networks as representations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax import callables
from invjax.networks import NETWORKS
from invjax.networks.weights import pretrained
from invjax.representations.cnn import CnnRepresentation
from tests.conftest import MICRO, micro_representation

LAYERS = MICRO.layer_names


@pytest.fixture
def image():
    return jax.random.uniform(jax.random.key(4), (32, 32, 3))


@pytest.mark.parametrize("layer", LAYERS)
def test_shape_is_as_the_table_says(layer, image):
    phi = micro_representation(layer)
    assert phi(image).shape == phi.geometry.shape
    assert phi.name == f"micro/{layer}"


@pytest.mark.parametrize("layer", LAYERS)
def test_jit_and_vmap_change_rounding_only(layer, image):
    phi = micro_representation(layer)
    images = jnp.stack([image, image[::-1], 0.5 * image])
    loop = jnp.stack([phi(one) for one in images])
    np.testing.assert_allclose(jax.vmap(phi)(images), loop, atol=1e-5)
    np.testing.assert_allclose(jax.jit(phi)(image), loop[0], atol=1e-5)
    np.testing.assert_allclose(callables.encode(phi, image), loop[0], atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_gradient_of_a_flat_image_is_finite(layer):
    phi = micro_representation(layer)
    flat = jnp.full((32, 32, 3), 0.5, jnp.float32)
    gradient = jax.grad(lambda x: jnp.sum(phi(x) ** 2))(flat)
    assert np.all(np.isfinite(gradient))
    assert gradient.dtype == jnp.float32


def test_gradient_agrees_with_differences(image):
    phi = micro_representation("fc3")
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), phi)
        wide = CnnRepresentation(**{**_fields(wide), "compute_dtype": "float64"})
        point = jnp.asarray(image, jnp.float64)
        direction = jnp.asarray(np.random.default_rng(0).normal(size=point.shape))

        def value(x):
            return jnp.sum(wide(x) ** 2)

        step = 1e-7
        expected = (
            value(point + step * direction) - value(point - step * direction)
        ) / (2 * step)
        found = jnp.sum(jax.grad(value)(point) * direction)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_bfloat16_is_coarser_and_returns_float32(image):
    phi = micro_representation("relu2")
    coarse = CnnRepresentation(**{**_fields(phi), "compute_dtype": "bfloat16"})
    image = image.astype(jnp.float32)
    fine_code, coarse_code = phi(image), coarse(image)
    assert coarse_code.dtype == jnp.float32
    error = jnp.linalg.norm(fine_code - coarse_code) / jnp.linalg.norm(fine_code)
    assert 1e-4 < float(error) < 3e-2


def test_only_what_is_below_the_cut_is_kept():
    assert set(micro_representation("pool1").params) == {"conv1"}
    assert set(micro_representation("fc3").params) == {"conv1", "conv2", "fc3"}


def test_nothing_above_the_cut_is_computed():
    phi = jax.jit(micro_representation("relu1")).lower(jnp.zeros((32, 32, 3)))
    assert phi.as_text().count("stablehlo.convolution") == 1


def test_grey_images_are_refused():
    with pytest.raises(ValueError, match="RGB"):
        micro_representation("relu1")(jnp.zeros((32, 32, 1)))


def test_integers_are_refused():
    with pytest.raises(ValueError, match="floats"):
        micro_representation("relu1")(jnp.zeros((32, 32, 3), jnp.uint8))


def test_sizes_that_do_not_fit_are_refused():
    assert micro_representation("relu2")(jnp.zeros((64, 48, 3))).shape == (15, 11, 12)
    with pytest.raises(ValueError, match="dense layers"):
        micro_representation("fc3")(jnp.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match="pool1"):
        micro_representation("relu2")(jnp.zeros((4, 4, 3)))


def test_unknown_names_say_what_is_known():
    with pytest.raises(ValueError, match="alexnet"):
        invjax.representation("resnet9000/relu3")
    if pretrained.available(NETWORKS["alexnet"]):
        with pytest.raises(ValueError, match="relu3"):
            invjax.representation("alexnet/relu17")


def test_the_list_has_every_layer_of_every_network():
    rows = {row.name: row for row in invjax.list_representations()}
    for network in NETWORKS.values():
        for layer in network.layer_names:
            assert f"{network.name}/{layer}" in rows
    row = rows["alexnet/pool5"]
    assert (row.code_shape, row.receptive_field, row.stride) == ((6, 6, 256), 195, 32)
    assert not rows["alexnet/fc8"].available


def _fields(phi: CnnRepresentation) -> dict:
    return {name: getattr(phi, name) for name in phi.__dataclass_fields__}
