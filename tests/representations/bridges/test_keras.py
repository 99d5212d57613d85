"""Keras models, on the JAX backend, as representations."""

import os
import sys
from typing import Any

import jax
import numpy as np
import pytest

import invjax
from tests.representations.bridges.cutting import distance, picture

if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "jax"
keras: Any = pytest.importorskip("keras", reason="needs Keras")
SHAPE = (16, 16, 3)


@pytest.fixture(scope="module")
def net() -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inner = keras.Sequential(
        [layers.DepthwiseConv2D(3, name="conv"), layers.ReLU(6.0, name="relu")],
        name="inner",
    )
    x = given = keras.Input(SHAPE)
    x = layers.Conv2D(6, 3, strides=2, padding="same", name="stem")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.MaxPooling2D(2, name="pool")(inner(x))
    x = layers.Dropout(0.5, name="dropout")(layers.Flatten()(x))
    return keras.Model(given, layers.Dense(4, name="head")(x), name="net")


@pytest.mark.parametrize(
    ("layer", "geometry"),
    [
        ("stem", ((8, 8, 6), 3, 2)),
        ("inner/conv", ((6, 6, 6), 7, 2)),
        ("pool", ((3, 3, 6), 9, 4)),
        ("head", ((4,), 16, 16)),
    ],
)
def test_layers_are_cut_by_their_name(net: Any, layer: str, geometry: Any):
    phi = invjax.from_keras(net, layer=layer, image_shape=SHAPE, mean=0.5, std=0.5)
    image = picture(SHAPE)
    x = 2 * image[None] - 1
    with jax.numpy_rank_promotion("allow"):
        for part in (*net.layers[1:3], *net.get_layer("inner").layers, *net.layers[4:]):
            x = part(x, training=False) if part.name == "norm" else part(x)
            if part.name == layer.split("/")[-1]:
                break
    assert part.name == layer.split("/")[-1]
    wanted = np.asarray(x)[0]
    assert distance(phi(image), wanted) < 1e-5
    assert phi.geometry[1:] == geometry
    assert phi.has_places == (layer != "head")


def test_subclassed_models_and_those_without_a_mode():
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [keras.layers.Conv2D(4, 3, name=f"conv{n}") for n in (1, 2)]

        def call(self, x: Any) -> Any:
            for part in self.parts:
                x = part(x)
            return x

    net, image = Net(), picture(SHAPE)
    with pytest.raises(ValueError, match="is not built; call it once on an image"):
        invjax.from_keras(net, image_shape=SHAPE)
    wanted = np.asarray(net(image[None]))[0]
    phi = invjax.from_keras(net, layer="conv2", image_shape=SHAPE)
    assert distance(phi(image), wanted) < 1e-6


def test_layers_are_listed_and_left_as_they_are(net: Any):
    call = keras.layers.Layer.__call__
    rows = invjax.keras_layers(net, image_shape=SHAPE)
    assert ("inner/relu", "ReLU", (6, 6, 6)) in rows
    assert keras.layers.Layer.__call__ is call


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "conv"}, "no layer 'conv'; close are inner/conv"),
        ({"image_shape": (16, 16, 1)}, r"cannot be computed for image_shape"),
    ],
)
def test_what_is_refused_is_said_in_one_line(net: Any, options: Any, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        invjax.from_keras(net, **({"image_shape": SHAPE} | options))
    assert "\n" not in str(caught.value)


def test_other_backends_are_refused(net: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="'tensorflow'; .* KERAS_BACKEND=jax"):
        invjax.from_keras(net, image_shape=SHAPE)
