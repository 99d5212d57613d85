"""The result of a lane."""

from typing import Literal, NamedTuple

from jaxtyping import Array, Bool, Float, Int

from invjax.inversion.objective import Terms
from invjax.types import Image, Scalar

CONVERGED, BUDGET, FAILED = 0, 1, 2
Status = Literal["converged", "budget", "failed"]

STATUS_WORDS: tuple[Status, ...] = ("converged", "budget", "failed")
"""Words for `Result.status`, by its value."""


class Result(NamedTuple):
    """What an inversion found; in a batch every field has a leading axis [l].

    Attributes:
      image: [h, w, c] in the representation's range ([0, 1], not clipped): the final
        iterate or, of a failed lane, the last one whose objective was finite. With
        jitter, the central crop of the canvas.
      energy: energy of `image`: the data term plus the weighted regularisers of CVPR
        2015, whatever was minimised, so that presets can be compared.
      objective: value of what was minimised, at `image` and without jitter; equal to
        the energy under all presets but ijcv2016.
      terms: the summands of the energy (data, alpha, tv), weights included.
      status: int32: 0 converged, 1 budget (all steps were taken), 2 failed (the
        objective was not finite); `STATUS_WORDS` has the words. Lanes converge only
        with a tolerance, when `lane.PATIENCE` steps in a row have not decreased the
        lowest objective by that fraction of it.
      num_steps: number of steps taken before the lane ended.
      best_image, best_energy: the iterate of lowest energy. Where steps do not compute
        the energy (under ijcv2016, and with jitter) only two iterates are compared: the
        final one, and that of the lowest objective in a step.
      history: the objective at steps 0, k, 2k, ..., with the crop that the step drew,
        and `objective` last. NaN at steps that a lane did not take, and last of a
        failed one. It is the energy wherever the energy is minimised without jitter.
      dead_start: whether the descent began where no ReLU between the image and the
        features that count was on; see `dead_starts`.
      num_revivals: what `dead_relu` took to leave a dead start: noises drawn anew, or
        relaxed steps. 0 where the first noise was not dead, or nothing was asked for.
    """

    image: Image
    energy: Scalar
    objective: Scalar
    terms: Terms
    status: Int[Array, ""]
    num_steps: Int[Array, ""]
    best_image: Image
    best_energy: Scalar
    history: Float[Array, " t"]
    dead_start: Bool[Array, ""]
    num_revivals: Int[Array, ""]
