"""Networks of stock operations alone, to measure what `invjax.networks.ops` gains.

The same layer tables and weights as in `invjax.networks.modules`, computed by what a
Flax or JAX user would write first.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAveragePool,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Relu,
    Residual,
    sides,
)
from invjax.representations.cnn import CnnRepresentation
from invjax.types import Code, Image


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["phi"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True, eq=False)
class StockRepresentation:
    """The representation `phi`, computed by stock operations."""

    phi: CnnRepresentation

    def __call__(self, image: Image) -> Code:
        phi = self.phi
        centre = jnp.broadcast_to(phi.centre, image.shape)
        x = (255 * image - centre) / jnp.broadcast_to(phi.scale, image.shape)
        dtype = jnp.dtype(phi.compute_dtype)
        code = _forward(phi.layers, phi.params, x.astype(dtype), dtype)
        return code.astype(image.dtype)


def max_pool(
    x: Float[Array, "h w c"], *, window: int, stride: int, padding: tuple[int, int]
) -> Float[Array, "H W c"]:
    """Flax's max-pooling, which is `lax.reduce_window`."""
    return nn.max_pool(x, (window, window), (stride, stride), (padding, padding))


def local_response_norm(
    x: Float[Array, "h w c"], *, size: int, kappa: float, alpha: float, beta: float
) -> Float[Array, "h w c"]:
    """Local response normalisation by shifted slices, differentiated by JAX."""
    half, channels = size // 2, x.shape[-1]
    squares = jnp.pad(x * x, ((0, 0), (0, 0), (half, half)))
    total = sum(squares[..., i : i + channels] for i in range(size))
    return x / (kappa + alpha * total) ** beta


def _forward(
    layers: tuple[Layer, ...], params: Any, x: Array, dtype: DTypeLike
) -> Array:
    for layer in layers:
        x = _apply(layer, params.get(layer.name, {}), x, dtype)
    return x


def _apply(layer: Layer, params: Any, x: Array, dtype: DTypeLike) -> Array:
    match layer:
        case Conv() | DepthwiseConv():
            groups = layer.groups if isinstance(layer, Conv) else x.shape[-1]
            y = jax.lax.conv_general_dilated(
                x[None],
                params["kernel"].astype(dtype),
                window_strides=(layer.stride, layer.stride),
                padding=[sides(layer.padding)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )[0]
            return y + params["bias"].astype(dtype)[None, None]
        case Relu(ceiling=None):
            return nn.relu(x)
        case Relu(ceiling=ceiling):
            return jnp.clip(x, 0, ceiling)
        case MaxPool(window=window, stride=stride, padding=padding):
            pads = sides(padding)
            return max_pool(x, window=window, stride=stride, padding=pads)
        case GlobalAveragePool():
            return x.mean((0, 1))
        case LocalResponseNorm():
            return local_response_norm(
                x,
                size=layer.size,
                kappa=layer.kappa,
                alpha=layer.alpha,
                beta=layer.beta,
            )
        case Dense():
            y = x.reshape(-1) @ params["kernel"].astype(dtype)
            return y + params["bias"].astype(dtype)
        case Block(layers=inner):
            return _forward(inner, params, x, dtype)
        case Residual(layers=inner, shortcut=shortcut):
            kept = _forward(shortcut, params, x, dtype)
            return _forward(inner, params, x, dtype) + kept
    raise ValueError(f"layer {layer.name} has no stock form here")
