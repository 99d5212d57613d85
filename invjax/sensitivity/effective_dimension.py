"""How many directions of an image a representation sees: the rank of dphi/dx, softly.

Monte Carlo estimates by products with J and J^T alone (see `geometry`), each with its
standard error. Every function compiles with phi's arrays as arguments.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from matfree import decomp, funm

from invjax.callables import TracedCallable
from invjax.sensitivity import jacobian
from invjax.types import Image, PRNGKey, Representation, Scalar

_PROBES_AT_ONCE = 4


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error."""

    value: Scalar
    standard_error: Scalar


class EffectiveDimension(NamedTuple):
    """How many directions J acts on, counted softly.

    Attributes:
      spectral_norm: |J|_2, the largest singular value.
      squared_frobenius: |J|_F^2, the sum of squared singular values.
      stable_rank: |J|_F^2 / |J|_2^2.
      participation_ratio: tr(J J^T)^2 / tr((J J^T)^2); never below the stable rank.
    """

    spectral_norm: Scalar
    squared_frobenius: Estimate
    stable_rank: Estimate
    participation_ratio: Estimate


def effective_dimension(
    key: PRNGKey,
    phi: Representation,
    image: ArrayLike,
    *,
    num_probes: int = 32,
    num_products: int = 24,
) -> EffectiveDimension:
    """Stable rank and participation ratio of J, with standard errors.

    Hutchinson's estimator with random signs v: |J v|^2 for the trace of J^T J and
    |J^T J v|^2 for that of its square. Errors, and the bias of the ratio, by the
    jackknife over the probes. |J|_2 is taken as exact.

    Args:
      key: of the probes.
      phi: the representation.
      image: [h, w, c] in phi's range.
      num_probes: at least 2.
      num_products: as in `leading_directions`, for |J|_2.

    Raises:
      ValueError: too few probes.
    """
    _check_probes(num_probes)
    image = jnp.asarray(image, jnp.float32)
    num_products = min(num_products, image.size, jacobian.num_features(phi, image))
    return _dimension(key, TracedCallable.of(phi), image, num_probes, num_products)


def ridge_dimension(
    key: PRNGKey,
    phi: Representation,
    image: ArrayLike,
    cutoff: ArrayLike,
    *,
    num_probes: int = 16,
    num_products: int = 32,
) -> Estimate:
    """Number of directions that a representation sees better than a cutoff.

    The sum over singular values s of s^2 / (s^2 + c^2), ridge regression's degrees of
    freedom: about the number of values above c. The rest of the image's dimensions are
    ignored at that level. Stochastic Lanczos quadrature with random signs.

    Args:
      key: of the probes.
      phi: the representation.
      image: [h, w, c] in phi's range.
      cutoff: c > 0, in the unit of the singular values.
      num_probes: at least 2.
      num_products: Lanczos steps per probe, each a product with J and one with J^T.

    Raises:
      ValueError: too few probes, or the cutoff is not positive.
    """
    _check_probes(num_probes)
    if not jnp.all(jnp.asarray(cutoff) > 0):
        raise ValueError(f"cutoff is {cutoff}; a positive number is accepted")
    image = jnp.asarray(image, jnp.float32)
    num_products = min(num_products, image.size)
    argument = TracedCallable.of(phi)
    level = jnp.float32(cutoff)
    return _ridge(key, argument, image, level, num_probes, num_products)


@functools.partial(jax.jit, static_argnames=("num_probes", "num_products"))
def _dimension(
    key: PRNGKey, phi: TracedCallable, image: Image, num_probes: int, num_products: int
) -> EffectiveDimension:
    push, pull = jacobian.linearise(phi, image)
    start_key, probe_key = jax.random.split(key)
    values = jacobian.singular_values(
        start_key, phi, image, num=1, num_products=num_products
    )
    norm = values[0]

    def moments(key: PRNGKey) -> tuple[Scalar, Scalar]:
        code = push(jax.random.rademacher(key, image.shape, image.dtype))
        return jnp.sum(code**2), jnp.sum(pull(code) ** 2)

    keys = jax.random.split(probe_key, num_probes)
    traces, squares = jax.lax.map(moments, keys, batch_size=_PROBES_AT_ONCE)
    # Relative to the largest: squares of small numbers would leave float32's range.
    relative, relative_squares = traces / norm**2, squares / norm**4
    ones = jnp.ones_like(relative)
    return EffectiveDimension(
        spectral_norm=norm,
        squared_frobenius=_jackknife(traces, ones, 1),
        stable_rank=_jackknife(relative, ones, 1),
        participation_ratio=_jackknife(relative, relative_squares, 2),
    )


@functools.partial(jax.jit, static_argnames=("num_probes", "num_products"))
def _ridge(
    key: PRNGKey,
    phi: TracedCallable,
    image: Image,
    cutoff: Scalar,
    num_probes: int,
    num_products: int,
) -> Estimate:
    push, pull = jacobian.linearise(phi, image)
    share = funm.dense_funm_sym_eigh(
        # Rounding can make a zero eigenvalue of J^T J negative.
        lambda square: jnp.maximum(square, 0) / (jnp.maximum(square, 0) + cutoff**2)
    )
    quadrature = funm.monte_carlo_funm_sym(share, decomp.tridiag_sym(num_products))

    def estimate(key: PRNGKey) -> Scalar:
        probe = jax.random.rademacher(key, image.shape, image.dtype)
        return quadrature(lambda v: pull(push(v)), probe)

    keys = jax.random.split(key, num_probes)
    values = jax.lax.map(estimate, keys, batch_size=_PROBES_AT_ONCE)
    return _jackknife(values, jnp.ones_like(values), 1)


def _jackknife(
    numerators: Float[Array, " n"], denominators: Float[Array, " n"], power: int
) -> Estimate:
    """mean(numerators)^power / mean(denominators), less its bias to first order."""
    num = len(numerators)

    def ratio(top: Array, bottom: Array) -> Array:
        return top**power / bottom

    without = ratio(
        (jnp.sum(numerators) - numerators) / (num - 1),
        (jnp.sum(denominators) - denominators) / (num - 1),
    )
    plain = ratio(jnp.mean(numerators), jnp.mean(denominators))
    deviations = without - jnp.mean(without)
    return Estimate(
        value=num * plain - (num - 1) * jnp.mean(without),
        standard_error=jnp.sqrt((num - 1) / num * jnp.sum(deviations**2)),
    )


def _check_probes(num_probes: int) -> None:
    if num_probes < 2:
        raise ValueError(f"num_probes is {num_probes}; from 2 up is accepted")
