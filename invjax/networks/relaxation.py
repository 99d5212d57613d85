"""How far the derivatives of ReLUs and max-pools are relaxed; values stay exact.

A ReLU that is off and a pixel that is not the maximum of its pooling window pass no
gradient, so most pixels of a noisy start get no gradient from a deep code. A relaxed
operation (`ops.activations.relu`, `ops.pooling.spreading_max_pool`) has the exact value
and the derivative of a smoother function: a leaky ReLU, or a pool that is partly an
average. Descents that begin relaxed and end exact reach lower energies (measured in
experiments/solvers.md), and the energy they minimise is the same.
"""

from typing import NamedTuple

from invjax.types import Scalar


class Relaxation(NamedTuple):
    """How far derivatives are relaxed; with zeros they are exact.

    Attributes:
      relu_leak: derivative of a ReLU where its output is constant, 0 to 1.
      pool_spread: fraction of a max-pool's derivative, 0 to 1, that is divided evenly
        over the whole window.
    """

    relu_leak: Scalar
    pool_spread: Scalar

    @classmethod
    def of(cls, amount: Scalar) -> "Relaxation":
        """The relaxation at a fraction of its full strength.

        At full strength, with which the preset `fast` begins, ReLUs leak 0.05 and pools
        spread 0.4 of their derivative (chosen in experiments/solvers.md).

        Args:
          amount: 0 (exact derivatives) to 1 (full strength).

        Examples:
          >>> import jax.numpy as jnp
          >>> Relaxation.of(jnp.float32(0.5)).relu_leak
          Array(0.025, dtype=float32)
        """
        return cls(relu_leak=0.05 * amount, pool_spread=0.4 * amount)
