"""The record of a lane: its line of metrics.jsonl.

A new column of metrics.jsonl is a field of `Record` and a line of `record_of`; a column
of one study alone is returned by the study's `measure`.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from invjax.inversion import objective
from invjax.inversion.objective import Terms
from invjax.inversion.result import FAILED, STATUS_WORDS, Status
from invjax.metrics import errors, lpips
from invjax.runs import lanes
from invjax.runs.lanes import Lane
from invjax.runs.settings import Settings
from invjax.runs.targets import masked


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of a lane that has ended; None is null in metrics.jsonl.

    Attributes:
      image: name of the image, or of the recorded code.
      representation: name of the representation.
      start: number of the start.
      seed: seed of the run.
      preset: name of the preset.
      tv_weight, alpha_weight: lambda_V and lambda_alpha.
      status: "converged", "budget" (all steps were taken) or "failed" (not finite).
      num_steps: number of steps taken.
      dead_start, num_revivals: as in `Result`; None where it was not looked at.
      energy, objective: as in `Result`.
      data_term, alpha_term, tv_term: summands of the energy.
      relative_error: |phi(x) - phi0| / |phi0|, under the mask where there is one; None
        of a failed lane, and where the data term has no target to reach. Of several
        representations together, the root of the mean of their squares, weighted as
        they were inverted, and the column `relative_errors` has each.
      normalised_error: |phi(x) - phi0| / N; None as `relative_error`, with a mask, and
        of several representations together.
      psnr, ssim, lpips, rms: likeness of the clipped picture to the original (dB, -1 to
        1, 0 and up, root mean square difference in [0, 1]); None of a failed lane, and
        where there is no original or, for LPIPS, no weights.
      seconds: wall time since the results before, divided by the number of lanes that
        ended together; it includes compiling, measuring and writing.
      variant: name of the study's variant; None for none.
      history: steps, and the objective at each with four figures: [0, 1.013], ...; of a
        lane that did not fail, the last is `num_steps`. None where none was recorded,
        as for Markov chains.
      measured: further columns of a study, by name.
    """

    image: str
    representation: str
    start: int
    seed: int
    preset: str
    tv_weight: float
    alpha_weight: float
    status: Status
    num_steps: int
    dead_start: bool | None
    num_revivals: int | None
    energy: float
    objective: float
    data_term: float
    alpha_term: float
    tv_term: float
    relative_error: float | None = None
    normalised_error: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    rms: float | None = None
    seconds: float | None = None
    variant: str | None = None
    history: Sequence[Sequence[float]] | None = None
    measured: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def has_failed(self) -> bool:
        """Whether the objective became infinite or not a number."""
        return self.status == STATUS_WORDS[FAILED]

    def value(self, name: str) -> Any:
        """A field or a measured column by name.

        Raises:
          KeyError: there is none of that name.
        """
        if name in self.measured:
            return self.measured[name]
        if name in _FIELDS:
            return getattr(self, name)
        raise KeyError(name)

    def number(self, name: str) -> float:
        """A field or a measured column as a number; NaN where it is None."""
        value = self.value(name)
        return math.nan if value is None else float(value)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "Record":
        """The record of a line of metrics.jsonl.

        Args:
          line: the line's fields by name; what is no field was measured by a study.
        """
        fields = {name: value for name, value in line.items() if name in _FIELDS}
        for name in _NEVER_NONE:
            # null is what strict JSON has for numbers that are not finite.
            if fields[name] is None:
                fields[name] = math.nan
        others = {name: value for name, value in line.items() if name not in _FIELDS}
        return cls(**fields, measured=others)

    def with_measured(self, measured: Mapping[str, Any]) -> "Record":
        """The record with further columns."""
        return dataclasses.replace(self, measured={**self.measured, **measured})

    def as_json(self) -> dict[str, Any]:
        """The record as strict JSON has it, a line of metrics.jsonl."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        for name in ("variant", "history"):
            if fields[name] is None:
                del fields[name]
        return strict(fields | dict(self.measured))


HISTORY_EVERY = 10
"""Number of steps between the values of `Record.history`."""

_FIELDS = tuple(
    field.name for field in dataclasses.fields(Record) if field.name != "measured"
)

_NEVER_NONE = ("energy", "objective", "data_term", "alpha_term", "tv_term")

_likeness = jax.jit(errors.likeness)


def record_of(
    lane: Lane,
    settings: Settings,
    *,
    image: np.ndarray,
    code: Any,
    status: int,
    num_steps: int,
    energy: float,
    terms: Terms,
    objective_value: float | None = None,
    dead_start: bool | None = None,
    num_revivals: int | None = None,
    seconds: float | None = None,
    lpips_parameters: lpips.Parameters | None = None,
    history: np.ndarray | None = None,
) -> Record:
    """The record of an image that was found for a lane, by whatever method.

    Args:
      lane: the lane.
      settings: settings of the run.
      image: [h, w, c], not clipped.
      code: its code, by the float32 representation.
      status: as in `Result`.
      num_steps: number of steps taken.
      energy: energy of the image.
      terms: summands of the energy.
      objective_value: what was minimised; by default the energy.
      dead_start, num_revivals: as in `Result`; None where it was not looked at.
      seconds: wall time.
      lpips_parameters: weights of LPIPS; None where they are not at hand.
      history: [t], as in `Result`, every `HISTORY_EVERY` steps; None for none.
    """
    record = Record(
        image=lane.target.name,
        representation=lane.group.name,
        start=lane.start,
        seed=settings.seed,
        preset=lane.preset(settings),
        tv_weight=lane.tv_weight,
        alpha_weight=lane.alpha_weight(settings),
        status=STATUS_WORDS[status],
        num_steps=num_steps,
        dead_start=dead_start,
        num_revivals=num_revivals,
        energy=energy,
        objective=energy if objective_value is None else objective_value,
        data_term=float(terms.data),
        alpha_term=float(terms.alpha),
        tv_term=float(terms.tv),
        seconds=seconds,
        variant=lane.variant_name,
        history=None if history is None else _with_steps(history, num_steps),
    )
    if record.has_failed:
        return record
    measured = code_errors(lane, code, settings)
    original = lane.target.original
    if original is not None:
        likeness = _likeness(image, original, parameters=lpips_parameters)
        measured |= {name: float(value) for name, value in likeness._asdict().items()}
        if lpips_parameters is None:
            measured["lpips"] = None
    return dataclasses.replace(record, **measured)


def strict(record: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as strict JSON has it: null for what is not a finite number.

    Examples:
      >>> strict({"psnr": np.float32("inf"), "ssim": 0.5, "image": "chelsea"})
      {'psnr': None, 'ssim': 0.5, 'image': 'chelsea'}
    """
    return {name: _strict(value) for name, value in record.items()}


