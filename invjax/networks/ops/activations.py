"""Nonlinearities with written-out derivatives: ReLUs, local response normalisation.

Values agree with the plain formulas to rounding. The derivatives are written out
because XLA makes slower code of the automatic ones:

* `clipped_relu` and `relu` compute the derivative from the output, which the next layer
  keeps in any case. If it is computed from the input, XLA's fusion on CPU computes a
  depthwise convolution below the ReLU again for every tap of its own transpose, and
  EfficientNet-Lite0 is half as fast.
* `local_response_norm` has the formula of its derivative, since on CPU the automatic
  derivative of a sum of shifted slices is slow. Value and gradient of one image on CPU:

      | layer | size | automatic | written out |
      |---|---|---|---|
      | CaffeNet norm1 | 27 x 27 x 96 | 3.3 ms | 0.6 ms |
      | VGG-M norm1 | 109 x 109 x 96 | 50 ms | 8 ms |

  The form is the same on all backends; only CPU was measured.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from invjax.networks.relaxation import Relaxation


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def clipped_relu(x: Float[Array, "..."], ceiling: float) -> Float[Array, "..."]:
    """min(max(x, 0), ceiling), with derivative 0 at both ends, as PyTorch's ReLU6 has.

    Args:
      x: array of any shape and value range.
      ceiling: largest output; positive.

    Examples:
      >>> clipped_relu(jnp.array([-1.0, 3.0, 7.0]), 6.0)
      Array([0., 3., 6.], dtype=float32)
    """
    return jnp.clip(x, 0, ceiling)


@clipped_relu.defjvp
def _clipped_relu_jvp(ceiling: float, primals: Any, tangents: Any) -> Any:
    y = clipped_relu(primals[0], ceiling)
    # From the output rather than the input; see the top of this module.
    return y, jnp.where((y > 0) & (y < ceiling), tangents[0], 0)


def relu(
    x: Float[Array, "..."], relaxation: Relaxation, *, ceiling: float | None = None
) -> Float[Array, "..."]:
    """min(max(x, 0), ceiling), with the derivative of a leaky ReLU.

    Args:
      x: array of any shape and value range.
      relaxation: its `relu_leak`, which is traced, is the derivative where the output
        is constant.
      ceiling: largest output; None for no limit.

    Examples:
      >>> leaky = Relaxation(jnp.float32(0.1), jnp.float32(0.0))
      >>> jax.grad(lambda x: relu(x, leaky))(jnp.float32(-2))
      Array(0.1, dtype=float32)
    """
    return _leaking_relu(x, jnp.asarray(relaxation.relu_leak, x.dtype), ceiling)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _leaking_relu(x: Array, leak: Array, ceiling: float | None) -> Array:
    del leak
    return jnp.clip(x, 0, ceiling)


@_leaking_relu.defjvp
def _leaking_relu_jvp(ceiling: float | None, primals: Any, tangents: Any) -> Any:
    x, leak = primals
    y = jnp.clip(x, 0, ceiling)
    # From the output rather than the input; see the top of this module.
    passes = y > 0 if ceiling is None else (y > 0) & (y < ceiling)
    return y, jnp.where(passes, tangents[0], leak * tangents[0])


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x sigmoid(1.702 x), CLIP's approximation of GELU.

    Examples:
      >>> [round(float(quick_gelu(jnp.float32(x))), 3) for x in (-1, 0, 1)]
      [-0.154, 0.0, 0.846]
    """
    return x * jax.nn.sigmoid(1.702 * x)


def hard_sigmoid(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """min(max(x + 3, 0), 6) / 6.

    Examples:
      >>> hard_sigmoid(jnp.array([-4.0, 0.0, 3.0]))
      Array([0. , 0.5, 1. ], dtype=float32)
    """
    return clipped_relu(x + 3, 6.0) / 6


def hard_swish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x min(max(x + 3, 0), 6) / 6."""
    return x * hard_sigmoid(x)


SMOOTH: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "quick_gelu": quick_gelu,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": hard_swish,
}
"""Nonlinearities by the names in `layers.Smooth`."""


def local_response_norm(
    x: Float[Array, "h w c"],
    *,
    size: int,
    kappa: float,
    alpha: float,
    beta: float,
) -> Float[Array, "h w c"]:
    """x / (kappa + alpha S)^beta, S the sum of x^2 over `size` neighbouring channels.

    Channels before the first and after the last count as zero. The derivative along t,
    with b = kappa + alpha S, is

        b^-beta t - 2 alpha beta x b^(-beta - 1) (sum of x t over the neighbours).

    This is MatConvNet's form; Caffe and PyTorch divide their alpha by `size`.

    Args:
      x: activations, any value range.
      size: number of channels in a sum; odd.
      kappa: added to the sum; positive.
      alpha: factor of the sum.
      beta: exponent.

    Examples:
      >>> x = jnp.array([[[4.0, 0.0]]])
      >>> local_response_norm(x, size=3, kappa=9.0, alpha=1.0, beta=0.5).round(3)
      Array([[[0.8, 0. ]]], dtype=float32)
    """
    return _local_response_norm(x, size, kappa, alpha, beta)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _local_response_norm(
    x: Array, size: int, kappa: float, alpha: float, beta: float
) -> Array:
    return x * (kappa + alpha * _channel_sums(x * x, size)) ** -beta


@_local_response_norm.defjvp
def _local_response_norm_jvp(
    size: int, kappa: float, alpha: float, beta: float, primals: Any, tangents: Any
) -> Any:
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
