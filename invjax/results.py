"""What is told of a lane when it has ended."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int

from invjax import objective
from invjax.types import Image, Scalar

CONVERGED, BUDGET, FAILED = 0, 1, 2
STATUS_WORDS = ("converged", "budget", "failed")
"""Words for `Result.status`, by its value."""


class Result(NamedTuple):
    """What became of a lane; `invert_batch` puts a leading [l] on every field.

    Attributes:
      image: [h, w, c] in the representation's range ([0, 1], not clipped): the final
        iterate, or of a failed lane the last one whose objective was finite. Of a
        jittered canvas its central crop.
      energy: of `image`: data term + weighted regularisers, the CVPR 2015 form whatever
        was minimised, so that presets can be compared.
      objective: what was minimised, at `image` and without jitter; the energy itself
        under all presets but ijcv2016.
      terms: the energy's summands (data, alpha, tv), weights included.
      status: int32; see `STATUS_WORDS`. Only with a tolerance do lanes converge: when
        `PATIENCE` steps in a row have not lowered the best value of what is minimised
        by `tolerance` of it.
      num_steps: steps taken before the lane ended, converged or failed.
      best_image, best_energy: the iterate of lowest energy. Where steps do not know
        the energy (under ijcv2016, and with jitter), the better by energy of two: the
        final iterate, and that of the lowest objective in a step.
      history: what was minimised at steps 0, k, 2k, ... of the schedule, with the crop
        that the step drew, and `objective` last; NaN at steps that a lane did not take,
        and last of a failed one. It is the energy wherever that is what is minimised,
        without jitter; elsewhere the energy of every step would cost one more pass
        through the representation.
      dead_start: whether the descent began where no ReLU between the image and the
        features asked for was on; see `objective.is_dead`.
      num_revivals: what `dead_relu` took to leave a dead start: noises drawn anew, or
        relaxed steps; 0 where the first noise was alive, or nothing was asked for.
    """

    image: Image
    energy: Scalar
    objective: Scalar
    terms: objective.Terms
    status: Int[Array, ""]
    num_steps: Int[Array, ""]
    best_image: Image
    best_energy: Scalar
    history: Float[Array, " t"]
    dead_start: Bool[Array, ""]
    num_revivals: Int[Array, ""]
