"""The settings of a run, which config.json keeps, and the request around them."""

import dataclasses
from typing import Any

from invjax.inversion import objective, presets
from invjax.runs.processes import Process
from invjax.types import DataTerm, Representation

SMOKE_STEPS = 5
"""Number of steps of a lane under --smoke."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines the numbers of a run.

    Attributes:
      images: files, globs, folders and sample:NAME, comma-separated; None with `code`.
      code: files, globs and folders of recorded codes, comma-separated, in place of
        images.
      representations: names of representations; those with a colon are of --module
        (`runs.modules`).
      preset: name of the preset.
      num_steps: number of steps of a lane; None for the preset's.
      num_starts: number of random starts of each code.
      tv_weight: one or more values of lambda_V; None for the preset's, by depth.
      alpha_weight: lambda_alpha; None for the preset's.
      tolerance: relative decrease below which a lane converges; None for no test.
      dead_relu: the way out of dead starts; None for none.
      image_size: side in pixels of the square for networks, short side for shallow
        representations; None for the network's own and the image's own.
      resize: "crop" or "stretch": how images become square.
      batch_size: number of lanes that run side by side, on GPU and TPU on each device;
        None for what fits there, and 16 on CPU (`capacity.batch_size`).
      compute_dtype: "float32" or "bfloat16", of a network's arithmetic in the descent.
      weights_dir: folder of converted weights; None for the default.
      save_arrays: whether unclipped images and their codes are written, too.
      seed: the seed of the run.
      smoke: whether only two lanes of five steps are run, to see that it works.
      identify_among: images among which originals are identified, named as `images`;
        None for no identification.
      on_bad_image: "skip" passes over images that cannot be used, "refuse" refuses the
        run because of one.
      classifier: name of the network's last layer that names pictures; None for one
        that is not inverted (`labels.judge`).
      code_weights: weights of the data terms of representations that are inverted
        together, in their order; None for equal ones.
      code_layout: "channels_last" or "channels_first", the order of the axes of
        recorded codes and masks; None where it is to be told by their shape.
      mask: files of masks over codes, named as `code`; None where all features count.
      initial_image: images to start from in place of noise, named as `images`, or files
        of arrays; None for noise.
      save_trajectory: number of steps between pictures that are kept of each descent;
        None for none.
      tensorboard: whether event files for TensorBoard are written.
      mean, std: by which images are prepared for networks of --module, in units of
        [0, 1], one number or one per channel; None for 0 and 1.
      layout: order of axes in which they take an image; None for their framework's.
    """

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
    batch_size: int | None
    compute_dtype: str
    weights_dir: str | None
    save_arrays: bool
    seed: int
    smoke: bool
    identify_among: str | None = None
    on_bad_image: str = "skip"
    classifier: str | None = None
    code_weights: tuple[float, ...] | None = None
    code_layout: str | None = None
    mask: str | None = None
    initial_image: str | None = None
    save_trajectory: int | None = None
    tensorboard: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None

    def steps(
        self,
        phi: Representation,
        *,
        preset: str | None = None,
        data_term: DataTerm = objective.squared_error,
    ) -> int:
        """Number of steps of a lane.

        Args:
          phi: the representation.
          preset: name of the preset where it is not the run's.
          data_term: the data term that is minimised.
        """
        if self.smoke:
            return SMOKE_STEPS
        if self.num_steps is not None:
            return self.num_steps
        return presets.find(
            preset or self.preset, phi=phi, data_term=data_term
        ).num_steps

    def as_json(self) -> dict[str, Any]:
        """The settings by name, as config.json has them."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Request:
    """The settings of a run, and what is to be done with them.

    Attributes:
      settings: the settings.
      workdir: folder for the results; None where nothing is written.
      dry_run: whether time and memory are predicted and nothing is run.
      overwrite: whether a run in `workdir` is replaced.
      process: which of the processes that share the run this one is.
    """

    settings: Settings
    workdir: str | None
    dry_run: bool
    overwrite: bool
    process: Process = Process()
