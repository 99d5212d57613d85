"""DOC: to be written."""

import dataclasses
from typing import Any

from invjax.inversion import presets
from invjax.types import Representation


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines the numbers of a run; written to config.json."""

    images: str | None
    code: str | None
    representations: tuple[str, ...]
    preset: str
    num_steps: int | None
    num_starts: int
    tv_weight: tuple[float, ...] | None
    alpha_weight: float | None
    tolerance: float | None
    dead_relu: str | None
    image_size: int | None
    resize: str
    batch_size: int
    compute_dtype: str
    weights_dir: str | None
    save_arrays: bool
    seed: int
    smoke: bool

    def steps(self, phi: Representation) -> int:
        """Steps of a lane of this representation."""
        if self.smoke:
            return 5
        return self.num_steps or presets.find(self.preset, phi=phi).num_steps

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Request:
    """The settings, and what to do with them."""

    settings: Settings
    workdir: str | None
    dry_run: bool
    overwrite: bool
