"""DOC: to be written."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from invjax.networks.relaxation import Relaxation


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _leaking_relu(x: Array, leak: Array, ceiling: float | None) -> Array:
    del leak
    return jnp.clip(x, 0, ceiling)


@_leaking_relu.defjvp
def _leaking_relu_jvp(ceiling: float | None, primals: Any, tangents: Any) -> Any:
    x, leak = primals
    y = jnp.clip(x, 0, ceiling)
    # Told from the result, as in `ops.clipped_relu`.
    passes = y > 0 if ceiling is None else (y > 0) & (y < ceiling)
    return y, jnp.where(passes, tangents[0], leak * tangents[0])


def relu(
    x: Float[Array, "..."], relaxation: Relaxation, *, ceiling: float | None = None
) -> Float[Array, "..."]:
    """min(max(x, 0), ceiling), with a slope of `relu_leak` where it is constant."""
    return _leaking_relu(x, jnp.asarray(relaxation.relu_leak, x.dtype), ceiling)


def local_response_norm(
    x: Float[Array, "h w c"],
    *,
    size: int,
    kappa: float,
    alpha: float,
    beta: float,
) -> Float[Array, "h w c"]:
    """x / (kappa + alpha S)^beta, S the sum of x^2 over `size` neighbouring channels.

    Missing neighbours count as zero. The derivative along t, with b = kappa + alpha S,

        b^-beta t - 2 alpha beta x b^(-beta - 1) (sum of x t over the neighbours)

    is written out, since on CPU the automatic one of a sum of shifted slices is slow,
    value and gradient of one image, in ms: 0.6 against 3.3 for CaffeNet's norm1
    (27 x 27 x 96), 8 against 50 for VGG-M's (109 x 109 x 96). Both agree to rounding.
    The form is the same on all backends; only CPU was measured.

    Args:
      x: one image, any value range.
      size: number of channels summed; odd.
      kappa: added to the sum; positive.
      alpha: factor of the sum.
      beta: exponent.
    """
    return _local_response_norm(x, size, kappa, alpha, beta)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _local_response_norm(x, size, kappa, alpha, beta):
    return x * (kappa + alpha * _channel_sums(x * x, size)) ** -beta


@_local_response_norm.defjvp
def _local_response_norm_jvp(size, kappa, alpha, beta, primals, tangents):
    x, tangent = primals[0], tangents[0]
    base = kappa + alpha * _channel_sums(x * x, size)
    factor = base**-beta
    bend = -2 * alpha * beta * x * (factor / base)
    y = x * factor
    return y, factor * tangent + bend * _channel_sums(x * tangent, size)


def _channel_sums(x: Float[Array, "h w c"], size: int) -> Float[Array, "h w c"]:
    """Sums over `size` neighbouring channels, zero beyond the first and last."""
    half = size // 2
    pads = ((0, 0), (0, 0), (half, half))
    zero = np.zeros((), x.dtype)
    return jax.lax.reduce_window(x, zero, jax.lax.add, (1, 1, size), (1, 1, 1), pads)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def clipped_relu(x: Float[Array, "..."], ceiling: float) -> Float[Array, "..."]:
    """min(max(x, 0), ceiling), with derivative 0 at both ends (as PyTorch's ReLU6).

    The derivative is told from the result, which the next layer keeps anyhow. Told from
    the argument, XLA's fusion on CPU would compute a depthwise convolution below once
    again for every tap of its own transpose (half as fast for EfficientNet-Lite0).
    """
    return jnp.clip(x, 0, ceiling)


@clipped_relu.defjvp
def _clipped_relu_jvp(ceiling, primals, tangents):
    y = clipped_relu(primals[0], ceiling)
    return y, jnp.where((y > 0) & (y < ceiling), tangents[0], 0)
