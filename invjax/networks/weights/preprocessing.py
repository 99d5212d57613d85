"""Preprocessing: from an image in [0, 1] to the input of a network."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

Mean = tuple[float, float, float] | np.ndarray
"""Grey levels, 0 to 255: one number per channel, or a mean image [h, w, 3]."""


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocessing:
    """A network's input as a function of the image: (255 image - mean) / std.

    The image is RGB in [0, 1], also for networks that were trained on BGR images: the
    channels of their first kernel are swapped at conversion. Equality and hash are by
    value.

    Attributes:
      mean: grey levels, 0 to 255: one per channel, or a mean image, float32 [h, w, 3].
      std: standard deviation in grey levels, one per channel.

    Examples:
      >>> Preprocessing((124.0, 117.0, 104.0)).as_json()
      {'channels': 'RGB', 'mean': [124.0, 117.0, 104.0], 'std': [1.0, 1.0, 1.0]}
    """

    mean: Mean
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def mean_colour(self) -> tuple[float, float, float]:
        """The mean per channel in grey levels, averaged over a mean image's pixels."""
        if isinstance(self.mean, np.ndarray):
            return _triple(self.mean.mean((0, 1), dtype=np.float64))
        return self.mean

    def as_json(self) -> dict[str, Any]:
        """JSON values; the pixels of a mean image are left out and kept as a tensor."""
        mean = "image" if isinstance(self.mean, np.ndarray) else list(self.mean)
        return {"channels": "RGB", "mean": mean, "std": list(self.std)}

    @classmethod
    def from_json(
        cls, record: Mapping[str, Any], mean_image: np.ndarray | None = None
    ) -> "Preprocessing":
        """The reverse of `as_json`, which also reads the tables of sources.toml.

        Args:
          record: the values that `as_json` returned.
          mean_image: the mean image [h, w, 3] if the record says that there is one.

        Raises:
          KeyError, TypeError, ValueError: a field is missing or of another kind, or
            the record says that there is a mean image and none is given, or the other
            way round.
        """
        std = _triple(record["std"])
        if (record["mean"] == "image") != (mean_image is not None):
            raise ValueError("mean and mean image contradict each other")
        return cls(_triple(record["mean"]) if mean_image is None else mean_image, std)

    def _key(self) -> tuple[Any, ...]:
        """A hashable tuple of all values."""
        if isinstance(self.mean, np.ndarray):
            return (self.mean.shape, self.mean.tobytes(), self.std)
        return (self.mean, self.std)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preprocessing) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def _triple(values: Any) -> tuple[float, float, float]:
    """Exactly three values as floats."""
    first, second, third = map(float, values)
    return (first, second, third)
