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
from invjax.networks.ops import activations as nonlinearities
from invjax.networks.ops import convolution, pooling
from invjax.networks.relaxation import Relaxation


class Stack(nn.Module):
    """A layer table as a module.

    Attributes:
      layers: the table; each layer with weights names its own parameter scope.
      dtype: of the convolutions and activations. Parameters stay as they are stored.
    """

    layers: tuple[Layer, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, relaxed: Relaxation | None = None) -> Array:
        x = x.astype(self.dtype)
        for layer in self.layers:
            x = _apply(layer, x, self.dtype, relaxed)
        return x


class Sum(nn.Module):
    """A residual layer: both branches in one parameter scope."""

    layer: Residual
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, relaxed: Relaxation | None = None) -> Array:
        ends = []
        for branch in (self.layer.layers, self.layer.shortcut):
            y = x
            for layer in branch:
                y = _apply(layer, y, self.dtype, relaxed)
            ends.append(y)
        return ends[0] + ends[1]


class Depthwise(nn.Module):
    """A depthwise convolution, [h, w, c] -> [H, W, c]."""

    layer: DepthwiseConv
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "H W c"]:
        size, channels = self.layer.kernel, x.shape[-1]
        shape = (size, size, 1, channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        y = convolution.depthwise_convolution(
            x,
            kernel.astype(self.dtype),
            stride=self.layer.stride,
            padding=sides(self.layer.padding),
        )
        return y + bias.astype(self.dtype)[None, None]


class Strided(nn.Module):
    """A convolution with stride and one group, [h, w, c] -> [H, W, d]."""

    layer: Conv
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "H W d"]:
        size, features = self.layer.kernel, self.layer.features
        shape = (size, size, x.shape[-1], features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (features,))
        y = convolution.strided_convolution(
            x,
            jnp.asarray(kernel, self.dtype),
            stride=self.layer.stride,
            padding=sides(self.layer.padding),
        )
        return y + jnp.asarray(bias, self.dtype)[None, None]


def _apply(
    layer: Layer, x: Array, dtype: DTypeLike, relaxed: Relaxation | None
) -> Array:
    """One layer, inside of a compact module, whose scope its parameters go to."""
    match layer:
        case Conv(groups=1, stride=stride) if stride > 1:
            return Strided(layer, dtype, name=layer.name)(x)
        case Conv():
            convolve = nn.Conv(
                layer.features,
                (layer.kernel, layer.kernel),
                strides=layer.stride,
                padding=[sides(layer.padding)] * 2,
                feature_group_count=layer.groups,
                dtype=dtype,
                name=layer.name,
            )
            return convolve(x)
        case DepthwiseConv():
            return Depthwise(layer, dtype, name=layer.name)(x)
        case Relu(ceiling=ceiling) if relaxed is not None:
            return nonlinearities.relu(x, relaxed, ceiling=ceiling)
        case Relu(ceiling=None):
            return nn.relu(x)
        case Relu(ceiling=ceiling):
            return nonlinearities.clipped_relu(x, ceiling)
        case MaxPool(window=window, stride=stride, padding=padding):
            pads = sides(padding)
            if relaxed is None:
                return pooling.max_pool(x, window=window, stride=stride, padding=pads)
            return pooling.spreading_max_pool(
                x, relaxed.pool_spread, window=window, stride=stride, padding=pads
            )
        case GlobalAveragePool():
            return x.mean((0, 1))
        case LocalResponseNorm():
            return local_response_norm(x, layer)
        case Dense(features=features):
            dense = nn.Dense(features, dtype=dtype, name=layer.name)
            return dense(x.reshape(-1))
        case Block(layers=inner):
            return Stack(inner, dtype, name=layer.name)(x, relaxed)
        case Residual():
            return Sum(layer, dtype, name=layer.name)(x, relaxed)


def local_response_norm(
    x: Float[Array, "h w c"], layer: LocalResponseNorm
) -> Float[Array, "h w c"]:
    """See `layers.LocalResponseNorm`; missing neighbours count as zero."""
    if layer.size % 2 == 0:
        raise ValueError(
            f"layer {layer.name}: an even window of channels has no centre"
        )
    return nonlinearities.local_response_norm(
        x, size=layer.size, kappa=layer.kappa, alpha=layer.alpha, beta=layer.beta
    )


def forward(
    layers: tuple[Layer, ...],
    params: Any,
    x: Float[Array, "h w c"],
    *,
    dtype: DTypeLike = jnp.float32,
    relaxed: Relaxation | None = None,
) -> Array:
    """Activation of the last layer of a table.

    Args:
      layers: the table, already cut.
      params: {layer: {"kernel": ..., "bias": ...}} for the table's layers, nested one
        deeper for each block.
      x: preprocessed image, [h, w, c].
      dtype: of the arithmetic; the result has it too.
      relaxed: how far derivatives are relaxed; exact by default.
    """
    return cast(Array, Stack(layers, dtype).apply({"params": params}, x, relaxed))


def activations(
    layers: tuple[Layer, ...], params: Any, x: Float[Array, "h w c"]
) -> dict[str, Array]:
    """Every named activation of a table, in float32; unused ones vanish under jit."""
    found = {}
    for layer in layers:
        variables = {"params": {layer.name: params.get(layer.name, {})}}
        # Above the first dense layer x is a vector, which `forward` does not take.
        x = cast(Array, Stack((layer,)).apply(variables, x))
        found[layer.name] = x
    return found
