"""Equinox models as representations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import invjax
from tests.representations.bridges.cutting import distance, picture

equinox: Any = pytest.importorskip("equinox", reason="needs Equinox")
SHAPE = (16, 16, 3)


def _net(key: Any) -> Any:
    class Net(equinox.Module):
        stem: Any
        norm: Any
        dropout: Any
        mlp: Any

        def __init__(self, key: Any) -> None:
            self.stem = equinox.nn.Conv2d(3, 6, 3, stride=2, padding=1, key=key)
            self.norm = equinox.nn.BatchNorm(6, "batch", mode="batch")
            self.dropout = equinox.nn.Dropout(0.5)
            self.mlp = equinox.nn.MLP(6, 5, 8, 1, key=key)

        def __call__(self, x: Array, state: Any) -> Any:
            x, state = self.norm(self.stem(x), state)
            tokens = jax.nn.relu(self.dropout(x)).reshape(6, -1).T
            return jax.vmap(self.mlp)(tokens), state

    return equinox.nn.make_with_state(Net)(key)


@pytest.fixture(scope="module")
def net() -> Any:
    return _net(jax.random.key(0))


def test_layers_are_cut_by_their_path(net: Any):
    model, state = net
    phi = invjax.from_equinox(model, state=state, layer="stem", image_shape=SHAPE)
    image = picture(SHAPE)
    wanted = model.stem(jnp.asarray(image.transpose(2, 0, 1), float))
    assert distance(phi(image), wanted) < 1e-6
    assert phi.geometry == ("stem", (6, 8, 8), 3, 2)
    assert sorted(phi.weights) == ["0.stem.bias", "0.stem.weight"]


def test_evaluation_mode_is_used_and_the_model_is_left_as_it_is(net: Any):
    model, state = net
    phi = invjax.from_equinox(model, state=state, image_shape=SHAPE)
    image = picture(SHAPE)
    evaluated = equinox.nn.inference_mode(model)
    wanted, _ = evaluated(jnp.asarray(image.transpose(2, 0, 1), float), state)
    assert distance(phi(image), wanted) < 1e-6
    code, gradient = phi.parity
    assert code < 1e-5 and gradient is not None and gradient < 1e-5
    assert not model.dropout.inference
    assert type(model.stem) is equinox.nn.Conv2d


def test_layers_inside_of_vmap_are_cut(net: Any):
    model, state = net
    phi = invjax.from_equinox(
        model, state=state, layer="mlp.layers.0", image_shape=SHAPE
    )
    assert phi.geometry.shape == (64, 8) and phi.has_places
    rows = invjax.equinox_layers(model, state=state, image_shape=SHAPE)
    assert {"stem", "norm", "mlp.layers.1"} <= {row.name for row in rows}


def test_what_is_refused_is_said_in_one_line(net: Any):
    model, state = net
    with pytest.raises(ValueError, match="no layer 'stm'; close are stem"):
        invjax.from_equinox(model, state=state, layer="stm", image_shape=SHAPE)
    with pytest.raises(ValueError, match="with layout='CHW' it can"):
        invjax.from_equinox(model, state=state, image_shape=SHAPE, layout="HWC")
    with pytest.raises(ValueError, match="takes an equinox.Module, not a ndarray"):
        invjax.from_equinox(np.zeros(3), image_shape=SHAPE)
