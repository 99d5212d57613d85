"""Carries out the lanes of a run: inverts them, shows progress, keeps results."""

import contextlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from invjax import callables, files, identity
from invjax.images import reading
from invjax.inversion import api, dead_starts, objective, request
from invjax.inversion.result import Result
from invjax.metrics import lpips
from invjax.report import contrast
from invjax.runs import lanes, records
from invjax.runs.folder import RunFolder
from invjax.runs.identification import Identifier
from invjax.runs.lanes import Group, Lane
from invjax.runs.records import Record
from invjax.runs.settings import Settings


class Outcome(NamedTuple):
    """A lane that has ended.

    Attributes:
      lane: the lane.
      record: its line of metrics.jsonl.
      image: [h, w, c], not clipped; of a failed lane the last finite one.
      code: its code, by the float32 representation.
    """

    lane: Lane
    record: Record
    image: np.ndarray
    code: np.ndarray

    @property
    def picture(self) -> np.ndarray | None:
        """The image; None of a failed lane."""
        return None if self.record.has_failed else self.image


Measure = Callable[[Outcome], Mapping[str, Any]]
"""Returns further columns of an outcome's record, of the same names for every lane."""


def lane_key(lane: Lane, settings: Settings) -> jax.Array:
    """The key of a lane."""
    return identity.lane_key(settings.seed, lane.target.image_id, lane.start)


def invert(
    planned: Sequence[Lane],
    settings: Settings,
    *,
    lpips_parameters: lpips.Parameters | None = None,
) -> Generator[list[Outcome], None, None]:
    """Inverts lanes and yields outcomes as they come; nothing is written.

    Args:
      planned: the lanes; neighbours that one compiled program serves run together.
      settings: settings of the run.
      lpips_parameters: weights of LPIPS; without them records have none.
    """
    for _, members in itertools.groupby(planned, _program):
        mine = list(members)
        stream = _stream(mine, settings)
        # Closed also where the consumer stops, so that no thread goes on.
        with contextlib.closing(stream):
            before = time.perf_counter()
            for numbers, results in stream:
                now = time.perf_counter()
                seconds, before = (now - before) / len(numbers), now
                yield [
                    _outcome(
                        mine[number],
                        jax.tree.map(lambda leaf, row=row: leaf[row], results),
                        settings,
                        seconds=seconds,
                        lpips_parameters=lpips_parameters,
                    )
                    for row, number in enumerate(numbers)
                ]


def run(
    planned: Sequence[Lane],
    settings: Settings,
    folder: RunFolder,
    *,
    lpips_parameters: lpips.Parameters | None = None,
    measure: Measure | None = None,
    pictures: str = "reconstructions",
    stretched: str | None = None,
    identifier: Identifier | None = None,
) -> Iterator[Outcome]:
    """Inverts lanes; the files of a lane are written before it is yielded.

    Progress is a bar on a terminal and a line per lane elsewhere, both with the time
    that has passed and, at the pace so far, the time that is left.

    Args:
      planned: the lanes, in order.
      settings: settings of the run.
      folder: folder of the run.
      lpips_parameters: weights of LPIPS; without them records have none.
      measure: further columns of a record; None for none.
      pictures: subfolder that pictures are written to.
      stretched: subfolder for pictures stretched to their range, which a gallery shows;
        None for none.
      identifier: ranks originals; by default what --identify_among asks for.
    """
    bar = tqdm(total=len(planned), unit="lane", disable=not sys.stderr.isatty())
    began = time.monotonic()
    number = 0
    identifier = identifier or Identifier.of(settings)
    outcomes = invert(planned, settings, lpips_parameters=lpips_parameters)
    with bar, contextlib.closing(outcomes):
        for chunk in outcomes:
            if measure is not None:
                chunk = [with_measured(outcome, measure) for outcome in chunk]
            if identifier is not None:
                chunk = [identified(outcome, identifier) for outcome in chunk]
            for outcome in chunk:
                write_outcome(
                    folder, outcome, settings, pictures=pictures, stretched=stretched
                )
            folder.add_records([outcome.record for outcome in chunk])
            for outcome in chunk:
                lane = outcome.lane
                number += 1
                bar.set_description(f"{lane.target.name} {lane.group.name}")
                bar.update()
                if bar.disable:
                    elapsed = time.monotonic() - began
                    line = _line(number, len(planned), outcome, elapsed)
                    print(line, flush=True)
                yield outcome


class ByCode:
    """Gathers outcomes until all lanes of a code have ended.

    A code here is what the starts share: representation, image, lambda_V and variant.
    """

    def __init__(self, planned: Sequence[Lane]):
        self._missing = Counter(lane.code_key for lane in planned)
        self._gathered: dict[Any, list[Outcome]] = {}

    def add(self, outcome: Outcome) -> list[Outcome] | None:
        """Takes an outcome; returns all outcomes of its code if it is the last one."""
        key = outcome.lane.code_key
        self._gathered.setdefault(key, []).append(outcome)
        self._missing[key] -= 1
        return None if self._missing[key] else self._gathered.pop(key)

    def incomplete(self) -> list[list[Outcome]]:
        """What an interruption has left of codes that are not complete."""
        return list(self._gathered.values())


def with_measured(outcome: Outcome, measure: Measure) -> Outcome:
    """The outcome with further columns in its record."""
    record = outcome.record.with_measured(measure(outcome))
    return outcome._replace(record=record)


def identified(outcome: Outcome, identifier: Identifier) -> Outcome:
    """The outcome with the columns of identification in its record."""
    columns = identifier.measure(outcome.lane, outcome.picture)
    return outcome._replace(record=outcome.record.with_measured(columns))


