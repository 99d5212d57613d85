"""The energy of one lane (CVPR 2015, equations 1 to 4).

    E(z) = |M (phi(z) - phi0)|^2 / |M phi0|^2
           + lambda_alpha R_alpha(z / sigma) + lambda_V R_TV^beta(z / sigma)

The variable z is the image in grey levels minus a centre, so that zero is a natural
grey: image = (z + centre) / 255. sigma is the unit of x = z / sigma, the mean norm of
a 227 x 227 photograph; it never depends on the size of the image at hand.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from invjax import priors
from invjax.types import Code, DataTerm, Image, Representation, Scalar

SIGMA = 27098.11571533203


class Problem(NamedTuple):
    """What a lane is asked to solve; every number here is traced.

    Attributes:
      target: the code phi0.
      mask: M, broadcast against the code; ones where every feature counts.
      tv_weight: lambda_V.
      alpha_weight: lambda_alpha.
      centre: grey levels (0 to 255) at z = 0: scalar, per channel or per pixel.
      learning_rate: of the solver, in its own units.
    """

    target: Code
    mask: Float[Array, "..."]
    tv_weight: Scalar
    alpha_weight: Scalar
    centre: Float[Array, "..."]
    learning_rate: Scalar


class Terms(NamedTuple):
    """Summands of the energy, weights included."""

    data: Scalar
    alpha: Scalar
    tv: Scalar


@dataclasses.dataclass(frozen=True)
class Exponents:
    """The regularisers' exponents; the papers' inversions all use these."""

    alpha: int = 6
    beta: float = 2.0


def squared_error(code: Code, target: Code, mask: Float[Array, "..."]) -> Scalar:
    """|M (code - target)|^2 / |M target|^2, the paper's data term."""
    return jnp.sum((mask * (code - target)) ** 2) / jnp.sum((mask * target) ** 2)


def to_image(z: Image, centre: Float[Array, "..."]) -> Image:
    """Grey levels around `centre` -> the range of representations, [0, 1]."""
    return (z + jnp.broadcast_to(centre, z.shape)) / 255


def to_variable(image: Image, centre: Float[Array, "..."]) -> Image:
    """The reverse of `to_image`."""
    return 255 * image - jnp.broadcast_to(centre, image.shape)


def energy(
    z: Image,
    phi: Representation,
    problem: Problem,
    *,
    exponents: Exponents = Exponents(),  # noqa: B008 (frozen)
    data_term: DataTerm = squared_error,
) -> tuple[Scalar, Terms]:
    """The energy of z and its summands.

    Args:
      z: [h, w, c], grey levels minus the centre.
      phi: the representation.
      problem: target, mask, weights and centre.
      exponents: alpha and beta of the regularisers.
      data_term: how far a code is from the target.

    Returns:
      The total, and the three weighted terms it is the sum of; float32.
    """
    code = phi(to_image(z, problem.centre)).astype(problem.target.dtype)
    x = z / SIGMA
    terms = Terms(
        data=data_term(code, problem.target, problem.mask),
        alpha=problem.alpha_weight * priors.alpha_norm(x, alpha=exponents.alpha),
        tv=problem.tv_weight * priors.total_variation(x, beta=exponents.beta),
    )
    return terms.data + terms.alpha + terms.tv, terms
