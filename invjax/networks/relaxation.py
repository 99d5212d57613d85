"""Derivatives that look past kinks: values stay exact, gradients are a neighbour's.

A ReLU that is off and a pixel that is not its window's maximum get no gradient, so that
a deep code says nothing about most of an image that is still noise. A relaxed operation
has the exact value and the derivative of a smoother one: of a leaky ReLU, of a pool
that is in part an average. Descents that begin relaxed and end exact reach lower
energies (see experiments/solvers.md); what they minimise is unchanged.
"""

from typing import NamedTuple

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
