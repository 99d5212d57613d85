"""What a representation sees of an image, and what it ignores, to first order.

J = dphi/dx at an image maps changes of the image (in phi's range, [0, 1]) to changes of
the code. Its leading right singular vectors are the changes phi sees best; changes in
its null space leave the code as it is, and they are many wherever a code has fewer
numbers than an image. J is never formed: phi is linearised once, and J v and J^T u are
all that is asked of it. Krylov spaces and least squares are matfree's.

Every function compiles with phi's arrays as arguments. Norms are Euclidean.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int
from matfree import decomp, lstsq

from invjax import callables
from invjax.callables import TracedCallable
from invjax.types import Code, Image, PRNGKey, Representation, Scalar

_STEPS_AT_ONCE = 4


class Directions(NamedTuple):
    """Leading singular triplets of J, largest first.

    Attributes:
      values: singular values: change of the code per change of the image.
      images: right singular vectors, of unit norm and orthogonal to each other.
      residuals: |J^T u - s v|, with which a value s is known; compare with `values`.
    """

    values: Float[Array, " k"]
    images: Float[Array, "k h w c"]
    residuals: Float[Array, " k"]


class NullDirection(NamedTuple):
    """What is left of a direction d once phi's view of it is taken out.

    Attributes:
      image: the part that phi ignores, for d of unit norm; not normalised.
      kept: its norm, the share of d that is left.
      gain: |J image| / |image|: how well phi sees what is left.
      first_gain: |J d| / |d|, for comparison.
      num_steps: of the least-squares iteration.
      is_converged: whether that ended before its budget.
    """

    image: Image
    kept: Scalar
    gain: Scalar
    first_gain: Scalar
    num_steps: Int[Array, ""]
    is_converged: Bool[Array, ""]


def leading_directions(
    key: PRNGKey,
    phi: Representation,
    image: ArrayLike,
    *,
    num: int = 32,
    num_products: int | None = None,
) -> Directions:
    """The changes of an image that a representation sees best.

    Golub-Kahan bidiagonalisation with full reorthogonalisation. It holds
    `num_products` images and codes. Of equal singular values it finds one; values so
    close that `num_products` does not tell them apart have large residuals. NaN where J
    is zero.

    Args:
      key: of the random start.
      phi: the representation.
      image: [h, w, c] in phi's range.
      num: k, how many.
      num_products: products with J and with J^T each; 3 num + 16 by default, and
        never more than the smaller side of J.

    Raises:
      ValueError: more are asked for than J or `num_products` has.
    """
    image = jnp.asarray(image, jnp.float32)
    smaller = min(image.size, num_features(phi, image))
    if num_products is None:
        num_products = min(3 * num + 16, smaller)
    if not 1 <= num <= num_products <= smaller:
        raise ValueError(
            f"num is {num} and num_products {num_products}; 1 <= num <= num_products "
            f"<= {smaller}, the smaller side of the Jacobian, is accepted"
        )
    return _leading(key, TracedCallable.of(phi), image, num, num_products)


def singular_values(
    key: PRNGKey,
    phi: Representation,
    image: ArrayLike,
    *,
    num: int = 32,
    num_products: int | None = None,
) -> Float[Array, " k"]:
    """The leading singular values alone; arguments as `leading_directions`."""
    found = leading_directions(key, phi, image, num=num, num_products=num_products)
    return found.values


def null_direction(
    phi: Representation,
    image: ArrayLike,
    direction: ArrayLike,
    *,
    cutoff: ArrayLike = 0.0,
    tolerance: ArrayLike = 1e-6,
    max_steps: int = 300,
) -> NullDirection:
    """The part of a direction that a representation ignores to first order.

    d - x, where x minimises |J x - J d|^2 + cutoff^2 |x|^2 from x = 0 (LSMR, Fong and
    Saunders 2011). With cutoff 0 that is the projection of d onto the null space of J,
    which is at least as large as an image has more numbers than its code; with many
    small singular values it converges slowly, and `gain` says how far it came. A
    cutoff c multiplies the component along a singular vector of value s by
    c^2 / (s^2 + c^2): what phi sees clearly less than c stays, what it sees clearly
    better goes, after a number of steps of about |J|_2 / c.

    Args:
      phi: the representation.
      image: [h, w, c] in phi's range.
      direction: d, [h, w, c], of any norm but zero; `spectrum.natural_direction`
        draws one that looks like an image.
      cutoff: c, in the unit of the singular values.
      tolerance: relative, of the least-squares iteration.
      max_steps: its budget, each step one product with J and one with J^T.

    Raises:
      ValueError: the direction does not fit the image, or the cutoff is negative.
    """
    image = jnp.asarray(image, jnp.float32)
    direction = _checked_direction(direction, image)
    if not jnp.all(jnp.asarray(cutoff) >= 0):
        raise ValueError(f"cutoff is {cutoff}; a number from 0 up is accepted")
    numbers = (jnp.float32(cutoff), jnp.float32(tolerance))
    return _null(TracedCallable.of(phi), image, direction, *numbers, max_steps)


def code_change(
    phi: Representation,
    image: ArrayLike,
    direction: ArrayLike,
    steps: ArrayLike | Sequence[float],
) -> Float[Array, " t"]:
    """|phi(x + s d) - phi(x)| / |phi(x)| for finite steps along a direction.

    Args:
      phi: the representation.
      image: x, [h, w, c] in phi's range.
      direction: [h, w, c], of any norm but zero; d is scaled to unit root mean square.
      steps: s [t], root mean square change of the image, in its own range.

    Raises:
      ValueError: the direction does not fit the image.
    """
    image = jnp.asarray(image, jnp.float32)
    direction = _checked_direction(direction, image) * jnp.sqrt(image.size)
    steps = jnp.atleast_1d(jnp.asarray(steps, jnp.float32))
    return _code_change(TracedCallable.of(phi), image, direction, steps)


def linearise(
    phi: TracedCallable, image: Image
) -> tuple[Callable[[Image], Code], Callable[[Code], Image]]:
    """v -> J v and u -> J^T u, from one linearisation; for use within jit."""
    _, push = jax.linearize(phi, image)
    transpose = jax.linear_transpose(push, image)
    return push, lambda cotangent: transpose(cotangent)[0]


def num_features(phi: Representation, image: ArrayLike) -> int:
    """Numbers in phi's code of an image of this shape; nothing is computed."""
    return math.prod(callables.code_shape(phi, jnp.shape(image)))


