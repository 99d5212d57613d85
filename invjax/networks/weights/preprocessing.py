"""What stands between an image in [0, 1] and a network's input."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

Mean = tuple[float, float, float] | np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocessing:
    """input = (255 image - mean) / std, RGB.

    Networks trained on BGR images take RGB here: the channels of their first kernel
    are swapped at conversion. Equality and hash are by value.

    Attributes:
      mean: grey levels (0 to 255): one per channel, or a mean image, float32 [h, w, 3].
      std: grey levels per channel.
    """

    mean: Mean
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def mean_colour(self) -> tuple[float, float, float]:
        """The mean per channel; of a mean image, averaged over its pixels."""
        if isinstance(self.mean, np.ndarray):
            return _triple(self.mean.mean((0, 1), dtype=np.float64))
        return self.mean

    def as_json(self) -> dict[str, Any]:
        """Without the pixels of a mean image, which are kept as a tensor."""
        mean = "image" if isinstance(self.mean, np.ndarray) else list(self.mean)
        return {"channels": "RGB", "mean": mean, "std": list(self.std)}

    @classmethod
    def from_json(
        cls, record: Mapping[str, Any], mean_image: np.ndarray | None = None
    ) -> "Preprocessing":
        """The reverse of `as_json`; also reads the tables of sources.toml.

        Raises:
          KeyError, TypeError, ValueError: a field is missing or not of this kind, or
            the record wants a mean image and there is none, or the other way round.
        """
        std = _triple(record["std"])
        if (record["mean"] == "image") != (mean_image is not None):
            raise ValueError("mean and mean image contradict each other")
        return cls(_triple(record["mean"]) if mean_image is None else mean_image, std)

    def _key(self) -> tuple[Any, ...]:
        if isinstance(self.mean, np.ndarray):
            return (self.mean.shape, self.mean.tobytes(), self.std)
        return (self.mean, self.std)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preprocessing) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return (first, second, third)
