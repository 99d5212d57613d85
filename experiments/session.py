"""Carries out the lanes of a binary: targets loaded, progress shown, results kept."""

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

import invjax
from experiments import binary, capacity, lanes, targets
from experiments.binary import Refusal
from experiments.run_folder import RunFolder
from experiments.settings import Settings
from invjax import files, images, inversion, lpips, metrics
from invjax.networks import pretrained
from invjax.types import Relaxable, Representation


def load_groups(config: Settings, *, refuse_zero: bool = True) -> list[lanes.Group]:
    """Representations and their targets: everything that can be refused, is here.

    Args:
      config: of the run.
      refuse_zero: whether a target whose code is zero everywhere is refused, or left
        out (see `lanes.Group.skipped`) while others remain.
    """
    phis = {name: load_representation(name, config) for name in config.representations}
    prepared = {}
    if config.code is None:
        prepared = targets.load_images(list(phis.values()), config)
    groups = []
    for name, phi in phis.items():
        if config.dead_relu == "leaky" and not isinstance(phi, Relaxable):
            raise Refusal(
                f"--dead_relu=leaky: {name} has no relaxed derivative; restart is "
                "accepted"
            )
        if config.code is not None:
            found = [targets.from_code(config.code, name, phi, config)]
        else:
            found = targets.from_images(prepared, lanes.in_float32(phi), config)
        # As the data term has it: tiny codes square to zero in float32.
        is_zero = [not np.sum(np.square(target.code)) > 0 for target in found]
        kept = [target for target, zero in zip(found, is_zero, strict=True) if not zero]
        skipped = tuple(itertools.compress((t.name for t in found), is_zero))
        if skipped and (refuse_zero or not kept):
            raise Refusal(
                f"{skipped[0]}: its {name} code is zero everywhere, so no error "
                "relative to it exists"
            )
        spread = metrics.mean_pairwise_distance([target.code for target in kept])
        groups.append(lanes.Group(name, phi, kept, spread, skipped))
    capacity.check(groups, config)
    return groups


def load_representation(name: str, config: Settings) -> Representation:
    """The representation of a flag's value.

    Raises:
      Refusal: there is none of that name.
    """
    try:
        return invjax.representation(
            name,
            weights_dir=config.weights_dir,
            compute_dtype=config.compute_dtype,
        )
    except OSError as error:
        folder = pretrained.weights_folder(config.weights_dir)
        raise Refusal(f"--weights_dir={folder}: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, binary.EXPECTED):
            raise
        raise Refusal(f"--representations={name}: {error}") from None


def load_judge(
    groups: Sequence[lanes.Group], config: Settings
) -> lpips.Parameters | None:
    """LPIPS for runs with originals; None where its weights are not installed.

    Loaded before a folder is claimed, since damaged weights are refused.
    """
    if all(target.original is None for group in groups for target in group.targets):
        return None
    try:
        return lpips.load(weights_dir=config.weights_dir)
    except pretrained.MissingWeights:
        return None


def weights(groups: Sequence[lanes.Group]) -> dict[str, str]:
    """Representation -> digest of its weights; empty for those without."""
    return {group.name: getattr(group.phi, "weights_digest", "") for group in groups}


def run(
    planned: Sequence[lanes.Lane],
    config: Settings,
    folder: RunFolder,
    judge: lpips.Parameters | None,
    *,
    measure: Callable[[lanes.Outcome], Mapping[str, Any]] | None = None,
    pictures: str = "reconstructions",
) -> Iterator[lanes.Outcome]:
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
        for chunk in lanes.chunks(planned, config):
            bar.set_description(f"{chunk[0].target.name} {chunk[0].group.name}")
            outcomes = lanes.invert(chunk, config, judge)
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


def print_estimates(
    config: Settings, *, planned: Sequence[lanes.Lane] | None = None
) -> None:
    """Lanes, predicted time and memory, representation by representation.

    Args:
      config: settings of the run.
      planned: its lanes, group by group; by default those that the flags ask for.
    """
    if planned is None:
        planned = lanes.plan(load_groups(config), config)
    total = 0.0
    for name, members in itertools.groupby(planned, lambda lane: lane.group.name):
        mine = list(members)
        phi, target = mine[0].group.phi, mine[0].target
        steps = config.steps(phi)
        estimate = inversion.estimate(
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
    folder: RunFolder, outcome: lanes.Outcome, config: Settings, *, pictures: str
) -> None:
    """The picture of a lane, and its arrays if asked for."""
    path = outcome.lane.path
    images.write_png(folder.path / pictures / f"{path}.png", outcome.image)
    if config.save_arrays:
        with files.whole_file(folder.path / "arrays" / f"{path}.npz") as stream:
            np.savez_compressed(stream, image=outcome.image, code=outcome.code)


def _line(number: int, total: int, outcome: lanes.Outcome, elapsed: float) -> str:
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