@functools.partial(jax.jit, static_argnames=("num", "num_products"))
def _leading(
    key: PRNGKey, phi: TracedCallable, image: Image, num: int, num_products: int
) -> Directions:
    push, pull = linearise(phi, image)
    # From within the row space: what J ignores would only take up a product.
    code = jax.eval_shape(push, image)
    start = pull(jax.random.normal(key, code.shape, code.dtype))
    factors = decomp.bidiag(num_products)(push, start)
    left, values, right = jnp.linalg.svd(factors.J_small, full_matrices=False)
    _, krylov = factors.Q_tall
    # J v = s u holds to rounding, and J^T u - s v is the last residual's share in u.
    rest = jnp.linalg.norm(factors.residual)
    # matfree divides by the rest, which is zero once the space is exhausted.
    residuals = jnp.where(jnp.isnan(rest), 0.0, rest) * jnp.abs(left[-1])
    images = jnp.tensordot(right[:num], krylov, axes=1)
    return Directions(values[:num], images, residuals[:num])


@functools.partial(jax.jit, static_argnames="max_steps")
def _null(
    phi: TracedCallable,
    image: Image,
    direction: Image,
    cutoff: Scalar,
    tolerance: Scalar,
    max_steps: int,
) -> NullDirection:
    push, pull = linearise(phi, image)
    solve = lstsq.lsmr(
        atol=tolerance, btol=tolerance, ctol=0.0, maxiter=max_steps, custom_vjp=False
    )
    seen = push(direction)
    explained, stats = solve(pull, seen, damp=cutoff)
    left = direction - explained
    kept = jnp.linalg.norm(left)
    return NullDirection(
        image=left,
        kept=kept,
        gain=jnp.linalg.norm(push(left)) / kept,
        first_gain=jnp.linalg.norm(seen),
        num_steps=stats["iteration_count"],
        is_converged=stats["success"],
    )


@jax.jit
def _code_change(
    phi: TracedCallable, image: Image, direction: Image, steps: Float[Array, " t"]
) -> Float[Array, " t"]:
    code = phi(image)
    norm = jnp.linalg.norm(code)
    return jax.lax.map(
        lambda step: jnp.linalg.norm(phi(image + step * direction) - code) / norm,
        steps,
        batch_size=_STEPS_AT_ONCE,
    )


def _checked_direction(direction: ArrayLike, image: Image) -> Image:
    """The direction with unit norm."""
    given = jnp.asarray(direction, jnp.float32)
    if given.shape != image.shape:
        raise ValueError(
            f"direction has shape {given.shape}; {image.shape} of the image is accepted"
        )
    norm = jnp.linalg.norm(given)
    if not (jnp.isfinite(norm) and norm > 0):
        raise ValueError("direction is zero or not finite; it must point somewhere")
    return given / norm
