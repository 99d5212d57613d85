"""Derivatives that look past kinks: values stay exact, gradients are a neighbour's.

A ReLU that is off and a pixel that is not its window's maximum get no gradient, so that
a deep code says nothing about most of an image that is still noise. A relaxed operation
has the exact value and the derivative of a smoother one: of a leaky ReLU, of a pool
that is in part an average. Descents that begin relaxed and end exact reach lower
energies (see experiments/solvers.md); what they minimise is unchanged.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from invjax.types import Scalar


class Relaxation(NamedTuple):
    """How far derivatives are relaxed; zeros are exact.

    Attributes:
      relu_leak: slope where a ReLU is constant.
      pool_spread: share of a pool's gradient that is spread over its whole window.
    """

    relu_leak: Scalar
    pool_spread: Scalar


def full(amount: Scalar) -> Relaxation:
    """`amount`, 0 to 1, of what `fast` begins with (see experiments/solvers.md)."""
    return Relaxation(relu_leak=0.05 * amount, pool_spread=0.4 * amount)


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