def lines(records: Sequence[Mapping[str, Any]]) -> str:
    """Mappings as lines of strict JSON."""
    rows = (json.dumps(strict(record), allow_nan=False) for record in records)
    return "".join(f"{row}\n" for row in rows)


class Tally:
    """Counts of what a summary says of lanes besides their errors.

    However many lanes there are, none is kept.
    """

    def __init__(self) -> None:
        self._num_lanes = 0
        self._counts = dict.fromkeys(
            ("failed", "began at a dead start", "left a dead start"), 0
        )
        self._num_first = 0
        self._percentiles = (0, 0.0)

    def add(self, record: Record) -> None:
        """Counts a lane."""
        self._num_lanes += 1
        is_dead = bool(record.dead_start)
        for words, holds in (
            ("failed", record.has_failed),
            ("began at a dead start", is_dead),
            ("left a dead start", bool(record.num_revivals) and not is_dead),
        ):
            self._counts[words] += holds
        percentile = record.measured.get("identification_percentile")
        if percentile is not None:
            number, total = self._percentiles
            self._percentiles = number + 1, total + percentile
        self._num_first += record.measured.get("identification_rank") == 0

    def remarks(self) -> list[str]:
        """Lines such as "1 of 4 lanes failed"; nothing where all is well.

        The others are of dead starts: lanes that began at one (`Record.dead_start`),
        and those that --dead_relu led out of one; and of identification, where it was
        asked for.
        """
        found = [
            f"{count} of {self._num_lanes} lanes {words}"
            for words, count in self._counts.items()
            if count
        ]
        number, total = self._percentiles
        if number:
            found.append(
                f"{self._num_first} of {number} lanes identified, mean percentile "
                f"{total / number:.2f}"
            )
        return found


def remarks(records: Iterable[Record]) -> list[str]:
    """What a summary says of lanes besides their errors; see `Tally.remarks`."""
    tally = Tally()
    for record in records:
        tally.add(record)
    return tally.remarks()


def _with_steps(history: np.ndarray, num_steps: int) -> list[list[float]]:
    """Steps and values of a `Result.history`; what is not finite is left out."""
    steps = [*range(0, HISTORY_EVERY * (len(history) - 1), HISTORY_EVERY), num_steps]
    return [
        [step, float(f"{value:.4g}")]
        for step, value in zip(steps, history.tolist(), strict=True)
        if math.isfinite(value)
    ]


def code_errors(lane: Lane, code: Any, settings: Settings) -> dict[str, Any]:
    """The errors of a code by the names of `Record`'s fields, as far as they exist.

    Args:
      lane: the lane whose target it is compared with.
      code: the code of an image, by the float32 representation.
      settings: settings of the run.
    """
    if lane.data_term in objective.LINEAR_TERMS:
        return {}
    if isinstance(code, Mapping):
        return _errors_of_parts(lane, code, settings)
    target, mask = lane.target.code, lane.mask
    if mask is not None:
        # The code scale is that of whole codes, so nothing is normalised by it.
        error = errors.relative_error(masked(code, mask), masked(target, mask))
        return {"relative_error": float(error)}
    scale = lane.group.code_scale
    return {
        "relative_error": float(errors.relative_error(code, target)),
        "normalised_error": float(errors.normalised_error(code, target, scale)),
    }


def _errors_of_parts(
    lane: Lane, code: Mapping[str, np.ndarray], settings: Settings
) -> dict[str, Any]:
    """Errors of a code of several representations: of each, and of all as minimised."""
    found, target = (masked(each, lane.mask) for each in (code, lane.target.code))
    own = {
        name: float(errors.relative_error(part, target[name]))
        for name, part in found.items()
    }
    weights = lanes.code_weights(lane.group.phi, settings) or dict.fromkeys(own, 1.0)
    squares = sum(weights[name] * error**2 for name, error in own.items())
    return {
        "relative_error": math.sqrt(squares / sum(weights.values())),
        "measured": {RELATIVE_ERRORS: own},
    }


RELATIVE_ERRORS = "relative_errors"
"""Column of the errors of each representation, where several are inverted together."""


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        value = np.asarray(value).tolist()
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float):
        # Seven figures are what float32 holds.
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
