"""How many directions of an image change the code: soft ranks of J = dphi/dx.

They are Monte Carlo estimates with standard errors, and need only products with J and
J^T (see `jacobian`). Functions are compiled with phi's arrays as arguments.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from invjax import identity
from invjax.callables import TracedCallable
from invjax.images import pixels
from invjax.representations import as_representation
from invjax.sensitivity import jacobian
from invjax.types import (
    Image,
    KeyLike,
    PRNGKey,
    RepresentationLike,
    Scalar,
)

_PROBES_AT_ONCE = 4


class MonteCarloEstimate(NamedTuple):
    """A Monte Carlo estimate and its standard error."""

    value: Scalar
    standard_error: Scalar


class EffectiveDimension(NamedTuple):
    """Soft counts of the directions on which J acts.

    Attributes:
      spectral_norm: |J|_2, the largest singular value.
      squared_frobenius: |J|_F^2, the sum of the squared singular values.
      stable_rank: |J|_F^2 / |J|_2^2.
      participation_ratio: tr(J J^T)^2 / tr((J J^T)^2); never below the stable rank.
    """

    spectral_norm: Scalar
    squared_frobenius: MonteCarloEstimate
    stable_rank: MonteCarloEstimate
    participation_ratio: MonteCarloEstimate


def effective_dimension(
    key: KeyLike,
    phi: RepresentationLike,
    image: ArrayLike,
    *,
    num_probes: int = 32,
    num_products: int = 24,
) -> EffectiveDimension:
    """Estimates stable rank and participation ratio of J, with standard errors.

    Traces are Hutchinson's estimates with random signs v: |J v|^2 for J^T J and
    |J^T J v|^2 for its square. Standard errors and the bias of the participation ratio
    come from the jackknife over the probes. The error of |J|_2 is neglected.

    Args:
      key: random key of the probes.
      phi: the representation, or its name.
      image: [h, w, c] in phi's range.
      num_probes: number of random probes, at least 2.
      num_products: number of products for |J|_2, as in `jacobian.leading_directions`.

    Raises:
      ValueError: there are fewer than two probes.

    Examples:
      >>> found = effective_dimension(
      ...     jax.random.key(0), lambda image: 2 * image, jnp.zeros((4, 4, 1))
      ... )
      >>> found.spectral_norm.round(3).item(), found.stable_rank.value.round(3).item()
      (2.0, 16.0)
    """
    if num_probes < 2:
        raise ValueError(f"num_probes is {num_probes}; 2 or more are accepted")
    key, phi = identity.one_key(key), as_representation(phi)
    image = jnp.asarray(pixels.checked(image), jnp.float32)
    num_products = min(num_products, image.size, jacobian.num_features(phi, image))
    return _dimension(key, TracedCallable.of(phi), image, num_probes, num_products)


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
        # As `rademacher`, whose draw is of JAX's default type.
        is_up = jax.random.bernoulli(key, jnp.float32(0.5), image.shape)
        code = push(jnp.where(is_up, 1, -1).astype(image.dtype))
        return jnp.sum(code**2), jnp.sum(pull(code) ** 2)

    keys = jax.random.split(probe_key, num_probes)
    traces, squares = jax.lax.map(moments, keys, batch_size=_PROBES_AT_ONCE)
    # Divided by the norm first: squares of small numbers would underflow in float32.
    relative, relative_squares = traces / norm**2, squares / norm**4
    ones = jnp.ones_like(relative)
    return EffectiveDimension(
        spectral_norm=norm,
        squared_frobenius=_jackknife(traces, ones, 1),
        stable_rank=_jackknife(relative, ones, 1),
        participation_ratio=_jackknife(relative, relative_squares, 2),
    )


def _jackknife(
    numerators: Float[Array, " n"], denominators: Float[Array, " n"], power: int
) -> MonteCarloEstimate:
    """mean(numerators)^power / mean(denominators), corrected for first-order bias."""
    num = len(numerators)

    def ratio(top: Array, bottom: Array) -> Array:
        return top**power / bottom

    without = ratio(
        (jnp.sum(numerators) - numerators) / (num - 1),
        (jnp.sum(denominators) - denominators) / (num - 1),
    )
    plain = ratio(jnp.mean(numerators), jnp.mean(denominators))
    deviations = without - jnp.mean(without)
    return MonteCarloEstimate(
        value=num * plain - (num - 1) * jnp.mean(without),
        standard_error=jnp.sqrt((num - 1) / num * jnp.sum(deviations**2)),
    )
