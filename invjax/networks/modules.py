"""Flax form of the layer tables.

One image [h, w, c] in, the last layer's activation out. Compute a shorter table to get
an earlier layer: what is not in the table costs nothing.
"""

from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from invjax.networks import layers as tables


class Stack(nn.Module):
    """A layer table as a module.

    Attributes:
      layers: the table; each layer with weights names its own parameter scope.
      dtype: of the convolutions and activations. Parameters stay as they are stored.
    """

    layers: tuple[tables.Layer, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Array:
        x = x.astype(self.dtype)
        for layer in self.layers:
            match layer:
                case tables.Conv():
                    x = nn.Conv(
                        layer.features,
                        (layer.kernel, layer.kernel),
                        strides=layer.stride,
                        padding=layer.padding,
                        feature_group_count=layer.groups,
                        dtype=self.dtype,
                        name=layer.name,
                    )(x)
                case tables.Relu():
                    x = nn.relu(x)
                case tables.MaxPool(window=window, stride=stride, padding=padding):
                    x = nn.max_pool(
                        x,
                        (window, window),
                        strides=(stride, stride),
                        padding=((padding, padding), (padding, padding)),
                    )
                case tables.Dense(features=features):
                    dense = nn.Dense(features, dtype=self.dtype, name=layer.name)
                    x = dense(x.reshape(-1))
        return x


def forward(
    layers: tuple[tables.Layer, ...],
    params: Any,
    x: Float[Array, "h w c"],
    *,
    dtype: DTypeLike = jnp.float32,
) -> Array:
    """Activation of the last layer of a table.

    Args:
      layers: the table, already cut.
      params: {layer: {"kernel": ..., "bias": ...}} for the table's layers.
      x: preprocessed image, [h, w, c].
      dtype: of the arithmetic; the result has it too.
    """
    return cast(Array, Stack(layers, dtype).apply({"params": params}, x))


def activations(
    layers: tuple[tables.Layer, ...], params: Any, x: Float[Array, "h w c"]
) -> dict[str, Array]:
    """Every named activation of a table, in float32; unused ones vanish under jit."""
    found = {}
    for layer in layers:
        x = forward((layer,), {layer.name: params.get(layer.name, {})}, x)
        found[layer.name] = x
    return found
