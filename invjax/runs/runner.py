"""Carries out the lanes of a binary: targets loaded, progress shown, results kept."""

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from invjax import callables, files, identity
from invjax.images import reading
from invjax.inversion import api
from invjax.metrics.lpips import Parameters
from invjax.runs import lanes, loading, records
from invjax.runs.folder import RunFolder
from invjax.runs.lanes import Lane, Outcome, Variant, execution, in_float32, keywords
from invjax.runs.settings import Settings


def run(
    planned: Sequence[Lane],
    config: Settings,
    folder: RunFolder,
    judge: Parameters | None,
    *,
    measure: Callable[[Outcome], Mapping[str, Any]] | None = None,
    pictures: str = "reconstructions",
) -> Iterator[Outcome]:
    """Inverts lanes in turn; files are written before a lane is yielded.

    Progress is a bar on a terminal and a line per lane elsewhere, both with the time
    that passed and, at the pace so far, the time that is left.

    Args:
      planned: the lanes, in order.
      config: of the run.
      folder: of the run.
      judge: for LPIPS, or None.
      measure: further numbers for a lane's record, of the same names for every lane.
      pictures: where in the folder pictures go.
    """
    bar = tqdm(total=len(planned), unit="lane", disable=not sys.stderr.isatty())
    began = time.monotonic()
    number = 0
    with bar:
        for chunk in chunks(planned, config):
            bar.set_description(f"{chunk[0].target.name} {chunk[0].group.name}")
            outcomes = invert(chunk, config, judge)
            for outcome in outcomes:
                if measure is not None:
                    outcome.record.update(measure(outcome))
                write_outcome(folder, outcome, config, pictures=pictures)
            folder.add_records([outcome.record for outcome in outcomes])
            for outcome in outcomes:
                number += 1
                bar.update()
                if bar.disable:
                    elapsed = time.monotonic() - began
                    line = _line(number, len(planned), outcome, elapsed)
                    print(line, flush=True)
                yield outcome


def print_estimates(config: Settings, *, planned: Sequence[Lane] | None = None) -> None:
    """Lanes, predicted time and memory, representation by representation.

    Args:
      config: settings of the run.
      planned: its lanes, group by group; by default those that the flags ask for.
    """
    if planned is None:
        planned = lanes.plan(loading.load_groups(config), config)
    total = 0.0
    for name, members in itertools.groupby(planned, lambda lane: lane.group.name):
        mine = list(members)
        phi, target = mine[0].group.phi, mine[0].target
        steps = config.steps(phi)
        estimate = api.estimate(
            target.code,
            phi,
            **lanes.keywords(phi, target, config),
        )
        seconds = estimate.seconds_per_lane * len(mine)
        total += seconds
        print(
            f"{name}: {len(mine)} lanes of {steps} steps, about "
            f"{seconds:.0f} s, {estimate.num_bytes / 2**20:.0f} MiB"
        )
    print(f"{len(planned)} lanes, about {total:.0f} s besides compiling")


def write_outcome(
    folder: RunFolder, outcome: Outcome, config: Settings, *, pictures: str
) -> None:
    """The picture of a lane, and its arrays if asked for."""
    path = outcome.lane.path
    reading.write_png(folder.path / pictures / f"{path}.png", outcome.image)
    if config.save_arrays:
        with files.whole_file(folder.path / "arrays" / f"{path}.npz") as stream:
            np.savez_compressed(stream, image=outcome.image, code=outcome.code)


def _line(number: int, total: int, outcome: Outcome, elapsed: float) -> str:
    lane, record = outcome.lane, outcome.record
    error = record["relative_error"]
    result = "failed" if error is None else f"relative error {error:.1%}"
    passed, left = (
        tqdm.format_interval(seconds)
        for seconds in (elapsed, elapsed / number * (total - number))
    )
    variant = f"{lane.variant.name} " if lane.variant else ""
    return (
        f"[{number}/{total}, {passed} passed, {left} left] {lane.target.name} "
        f"{lane.group.name} {variant}tv {lane.tv_weight:g} start {lane.start}: "
        f"{result}, {record['seconds']:.1f} s"
    )


_WIDTHS_PER_CALL = 8

Item = TypeVar("Item")


def chunks(lanes: Sequence[Lane], settings: Settings) -> Iterator[list[Lane]]:
    """Lanes that run in one call: of one group, as many as run side by side.

    With a tolerance a compiled loop is given several times as many, so that lanes that
    end early leave their slots to others.
    """
    most = execution(settings).lanes_at_once
    if execution(settings).scan and settings.tolerance is not None:
        most *= _WIDTHS_PER_CALL
    return split(lanes, most, program=_program)


def split(
    items: Iterable[Item], most: int, *, program: Callable[[Item], Any]
) -> Iterator[list[Item]]:
    """Neighbours that one compiled program serves, up to `most` of them at a time."""
    for _, group in itertools.groupby(items, program):
        while chunk := list(itertools.islice(group, most)):
            yield chunk


def invert(
    chunk: Sequence[Lane], settings: Settings, judge: Parameters | None = None
) -> list[Outcome]:
    """Runs lanes of one group; without `judge` they have no LPIPS."""
    group = chunk[0].group
    began = time.perf_counter()
    keys = [
        identity.lane_key(settings.seed, lane.target.image_id, lane.start)
        for lane in chunk
    ]
    variant = chunk[0].variant
    shared = keywords(group.phi, chunk[0].target, settings)
    shared |= variant.keywords if variant else {}
    batch = api.invert_batch(
        jnp.stack(keys),
        np.stack([lane.target.code for lane in chunk]),
        group.phi,
        tv_weight=np.array([lane.tv_weight for lane in chunk]),
        **shared,
    )
    seconds = (time.perf_counter() - began) / len(chunk)
    outcomes = []
    for number, lane in enumerate(chunk):
        result = jax.tree.map(lambda leaf, n=number: np.asarray(leaf)[n], batch)
        code = np.asarray(callables.encode(in_float32(group.phi), result.image))
        record = records.record_of(lane, result, code, settings, judge)
        record["seconds"] = seconds
        outcomes.append(Outcome(lane, record, result.image, code))
    return outcomes


def _program(lane: Lane) -> tuple[str, tuple[int, int, int], Variant | None]:
    return lane.group.name, lane.target.image_shape, lane.variant
