"""The Jacobian of a representation: which changes of an image change the code.

J = dphi/dx at an image maps changes of the image (in phi's range, [0, 1]) to changes of
the code, to first order. Its leading right singular vectors are the changes to which
phi responds most. Changes in its null space leave the code unchanged; there are many
where a code has fewer numbers than the image. J is never formed: phi is linearised
once, and only products J v and J^T u are computed. Krylov spaces and least squares are
those of matfree.

Functions are compiled with phi's arrays as arguments. Norms are Euclidean.
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

from invjax import callables, identity
from invjax.callables import TracedCallable
from invjax.images import pixels
from invjax.representations import as_representation
from invjax.types import (
    Code,
    Image,
    KeyLike,
    PRNGKey,
    RepresentationLike,
    Scalar,
    ordinary_types,
)

_STEPS_AT_ONCE = 4


class Directions(NamedTuple):
    """Leading singular triplets of J, largest first.

    Attributes:
      values: singular values s: change of the code per change of the image.
      images: right singular vectors v, of unit norm and orthogonal to each other.
      residuals: |J^T u - s v|, bounds of the errors of `values`.
    """

    values: Float[Array, " k"]
    images: Float[Array, "k h w c"]
    residuals: Float[Array, " k"]


class NullDirection(NamedTuple):
    """The part of a direction d that a representation ignores.

    Attributes:
      image: that part of d / |d|, not normalised.
      kept: norm of `image`, the fraction of d that is left.
      gain: |J image| / |image|, the response of phi to that part.
      first_gain: |J d| / |d|, the response to d, for comparison.
      num_steps: number of steps of the least-squares iteration.
      is_converged: whether the iteration ended before its budget.
    """

    image: Image
    kept: Scalar
    gain: Scalar
    first_gain: Scalar
    num_steps: Int[Array, ""]
    is_converged: Bool[Array, ""]


def leading_directions(
    key: KeyLike,
    phi: RepresentationLike,
    image: ArrayLike,
    *,
    num: int = 32,
    num_products: int | None = None,
) -> Directions:
    """Computes the changes of an image to which a representation responds most.

    The method is Golub-Kahan bidiagonalisation with full reorthogonalisation, which
    keeps `num_products` images and codes in memory. Of equal singular values it finds
    one. Values that `num_products` is too small to separate have large residuals.
    Results are NaN where J is zero.

    Args:
      key: random key of the start.
      phi: the representation, or its name.
      image: [h, w, c] in phi's range.
      num: k, number of directions.
      num_products: number of products with J, and of products with J^T; by default
        3 num + 16, but at most the smaller side of J.

    Raises:
      ValueError: `num` is larger than `num_products`, or that is larger than the
        smaller side of J.

    Examples:
      >>> scales = jnp.arange(1.0, 5.0).reshape(2, 2, 1)
      >>> phi = lambda image: scales * image
      >>> found = leading_directions(jax.random.key(0), phi, 0 * scales, num=2)
      >>> [round(value, 3) for value in found.values.tolist()]
      [4.0, 3.0]
    """
    image = _given(image)
    smaller = min(image.size, num_features(phi, image))
    if num_products is None:
        num_products = min(3 * num + 16, smaller)
    if not 1 <= num <= num_products <= smaller:
        raise ValueError(
            f"num is {num} and num_products {num_products}; 1 <= num <= num_products "
            f"<= {smaller}, the smaller side of the Jacobian, is accepted"
        )
    key = identity.one_key(key)
    return _leading(key, _traced(phi), image, num, num_products)


def singular_values(
    key: KeyLike,
    phi: RepresentationLike,
    image: ArrayLike,
    *,
    num: int = 32,
    num_products: int | None = None,
) -> Float[Array, " k"]:
    """Returns the values of `leading_directions`, which has the same arguments."""
    found = leading_directions(key, phi, image, num=num, num_products=num_products)
    return found.values


def null_direction(
    phi: RepresentationLike,
    image: ArrayLike,
    direction: ArrayLike,
    *,
    cutoff: ArrayLike = 0.0,
    tolerance: ArrayLike = 1e-6,
    max_steps: int = 300,
) -> NullDirection:
    """Computes the part of a direction that a representation ignores to first order.

    It is d - x, where x minimises |J x - J d|^2 + cutoff^2 |x|^2. LSMR (Fong and
    Saunders 2011) computes it from x = 0. With cutoff 0 it is the projection of d onto
    the null space of J, whose dimension is at least the number of values of the image
    minus that of the code. Where J has many small singular values, the iteration
    converges slowly; `gain` shows how far it got. A cutoff c multiplies the component
    along a singular vector of value s by c^2 / (s^2 + c^2): components with s clearly
    below c remain and those with s clearly above c vanish, after about |J|_2 / c steps.

    Args:
      phi: the representation, or its name.
      image: [h, w, c] in phi's range.
      direction: d, [h, w, c], not zero; `spectrum.natural_direction` draws one with the
        spectrum of natural images.
      cutoff: c, compared with singular values.
      tolerance: relative tolerance of the least-squares iteration.
      max_steps: largest number of steps, each with one product with J and one with J^T.

    Raises:
      ValueError: the direction has another shape than the image, is zero or not finite,
        or the cutoff is negative.

    Examples:
      >>> half = lambda image: image[:1]
      >>> ones = jnp.ones((2, 2, 1))
      >>> found = null_direction(half, ones, ones)
      >>> found.image[..., 0].round(3).tolist()
      [[0.0, 0.0], [0.5, 0.5]]
    """
    image = _given(image)
    direction = _checked_direction(direction, image)
    if not jnp.all(jnp.asarray(cutoff) >= 0):
        raise ValueError(f"cutoff is {cutoff}; 0 or a positive number is accepted")
    numbers = (jnp.float32(cutoff), jnp.float32(tolerance))
    return _null(_traced(phi), image, direction, *numbers, max_steps)


def code_change(
    phi: RepresentationLike,
    image: ArrayLike,
    direction: ArrayLike,
    steps: ArrayLike | Sequence[float],
) -> Float[Array, " t"]:
    """Returns |phi(x + s d) - phi(x)| / |phi(x)| for finite steps along a direction.

    Args:
      phi: the representation, or its name.
      image: x, [h, w, c] in phi's range.
      direction: [h, w, c], not zero; it is scaled to a root mean square of 1, which
        gives d.
      steps: s [t], the root mean square changes of the image, in units of its range.

    Raises:
      ValueError: the direction has another shape than the image, is zero or not finite.

    Examples:
      >>> ones = jnp.ones((2, 2, 1))
      >>> code_change(lambda image: 3 * image, ones, ones, [0.0, 0.5]).tolist()
      [0.0, 0.5]
    """
    image = _given(image)
    direction = _checked_direction(direction, image) * jnp.sqrt(image.size)
    steps = jnp.atleast_1d(jnp.asarray(steps, jnp.float32))
    return _code_change(_traced(phi), image, direction, steps)


def linearise(
    phi: TracedCallable, image: Image
) -> tuple[Callable[[Image], Code], Callable[[Code], Image]]:
    """Linearises phi once, within jit: returns v -> J v and u -> J^T u.

    Args:
      phi: the representation, or its name.
      image: [h, w, c], where J is taken.
    """
    _, push = jax.linearize(phi, image)
    transpose = jax.linear_transpose(push, image)
    return push, lambda cotangent: transpose(cotangent)[0]


def num_features(phi: RepresentationLike, image: ArrayLike) -> int:
    """Returns the number of values in the code of an image, without computing the code.

    Examples:
      >>> num_features(lambda image: image[::2], jnp.zeros((4, 4, 3)))
      24
    """
    phi = as_representation(phi)
    return math.prod(callables.code_shape(phi, jnp.shape(image)))


@functools.partial(jax.jit, static_argnames=("num", "num_products"))
def _leading(
    key: PRNGKey, phi: TracedCallable, image: Image, num: int, num_products: int
) -> Directions:
    push, pull = linearise(phi, image)
    # A start in the row space: a component in the null space would waste a product.
    code = jax.eval_shape(push, image)
    start = pull(jax.random.normal(key, code.shape, code.dtype))
    with ordinary_types():
        factors = decomp.bidiag(num_products)(push, start)
    left, values, right = jnp.linalg.svd(factors.J_small, full_matrices=False)
    _, krylov = factors.Q_tall
    # J v = s u holds except for rounding, and |J^T u - s v| is the norm of the last
    # residual times the last entry of u in the Krylov basis. matfree divides by that
    # norm, which is zero once the space is exhausted.
    rest = jnp.linalg.norm(factors.residual)
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
    response = push(direction)
    with ordinary_types():
        explained, stats = solve(pull, response, damp=cutoff)
    left = direction - explained
    kept = jnp.linalg.norm(left)
    return NullDirection(
        image=left,
        kept=kept,
        gain=jnp.linalg.norm(push(left)) / kept,
        first_gain=jnp.linalg.norm(response),
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


def _traced(phi: RepresentationLike) -> TracedCallable:
    return TracedCallable.of(as_representation(phi))


def _given(image: ArrayLike) -> Image:
    return jnp.asarray(pixels.checked(image), jnp.float32)


def _checked_direction(direction: ArrayLike, image: Image) -> Image:
    """The direction, scaled to unit norm."""
    given = jnp.asarray(pixels.checked(direction, name="direction"), jnp.float32)
    if given.shape != image.shape:
        raise ValueError(
            f"direction has shape {given.shape}; {image.shape} is accepted, as the "
            "image has"
        )
    norm = jnp.linalg.norm(given)
    if not (jnp.isfinite(norm) and norm > 0):
        raise ValueError("direction is zero or not finite; another one is accepted")
    return given / norm
