"""Layer tables as Flax modules: one image [h, w, c] in, the last activation out.

A table that is cut at a layer (`layers.Network.until`) computes nothing above it.
"""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from invjax.networks.layers import (
    Attention,
    Block,
    Branched,
    ClassToken,
    Concatenation,
    Conv,
    Dense,
    DepthwiseConv,
    Gate,
    GlobalAveragePool,
    Layer,
    LayerNorm,
    LocalResponseNorm,
    MaxPool,
    Pointwise,
    Relu,
    Residual,
    Smooth,
    Tokens,
    branches,
    sides,
)
from invjax.networks.ops import activations as nonlinearities
from invjax.networks.ops import convolution, pooling
from invjax.networks.relaxation import Relaxation


class Stack(nn.Module):
    """A layer table as a module.

    Attributes:
      layers: the table. A layer with weights has a parameter scope of its own name.
      dtype: type of the convolutions and activations; parameters keep theirs.
    """

    layers: tuple[Layer, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, relaxed: Relaxation | None = None) -> Array:
        """Activation of the last layer, for an input [h, w, c], [tokens, c] or [n]."""
        x = x.astype(self.dtype)
        for layer in self.layers:
            x = _apply(layer, x, self.dtype, relaxed)
        return x


class Joined(nn.Module):
    """A layer with branches, which share one parameter scope."""

    layer: Branched
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, relaxed: Relaxation | None = None) -> Array:
        """All branches of x as one activation."""
        ends = []
        for branch in branches(self.layer):
            y = x
            for layer in branch:
                y = _apply(layer, y, self.dtype, relaxed)
            ends.append(y)
        match self.layer:
            case Block():
                return ends[0]
            case Residual():
                return ends[0] + ends[1]
            case Gate():
                return x * jnp.broadcast_to(ends[0], x.shape)
            case Concatenation():
                return jnp.concatenate(ends, axis=-1)


class Embedding(nn.Module):
    """Places as tokens, with a class token and positions; see `layers.Tokens`."""

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "n c"]:
        """All tokens of x."""
        places = x.reshape(-1, x.shape[-1])
        shape = (1 + places.shape[0], places.shape[1])
        positions = self.param("positions", nn.initializers.normal(0.02), shape)
        return jnp.pad(places, ((1, 0), (0, 0))) + jnp.asarray(positions, x.dtype)


class SelfAttention(nn.Module):
    """What each head reads, side by side; see `layers.Attention`."""

    layer: Attention
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Means of the values of all tokens, weighted for each token and head."""
        tokens, channels = x.shape
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (channels, 3 * channels)
        )
        bias = self.param("bias", nn.initializers.zeros_init(), (3 * channels,))
        y = x @ jnp.asarray(kernel, self.dtype) + jnp.asarray(bias, self.dtype)[None]
        heads = y.reshape(tokens, 3, self.layer.heads, -1)
        # JAX's own function adds up in float32 whatever the type of the heads.
        with jax.numpy_dtype_promotion("standard"):
            read = jax.nn.dot_product_attention(heads[:, 0], heads[:, 1], heads[:, 2])
        return read.reshape(tokens, channels)


class Depthwise(nn.Module):
    """A depthwise convolution by `ops.convolution.depthwise_convolution`."""

    layer: DepthwiseConv
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "H W c"]:
        """Every channel of x convolved with its kernel, plus the bias."""
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
    """A convolution of one group by `ops.convolution.strided_convolution`."""

    layer: Conv
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "H W d"]:
        """x convolved with every kernel, plus the bias."""
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
    """Output of one layer; its parameters go to the scope of the calling module."""
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
        case Pointwise(features=features):
            return nn.Dense(features, dtype=dtype, name=layer.name)(x)
        case LayerNorm(epsilon=epsilon):
            normalise = nn.LayerNorm(
                epsilon, dtype=dtype, use_fast_variance=False, name=layer.name
            )
            # Its moments are float32 whatever the type of x, and are promoted.
            with jax.numpy_dtype_promotion("standard"):
                return normalise(x)
        case Tokens():
            return Embedding(name=layer.name)(x)
        case Attention():
            return SelfAttention(layer, dtype, name=layer.name)(x)
        case ClassToken():
            return x[0]
        case Smooth(function=function):
            return nonlinearities.SMOOTH[function](x)
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
        case Block() | Residual() | Gate() | Concatenation():
            return Joined(layer, dtype, name=layer.name)(x, relaxed)


def local_response_norm(
    x: Float[Array, "h w c"], layer: LocalResponseNorm
) -> Float[Array, "h w c"]:
    """x / (kappa + alpha sum x^2)^beta with the constants of a layer.

    Args:
      x: activations, any value range.
      layer: the constants; see `layers.LocalResponseNorm`. Channels before the first
        and after the last count as zero in the sum.

    Raises:
      ValueError: the layer sums over an even number of channels.
    """
    if layer.size % 2 == 0:
        raise ValueError(
            f"layer {layer.name} normalises over {layer.size} channels, and an even "
            "number has no centre; an odd one is accepted"
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
      layers: the table, cut at the layer that is wanted.
      params: {layer: {"kernel": ..., "bias": ...}} for the table's layers; a block has
        a dict of its layers.
      x: preprocessed image, [h, w, c].
      dtype: type of the arithmetic and of the result.
      relaxed: how far derivatives are relaxed; None for exact ones.

    Returns:
      The activation, [h, w, c], [tokens, c], or [n] after a dense layer or a global
      average.
    """
    return cast(Array, Stack(layers, dtype).apply({"params": params}, x, relaxed))


def convolution_outputs(
    layers: tuple[Layer, ...], params: Any, x: Float[Array, "h w c"]
) -> dict[str, Array]:
    """Outputs of all convolutions of a table, those inside blocks included, in float32.

    Args:
      layers: the table.
      params: as in `forward`.
      x: preprocessed image, [h, w, c].

    Returns:
      Name of the convolution, as "conv1" or "block3/expand" -> its output [h, w, c]
      with the bias, before any ReLU.
    """

    def is_convolution(module: nn.Module, method: str) -> bool:
        kinds = nn.Conv | Strided | Depthwise
        return method == "__call__" and isinstance(module, kinds)

    _, state = Stack(layers).apply(
        {"params": params}, x, capture_intermediates=is_convolution
    )
    return {
        "/".join(path[:-1]): outputs[0]
        for path, outputs in traverse_util.flatten_dict(state["intermediates"]).items()
    }


def activations(
    layers: tuple[Layer, ...],
    params: Any,
    x: Float[Array, "h w c"],
    *,
    dtype: DTypeLike = jnp.float32,
    relaxed: Relaxation | None = None,
) -> dict[str, Array]:
    """Activations of all layers of a table.

    Under jit, activations that are not used are not computed.

    Args:
      layers, params, x, dtype, relaxed: as in `forward`.

    Returns:
      Layer -> activation.
    """
    found = {}
    for layer in layers:
        variables = {"params": {layer.name: params.get(layer.name, {})}}
        # Not every activation is [h, w, c], which `forward` takes.
        x = cast(Array, Stack((layer,), dtype).apply(variables, x, relaxed))
        found[layer.name] = x
    return found
