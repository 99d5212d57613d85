"""Derivatives that look past kinks: values stay exact, gradients are a neighbour's.

A ReLU that is off and a pixel that is not its window's maximum get no gradient, so that
a deep code says nothing about most of an image that is still noise. A relaxed operation
has the exact value and the derivative of a smoother one: of a leaky ReLU, of a pool
that is in part an average. Descents that begin relaxed and end exact reach lower
energies (see "Solvers" in experiments/README.md); what they minimise is unchanged.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from invjax import ops
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
    """As far as `amount`, 0 to 1, of what served best on AlexNet and VGG16."""
    return Relaxation(relu_leak=0.05 * amount, pool_spread=0.8 * amount)


@jax.custom_jvp
def with_derivative_of(value: Any, surrogate: Any) -> Any:
    """`value`, with the derivative of `surrogate`; both of one shape."""
    del surrogate
    return value


@with_derivative_of.defjvp
def _with_derivative_of_jvp(primals: Any, tangents: Any) -> Any:
    return primals[0], tangents[1]


def relu(
    x: Float[Array, "..."], relaxation: Relaxation, *, ceiling: float | None = None
) -> Float[Array, "..."]:
    """min(max(x, 0), ceiling), with a slope of `relu_leak` where it is constant."""
    y = jnp.clip(x, 0, ceiling)
    leak = jnp.asarray(relaxation.relu_leak, x.dtype)
    return with_derivative_of(y, y + leak * (x - y))


def max_pool(
    x: Float[Array, "h w c"],
    relaxation: Relaxation,
    *,
    window: int,
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "H W c"]:
    """`ops.max_pool`, with `pool_spread` of its gradient from the window's mean."""
    y = ops.max_pool(x, window=window, stride=stride, padding=padding)
    mean = ops.mean_pool(x, window=window, stride=stride, padding=padding)
    spread = jnp.asarray(relaxation.pool_spread, x.dtype)
    return with_derivative_of(y, (1 - spread) * y + spread * mean)
