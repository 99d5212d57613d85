"""What is compiled of a descent: choices that make a program, phases of a schedule."""

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from invjax import objective, priors, solvers
from invjax.priors import Canvas
from invjax.representations.tracing import Argument
from invjax.types import DataTerm, Image, Scalar


@dataclasses.dataclass(frozen=True)
class Program:
    """The static part of a lane's computation.

    Attributes:
      solver: with its choices.
      image_shape: [h, w, c] of what the representation sees.
      form: whose energy is minimised.
      exponents: of the regularisers that are minimised.
      data_term: how far a code is from the target.
      jitter: places of the image along each axis of its canvas; 1 is none.
      start: "gaussian" or "uniform" noise; see `start`.
    """

    solver: solvers.Solver
    image_shape: tuple[int, int, int]
    form: Literal["cvpr2015", "ijcv2016"] = "cvpr2015"
    exponents: objective.Exponents = objective.Exponents()  # noqa: RUF009
    data_term: DataTerm = objective.squared_error
    jitter: int = 1
    start: Literal["gaussian", "uniform"] = "gaussian"

    @property
    def canvas_shape(self) -> tuple[int, int, int]:
        return priors.canvas_shape(self.image_shape, jitter=self.jitter)

    @property
    def minimises_energy(self) -> bool:
        """Whether the objective of a step is the energy of its image."""
        return self.form == "cvpr2015" and self.jitter == 1

    def minimised(
        self,
        z: Canvas,
        phi: Argument,
        problem: objective.Problem,
        *,
        seen: Image | None = None,
    ) -> tuple[Scalar, objective.Terms]:
        """What is minimised, of an image or a canvas of which a part is seen."""
        form = objective.energy if self.form == "cvpr2015" else objective.ijcv_energy
        return form(
            z,
            phi,
            problem,
            exponents=self.exponents,
            data_term=self.data_term,
            seen=seen,
        )

    def energy(
        self, z: Image, phi: Argument, problem: objective.Problem
    ) -> tuple[Scalar, objective.Terms]:
        """The energy of `Result`: alpha 6 and beta 2 where it is not minimised."""
        if self.form == "cvpr2015":
            return self.minimised(z, phi, problem)
        return objective.energy(z, phi, problem, data_term=self.data_term)


class Phase(NamedTuple):
    """A program, and what changes from step to step.

    Attributes:
      program: the static part.
      schedule: share of the learning rate at each step.
      relaxation: how far the representation's derivative is relaxed at each step, 0 to
        1, where it can be; None is exact throughout. See `relaxation`.
    """

    program: Program
    schedule: Float[np.ndarray, " t"]
    relaxation: Float[np.ndarray, " t"] | None = None

    def at(self, steps: int | slice) -> tuple[Any, Any]:
        """Share of the rate, and relaxation: what `step` and `scan_steps` take."""
        relaxation = None if self.relaxation is None else self.relaxation[steps]
        return self.schedule[steps], relaxation
