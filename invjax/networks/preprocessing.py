"""What stands between an image in [0, 1] and a network's input."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """input = (255 image - mean) / std, channel by channel, RGB.

    Attributes:
      mean: grey levels (0 to 255) per channel.
      std: grey levels per channel.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def as_json(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Preprocessing":
        """The reverse of `as_json`; also reads the tables of sources.toml."""
        red, green, blue = map(float, record["mean"])
        scales = tuple(map(float, record["std"]))
        return cls((red, green, blue), (scales[0], scales[1], scales[2]))
