"""Confidence intervals by resampling what was measured, images first, then starts."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from invjax.types import PRNGKey, PRNGKeys, Scalar


class Interval(NamedTuple):
    """A statistic of what was measured, and the interval it lies in with `level`."""

    estimate: float
    low: float
    high: float
    level: float


def interval(
    key: PRNGKey,
    values: Float[ArrayLike, "..."],
    *,
    statistic: Callable[[Array], Scalar] = jnp.mean,
    level: float = 0.95,
    num_resamples: int = 2000,
) -> Interval:
    """The percentile interval of the bootstrap (Efron & Tibshirani 1993, section 13).

    Of values [n], n draws with replacement. Of values [images, starts], as many images
    with replacement and, in each drawn image anew, as many of its starts: starts of one
    image are alike, so treating all values as independent would promise too much.
    Distances between pairs of starts share starts; pass their mean per image.

    With few values the interval is too narrow: for n = 10 a nominal 95 % holds the
    truth in about 90 % of cases.

    Args:
      key: of the draws.
      values: [n] or [images, starts].
      statistic: of the resampled values, in their shape; the mean by default. Traced.
      level: of confidence, between 0 and 1.
      num_resamples: how many sets are drawn.

    Raises:
      ValueError: values of another rank, none, or not finite; a level or number of
        resamples out of range.
    """
    array = np.asarray(values, np.float32)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(
            f"values have shape {array.shape}; (n,) and (images, starts) are accepted"
        )
    if not np.isfinite(array).all():
        raise ValueError("values are not finite; leave failed lanes out")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a number between 0 and 1 is accepted")
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}; at least 1 is accepted")
    measured = jnp.asarray(array)
    drawn = _statistics(jax.random.split(key, num_resamples), measured, statistic)
    tail = (1 - level) / 2
    low, high = np.quantile(np.asarray(drawn, np.float64), [tail, 1 - tail])
    return Interval(float(statistic(measured)), float(low), float(high), level)


@functools.partial(jax.jit, static_argnames="statistic")
def _statistics(
    keys: PRNGKeys, values: Float[Array, "..."], statistic: Callable[[Array], Scalar]
) -> Float[Array, " n"]:
    return jax.vmap(lambda key: statistic(_resampled(key, values)))(keys)


def _resampled(key: PRNGKey, values: Float[Array, "..."]) -> Float[Array, "..."]:
    outer, inner = jax.random.split(key)
    rows = values[jax.random.randint(outer, (len(values),), 0, len(values))]
    if values.ndim == 1:
        return rows
    places = jax.random.randint(inner, values.shape, 0, values.shape[1])
    return jnp.take_along_axis(rows, places, axis=1)
