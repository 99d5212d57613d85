"""Confidence intervals by the bootstrap: resampling images, then their starts."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from invjax import identity
from invjax.types import PRNGKey, PRNGKeys, Scalar


class Interval(NamedTuple):
    """A statistic of measured values and its confidence interval.

    Attributes:
      estimate: the statistic of the values.
      low, high: ends of the interval.
      level: confidence level, between 0 and 1.
    """

    estimate: Scalar
    low: Scalar
    high: Scalar
    level: float


def interval(
    key: PRNGKey,
    values: Float[ArrayLike, "..."],
    *,
    statistic: Callable[[Array], Scalar] = jnp.mean,
    level: float = 0.95,
    num_resamples: int = 2000,
) -> Interval:
    """Returns the bootstrap's percentile interval of a statistic.

    For values [n], each resample has n values drawn with replacement. For values
    [images, starts], each resample has as many images drawn with replacement, and for
    each of them as many of its starts, drawn anew. Starts of one image are alike, so
    that treating all values as independent would give too narrow an interval. Distances
    between pairs of starts are not independent either: pass their mean per image.

    The method is that of Efron & Tibshirani 1993, section 13. With few values the
    interval is too narrow: for n = 10 a nominal 95 % interval contains the true value
    in about 90 % of cases. The function can be jitted and vmapped; traced values are
    not checked, and give NaN if they are not finite.

    Args:
      key: random key of the draws.
      values: [n] or [images, starts].
      statistic: traceable function from resampled values, of the same shape, to a
        scalar.
      level: confidence level, between 0 and 1.
      num_resamples: number of resamples.

    Raises:
      ValueError: the values have another rank, there are none, or they are not finite;
        the level or the number of resamples is out of range.

    Examples:
      >>> found = interval(jax.random.key(0), np.arange(101.0), statistic=jnp.median)
      >>> found.estimate.item(), bool(found.low < 50 < found.high)
      (50.0, True)
    """
    measured = jnp.asarray(values, jnp.float32)
    if measured.ndim not in (1, 2) or not measured.size:
        raise ValueError(
            f"values have shape {measured.shape}; (n,) and (images, starts) are "
            "accepted"
        )
    if not isinstance(measured, jax.core.Tracer) and not np.isfinite(measured).all():
        raise ValueError("values are not finite; leave failed lanes out")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a number between 0 and 1 is accepted")
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}; at least 1 is accepted")
    drawn = _statistics(
        jax.random.split(identity.one_key(key), num_resamples), measured, statistic
    )
    tail = (1 - level) / 2
    low, high = jnp.quantile(drawn, jnp.asarray([tail, 1 - tail], jnp.float32))
    return Interval(statistic(measured), low, high, level)


@functools.partial(jax.jit, static_argnames="statistic")
def _statistics(
    keys: PRNGKeys, values: Float[Array, "..."], statistic: Callable[[Array], Scalar]
) -> Float[Array, " n"]:
    return jax.vmap(lambda key: statistic(_resampled(key, values)))(keys)


def _resampled(key: PRNGKey, values: Float[Array, "..."]) -> Float[Array, "..."]:
    outer, inner = jax.random.split(key)
    rows = values[_places(outer, (len(values),), len(values))]
    if values.ndim == 1:
        return rows
    places = _places(inner, values.shape, values.shape[1])
    return jnp.take_along_axis(rows, places, axis=1)


def _places(key: PRNGKey, shape: tuple[int, ...], num: int) -> Int[Array, "..."]:
    return jax.random.randint(key, shape, 0, num, jnp.int32)