def print_estimates(planned: Sequence[Lane], settings: Settings) -> None:
    """Prints lanes, predicted time and memory, representation by representation."""
    total = 0.0

    def kind(lane: Lane) -> tuple[str, str, int]:
        return lane.group.name, lane.preset(settings), lane.num_steps(settings)

    for (name, _, steps), members in itertools.groupby(planned, kind):
        mine = list(members)
        lane = mine[0]
        estimate = api.estimate(
            lane.target.code, lane.group.phi, **lane.keywords(settings)
        )
        seconds = estimate.seconds_per_lane * len(mine)
        total += seconds
        print(
            f"{name}: {len(mine)} lanes of {steps} steps, about "
            f"{seconds:.0f} s, {estimate.num_bytes / 2**20:.0f} MiB"
        )
    print(f"{len(planned)} lanes, about {total:.0f} s besides compiling")


def write_originals(folder: RunFolder, groups: Sequence[Group]) -> dict[str, str]:
    """Writes originals/<image>.png as the first representation was given them.

    Returns:
      Paths below the folder by image; recorded codes have none.
    """
    paths = {}
    for target in groups[0].targets:
        if target.original is not None:
            paths[target.name] = f"originals/{target.name}.png"
            reading.write_png(folder.path / paths[target.name], target.original)
    return paths


def write_outcome(
    folder: RunFolder,
    outcome: Outcome,
    settings: Settings,
    *,
    pictures: str,
    stretched: str | None = None,
) -> None:
    """Writes the picture of a lane; if asked for, a stretched one and its arrays."""
    path = outcome.lane.path
    # A lane that diverges may end anywhere.
    picture = np.clip(outcome.image, 0, 1)
    reading.write_png(folder.path / pictures / f"{path}.png", picture)
    if stretched is not None:
        # From the image as it is: the PNG file has lost what lies beyond [0, 1].
        contrast.write_stretched(folder.path / stretched / f"{path}.jpg", outcome.image)
    if settings.save_arrays:
        with files.whole_file(folder.path / "arrays" / f"{path}.npz") as stream:
            np.savez_compressed(stream, image=outcome.image, code=outcome.code)


def encode(lane: Lane, image: np.ndarray) -> np.ndarray:
    """The code that errors are measured with: by the float32 representation."""
    return np.asarray(callables.encode(lanes.in_float32(lane.group.phi), image))


def start_image(lane: Lane, settings: Settings, *, num_restarts: int = 0) -> np.ndarray:
    """The image [h, w, c] that a lane's descent begins at, not clipped.

    Args:
      lane: the lane.
      settings: settings of the run.
      num_restarts: how often --dead_relu=restart has drawn the noise anew.
    """
    if lane.initial is not None:
        return lane.initial
    keywords = lane.keywords(settings)
    del keywords["execution"]
    plan = request.prepare(
        lane.target.code[None],
        lane.group.phi,
        1,
        tv_weight=np.array([lane.tv_weight]),
        **keywords,
    ).on_device()
    attempt = jnp.asarray(num_restarts, jnp.int32) if num_restarts else None
    started = dead_starts.start(lane_key(lane, settings)[None], plan, attempt=attempt)
    return np.asarray(objective.to_image(started.last[0], plan.shared.centre))


def _stream(
    planned: Sequence[Lane], settings: Settings
) -> Generator[tuple[np.ndarray, Result], None, None]:
    """Inverts lanes of one program."""
    first = planned[0]
    keywords = first.keywords(settings)
    if first.initial is not None:
        keywords["initial_image"] = np.stack(
            [lane.initial for lane in planned if lane.initial is not None]
        )
    return api.invert_stream(
        jnp.stack([lane_key(lane, settings) for lane in planned]),
        np.stack([lane.target.code for lane in planned]),
        first.group.phi,
        tv_weight=np.array([lane.tv_weight for lane in planned]),
        history_every=records.HISTORY_EVERY,
        **keywords,
    )


def _outcome(
    lane: Lane,
    result: Result,
    settings: Settings,
    *,
    seconds: float,
    lpips_parameters: lpips.Parameters | None,
) -> Outcome:
    image = np.asarray(result.image)
    code = encode(lane, image)
    record = records.record_of(
        lane,
        settings,
        image=image,
        code=code,
        status=int(result.status),
        num_steps=int(result.num_steps),
        energy=float(result.energy),
        terms=result.terms,
        objective_value=float(result.objective),
        dead_start=bool(result.dead_start),
        num_revivals=int(result.num_revivals),
        seconds=seconds,
        lpips_parameters=lpips_parameters,
        history=np.asarray(result.history),
    )
    return Outcome(lane, record, image, code)


def _program(lane: Lane) -> tuple[Any, ...]:
    """What lanes of one compiled program have in common."""
    has_initial = lane.initial is not None
    return lane.group.name, lane.target.image_shape, lane.variant, has_initial


def _line(number: int, total: int, outcome: Outcome, elapsed: float) -> str:
    lane, record = outcome.lane, outcome.record
    if record.has_failed:
        result = "failed"
    elif record.relative_error is None:
        result = f"objective {record.objective:.4g}"
    else:
        result = f"relative error {record.relative_error:.1%}"
    passed, left = (
        tqdm.format_interval(seconds)
        for seconds in (elapsed, elapsed / number * (total - number))
    )
    if record.dead_start:
        result += " from a dead start"
    variant = f"{lane.variant_name} " if lane.variant_name else ""
    return (
        f"[{number}/{total}, {passed} passed, {left} left] {lane.target.name} "
        f"{lane.group.name} {variant}tv {lane.tv_weight:g} start {lane.start}: "
        f"{result}, {record.seconds:.1f} s"
    )
