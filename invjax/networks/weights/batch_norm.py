"""What batch normalisation knew about the outputs of convolutions it is folded into.

Normalised outputs have the mean beta and the standard deviation
|gamma| sqrt(var / (var + epsilon)) per channel, over the training set and all places,
where gamma, beta, var and epsilon are the normalisation's scale, offset, running
variance and constant. Folding keeps the outputs and loses these numbers, so they are
kept beside the parameters. A checkpoint has them as the tensors
"batch_norm/<convolution>/mean" and "batch_norm/<convolution>/std".
"""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

PREFIX = "batch_norm/"
"""Names of these tensors in a checkpoint start so; no layer has this name."""


class Moments(NamedTuple):
    """A convolution's output over the training set, before any ReLU.

    Attributes:
      mean: mean of each channel.
      std: standard deviation of each channel, not negative.
    """

    mean: Float32[np.ndarray, " c"]
    std: Float32[np.ndarray, " c"]


class Statistics(Mapping[str, Moments]):
    """Moments by the name of the convolution, as "stem/conv" or "block3/expand".

    Equality and hash are by value, so that it can be a static part of a pytree.

    Args:
      moments: the moments by name, in the order of the network.

    Examples:
      >>> ones = np.ones(2, np.float32)
      >>> found = Statistics({"stem/conv": Moments(0 * ones, ones)})
      >>> found["stem/conv"].std.tolist(), list(found.tensors())
      ([1.0, 1.0], ['batch_norm/stem/conv/mean', 'batch_norm/stem/conv/std'])
    """

    def __init__(self, moments: Mapping[str, Moments] | None = None):
        self._moments = dict(moments or {})

    def __getitem__(self, name: str) -> Moments:
        return self._moments[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._moments)

    def __len__(self) -> int:
        return len(self._moments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"Statistics({list(self)})"

    @functools.cached_property
    def _digest(self) -> bytes:
        """SHA-256 of all names and values."""
        found = hashlib.sha256()
        for name, moments in self.items():
            for part in (name.encode(), *(m.tobytes() for m in moments)):
                found.update(hashlib.sha256(part).digest())
        return found.digest()

    def of_layers(self, names: tuple[str, ...]) -> "Statistics":
        """The moments of the convolutions in these layers of the table.

        Args:
          names: names of layers, such as "block3", which holds "block3/expand".
        """
        return Statistics(
            {n: found for n, found in self.items() if n.partition("/")[0] in names}
        )

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays by their names in a checkpoint."""
        return {
            f"{PREFIX}{name}/{leaf}": array
            for name, moments in self.items()
            for leaf, array in moments._asdict().items()
        }


def moments_of(norm: Mapping[str, np.ndarray], epsilon: float) -> Moments:
    """Mean and standard deviation of what a batch normalisation returns.

    Args:
      norm: "weight", "bias" and "running_var" of the normalisation, [c] each.
      epsilon: constant added to the variance.

    Examples:
      >>> norm = {"weight": [-2.0], "bias": [0.5], "running_var": [3.0]}
      >>> moments_of({name: np.array(row) for name, row in norm.items()}, epsilon=1.0)
      Moments(mean=array([0.5], dtype=float32), std=array([1.7320508], dtype=float32))
    """
    scale, variance = (norm[n].astype(np.float64) for n in ("weight", "running_var"))
    std = np.abs(scale) * np.sqrt(variance / (variance + epsilon))
    return Moments(norm["bias"].astype(np.float32), std.astype(np.float32))


def split(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], Statistics]:
    """The parameters among the tensors of a checkpoint, and the statistics.

    Args:
      tensors: arrays by name.
      shapes: shapes of all parameters of the network, by name.

    Returns:
      The other tensors, and the statistics in the order of the network; none where the
      checkpoint has none.

    Raises:
      ValueError: the statistics are not those of convolutions of the network.
    """
    others = {n: array for n, array in tensors.items() if not n.startswith(PREFIX)}
    mine = {n: array for n, array in tensors.items() if n.startswith(PREFIX)}
    found: dict[str, Moments] = {}
    for name in (n.removesuffix("/bias") for n in shapes if n.endswith("/bias")):
        names = [f"{PREFIX}{name}/{leaf}" for leaf in Moments._fields]
        if not any(n in mine for n in names):
            continue
        for n in names:
            if n not in mine or mine[n].shape != shapes[f"{name}/bias"]:
                raise ValueError(f"{n} is missing, or has not a number per channel")
        mean, std = (np.asarray(mine.pop(n), np.float32) for n in names)
        found[name] = Moments(mean, std)
    if mine:
        raise ValueError(f"unexpected {', '.join(sorted(mine))}")
    return others, Statistics(found)
