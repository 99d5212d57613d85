"""What a lane minimises: the energies of the two papers.

CVPR 2015, equations 1 to 4, `energy`:

    E(z) = |M (phi(z) - phi0)|^2 / |M phi0|^2
           + lambda_alpha R_alpha(z / sigma) + lambda_V R_TV^beta(z / sigma)

IJCV 2016, `ijcv_energy`, B = 80 and V = B / 6.5:

    E(z) = C |M (phi(z) - phi0)|^2 / |M phi0|^2
           + 1 / (H W B^alpha) sum |colour of z|^alpha + 1 / (H W V^beta) R_TV^beta(z)

The variable z is the image in grey levels minus a centre, so that zero is a natural
grey: image = (z + centre) / 255. sigma is the unit of x = z / sigma, the mean norm of
a 227 x 227 photograph; it never depends on the size of the image at hand.

Where `PerLane.chroma_weight` is given, which no paper has, R_TV is that of the image
whose distances from grey are multiplied by its square root.

The first term is the data term. Besides `squared_error` there are those of activation
maximisation and caricature (IJCV 2016), and any function
(code, target, mask) -> scalar may take its place.

A code may have several arrays, such as those of several layers, which no paper has. The
data term is then the sum of those of the arrays, each by itself and with a weight of
its own, so that an array counts alike whatever its size and scale.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from invjax.inversion import regularisers
from invjax.inversion.canvas import Canvas
from invjax.types import (
    Code,
    DataTerm,
    Features,
    Image,
    Representation,
    Scalar,
)

SIGMA = 27098.11571533203

IJCV_NORM = 80.0
"""B: the norm of a typical colour vector around the mean colour, grey levels."""

IJCV_GRADIENT = IJCV_NORM / 6.5
"""V: the length of a typical difference between neighbours, grey levels."""


class IjcvWeights(NamedTuple):
    """Factors of the IJCV objective's three terms.

    Attributes:
      data: C, the factor of the data term.
      alpha: factor of the mean over pixels of |colour|^alpha; B^-alpha in the paper.
      tv: factor of R_TV^beta divided by the number of pixels; V^-beta in the paper.
    """

    data: Scalar
    alpha: Scalar
    tv: Scalar


class Shared(NamedTuple):
    """What the lanes of a batch have in common.

    Attributes:
      centre: grey levels (0 to 255) at z = 0: a scalar, one per channel or per pixel.
    """

    centre: Float[Array, "..."]


class PerLane(NamedTuple):
    """What differs from lane to lane in the energy; a batch has a leading axis [l].

    Attributes:
      target: the code phi0.
      mask: M, which broadcasts against the code, array by array; ones where every
        feature counts.
      tv_weight: lambda_V.
      alpha_weight: lambda_alpha.
      chroma_weight: how much more differences between neighbours in colour count in
        R_TV than those in brightness (the mean over channels); None, as in the papers,
        where they count alike.
      ijcv: weights of the IJCV objective; None where the CVPR energy is minimised.
      code_weights: weight of each array's data term, a pytree like the code; None where
        the code is one array.
    """

    target: Code
    mask: Code
    tv_weight: Scalar
    alpha_weight: Scalar
    chroma_weight: Scalar | None = None
    ijcv: IjcvWeights | None = None
    code_weights: Any = None


class Terms(NamedTuple):
    """Summands of an energy, weights included."""

    data: Scalar
    alpha: Scalar
    tv: Scalar


@dataclasses.dataclass(frozen=True)
class Exponents:
    """The regularisers' exponents; the papers' inversions all use these."""

    alpha: int = 6
    beta: float = 2.0


def squared_error(
    code: Features, target: Features, mask: Float[Array, "..."]
) -> Scalar:
    """|M (code - target)|^2 / |M target|^2, the paper's data term.

    Examples:
      >>> import jax.numpy as jnp
      >>> code, target = jnp.array([1.0, 5.0]), jnp.array([2.0, 0.0])
      >>> mask = jnp.array([1.0, 0.0])
      >>> float(squared_error(code, target, mask))
      0.25
    """
    return jnp.sum((mask * (code - target)) ** 2) / jnp.sum((mask * target) ** 2)


def activation_maximisation(
    code: Features, target: Features, mask: Float[Array, "..."]
) -> Scalar:
    """-<M w, code>, with the direction w as target (IJCV 2016).

    Minimising it finds the image that excites w most.

    The paper's w is one-hot, of size 10,000 / field^2 / (largest activation of the
    channel on photographs), `field` being the receptive field in pixels; the size
    balances it against the regularisers.
    """
    return -jnp.sum(mask * target * code)


def caricature(code: Features, target: Features, mask: Float[Array, "..."]) -> Scalar:
    """-<p, code> / |p|^2 with p = M max(target, 0) (IJCV 2016).

    Minimising it from the target's own image exaggerates what the code responds to. The
    value is -1 where the code's positive part equals the target's.
    """
    positive = mask * jnp.maximum(target, 0)
    return -jnp.sum(positive * code) / jnp.sum(positive**2)


LINEAR_TERMS = (activation_maximisation, caricature)
"""Data terms that are linear in the code: none of them has a target to reach."""


def is_dead(
    z: Image,
    phi: Representation,
    shared: Shared,
    per_lane: PerLane,
    *,
    data_term: DataTerm = squared_error,
) -> Bool[Array, ""]:
    """Whether the data term asks for another code, but no pixel can change the code.

    This happens where all ReLUs between the image and the features that count are off:
    the data term's gradient is then exactly zero, and only the regularisers move the
    image.

    Args:
      z: [h, w, c], grey levels minus the centre.
      phi, shared, per_lane, data_term: as in `energy`.
    """
    code, pull = jax.vjp(lambda z: _code(z, phi, shared, per_lane), z)
    wanted = jax.grad(lambda code: data(code, per_lane, data_term))(code)
    (gradient,) = pull(wanted)
    asks = [jnp.any(part != 0) for part in jax.tree.leaves(wanted)]
    return functools.reduce(jnp.logical_or, asks) & jnp.all(gradient == 0)


def to_image(z: Image, centre: Float[Array, "..."]) -> Image:
    """The image in [0, 1], the range of representations, at the variable z."""
    return (z + jnp.broadcast_to(centre, z.shape)) / 255


def to_variable(image: Image, centre: Float[Array, "..."]) -> Image:
    """The variable z that stands for an image in [0, 1]: the inverse of `to_image`."""
    return 255 * image - jnp.broadcast_to(centre, image.shape)


def energy(
    z: Canvas,
    phi: Representation,
    shared: Shared,
    per_lane: PerLane,
    *,
    exponents: Exponents = Exponents(),  # noqa: B008 (frozen)
    data_term: DataTerm = squared_error,
    crops: Sequence[Image] = (),
) -> tuple[Scalar, Terms]:
    """The CVPR paper's energy of z and its summands.

    Args:
      z: [h, w, c], grey levels minus the centre.
      phi: the representation.
      shared: the centre.
      per_lane: target, mask and weights.
      exponents: alpha and beta of the regularisers.
      data_term: how far a code is from the target.
      crops: what is handed to phi in place of z: parts or views of it, over which the
        data term is averaged.

    Returns:
      The total, and the three weighted terms it is the sum of; float32.
    """
    codes = [_code(image, phi, shared, per_lane) for image in crops or (z,)]
    x = z / SIGMA
    # The released code floors the summand of z, which is sigma^beta times that of x.
    floor = regularisers.CVPR_GRADIENT_FLOOR / SIGMA**exponents.beta
    terms = Terms(
        data=_mean_data(codes, per_lane, data_term),
        alpha=per_lane.alpha_weight * regularisers.alpha_norm(x, alpha=exponents.alpha),
        tv=per_lane.tv_weight
        * regularisers.total_variation(
            _weighed(x, per_lane), beta=exponents.beta, gradient_floor=floor
        ),
    )
    return terms.data + terms.alpha + terms.tv, terms


def ijcv_energy(
    z: Canvas,
    phi: Representation,
    shared: Shared,
    per_lane: PerLane,
    *,
    exponents: Exponents = Exponents(),  # noqa: B008 (frozen)
    data_term: DataTerm = squared_error,
    crops: Sequence[Image] = (),
) -> tuple[Scalar, Terms]:
    """The IJCV paper's energy of z and its summands.

    With jitter, z is the enlarged canvas, and `crops` has a part of it. Regularisers
    act on the whole canvas and are divided by its number of pixels, as in the released
    code.

    The paper's z is around the mean colour of a network's photographs, and for HOG and
    DSIFT grey levels from 0 around nothing. Here the latter keep the centre 128 of
    their functions: phi subtracts it again, so that phi of z, its border of zeros
    included, is the released code's; what differs is the target's border cells (there
    of the picture around 0, here around 128) and the grey that is added for display.

    Args and returns: as `energy`.
    """
    assert per_lane.ijcv is not None
    codes = [_code(image, phi, shared, per_lane) for image in crops or (z,)]
    num_pixels = z.shape[0] * z.shape[1]
    norm = regularisers.colour_alpha_norm(z, alpha=exponents.alpha)
    total_variation = regularisers.total_variation(
        _weighed(z, per_lane),
        beta=exponents.beta,
        gradient_floor=regularisers.IJCV_GRADIENT_FLOOR,
    )
    terms = Terms(
        data=per_lane.ijcv.data * _mean_data(codes, per_lane, data_term),
        alpha=per_lane.ijcv.alpha * (norm / num_pixels),
        tv=per_lane.ijcv.tv * (total_variation / num_pixels),
    )
    return terms.data + terms.alpha + terms.tv, terms


def data(code: Code, per_lane: PerLane, data_term: DataTerm) -> Scalar:
    """The data term of a code: of its one array, or the weighted sum over several.

    Args:
      code: the code of an image.
      per_lane, data_term: as in `energy`.
    """
    if per_lane.code_weights is None:
        return data_term(code, per_lane.target, per_lane.mask)
    parts = jax.tree.map(
        lambda weight, *part: weight * data_term(*part),
        per_lane.code_weights,
        code,
        per_lane.target,
        per_lane.mask,
    )
    return functools.reduce(jnp.add, jax.tree.leaves(parts))


def _mean_data(codes: Sequence[Code], per_lane: PerLane, data_term: DataTerm) -> Scalar:
    """The data term, averaged over codes."""
    terms = [data(code, per_lane, data_term) for code in codes]
    return terms[0] if len(terms) == 1 else jnp.mean(jnp.stack(terms))


def _weighed(image: Image, per_lane: PerLane) -> Image:
    """The image that R_TV is taken of: its colours moved away from grey, if weighed."""
    if per_lane.chroma_weight is None:
        return image
    return regularisers.scale_chroma(image, jnp.sqrt(per_lane.chroma_weight))


def _code(image: Image, phi: Representation, shared: Shared, per_lane: PerLane) -> Code:
    code = phi(to_image(image, shared.centre))
    return jax.tree.map(
        lambda part, target: part.astype(target.dtype), code, per_lane.target
    )
