"""What maximisation and caricature share: descents whose data term has no target.

Both minimise minus a product with the code (IJCV 2016), so that errors against a target
mean nothing and records differ from those of `lanes`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from invjax import callables, files, identity
from invjax.images import reading
from invjax.inversion import api, objective, presets
from invjax.inversion.result import FAILED, STATUS_WORDS
from invjax.metrics import labels
from invjax.metrics.labels import Judge
from invjax.networks.weights.pretrained import MissingWeights
from invjax.runs import lanes, runner
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.settings import Settings
from invjax.types import DataTerm, Representation

PRESETS = ("ijcv2016", "fast")
"""The paper's method, and ours with the paper's weights."""


class Ascent(NamedTuple):
    """One image sought.

    Attributes:
      phi: the representation.
      code: what the data term multiplies the code with, or makes that of.
      image_shape: of the image.
      initial: [h, w, c] to start from; None for noise.
      start: number of the start.
      facts: the first fields of its record.
      path: of its picture below reconstructions/, without ending.
    """

    phi: Representation
    code: np.ndarray
    image_shape: tuple[int, int, int]
    initial: np.ndarray | None
    start: int
    facts: Mapping[str, Any]
    path: str


class Outcome(NamedTuple):
    """A finished ascent: its record and its image; of a failed one the last finite."""

    ascent: Ascent
    record: dict[str, Any]
    image: np.ndarray


Measure = Callable[[Ascent, np.ndarray, np.ndarray], Mapping[str, Any]]
"""(ascent, image, its code) -> more fields; all of them None for a failed ascent."""


def run(
    planned: Sequence[Ascent],
    config: Settings,
    folder: RunFolder,
    *,
    data_term: DataTerm,
    measure: Measure,
    write: Callable[[Sequence[Outcome]], None],
) -> None:
    """Carries ascents out in turn, and writes what they found, also when interrupted.

    Args:
      planned: in order; each one's files are written as it ends.
      config: of the run.
      folder: of the run.
      data_term: what is minimised.
      measure: further numbers for an ascent's record.
      write: is given all that was finished, once there is something.
    """
    finished: list[Outcome] = []
    try:
        for outcome in _carried_out(planned, config, folder, data_term, measure):
            finished.append(outcome)
    finally:
        # Also after Ctrl-C: what was finished is tabulated and shown.
        if finished:
            write(finished)
            print(f"look at {folder.path}/figure.png")


def _carried_out(
    planned: Sequence[Ascent],
    config: Settings,
    folder: RunFolder,
    data_term: DataTerm,
    measure: Measure,
) -> Iterator[Outcome]:
    bar = tqdm(total=len(planned), unit="image", disable=not sys.stderr.isatty())
    number = 0
    with bar:
        most = lanes.execution(config).lanes_at_once
        for chunk in runner.split(planned, most, program=_program):
            outcomes = _climb(chunk, config, data_term, measure)
            for outcome in outcomes:
                _write(folder, outcome, config)
            folder.add_records([outcome.record for outcome in outcomes])
            for outcome in outcomes:
                number += 1
                bar.update()
                if bar.disable:
                    record = outcome.record
                    state = f"{record['status']}, {record['seconds']:.1f} s"
                    print(
                        f"[{number}/{len(planned)}] {outcome.ascent.path}: {state}",
                        flush=True,
                    )
                yield outcome


def print_estimates(
    planned: Sequence[Ascent], config: Settings, *, data_term: DataTerm
) -> None:
    """Images, predicted time and memory, representation by representation."""
    total = 0.0
    groups: dict[tuple[Any, ...], list[Ascent]] = {}
    for ascent in planned:
        groups.setdefault(_program(ascent), []).append(ascent)
    for mine in groups.values():
        estimate = api.estimate(
            mine[0].code,
            mine[0].phi,
            execution=lanes.execution(config),
            **_keywords(mine[0], config, data_term),
        )
        seconds = estimate.seconds_per_lane * len(mine)
        total += seconds
        print(
            f"{_name(mine[0])}: {len(mine)} images, about {seconds:.0f} s, "
            f"{estimate.num_bytes / 2**20:.0f} MiB"
        )
    print(f"{len(planned)} images, about {total:.0f} s besides compiling")


def check_preset(name: str) -> None:
    """Refuses presets that are no way to do this.

    Raises:
      Refusal: naming those that are.
    """
    if name not in PRESETS:
        raise Refusal(
            f"--preset={name}: the CVPR paper has neither maximisation nor caricature, "
            f"and its step sizes diverge there; {' and '.join(PRESETS)} are accepted"
        )


def paper_weights(preset: str, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Keywords of `invert` that give a preset the weights of IJCV 2016.

    `ijcv2016` has them. The energy of the others is made equal to the paper's objective
    at this size, but for R_alpha, which counts every channel by itself there; their
    data term has the same weight, 1, and the bound on the range is the same.
    """
    if presets.PRESETS[preset].form == "ijcv2016":
        return {}
    num_pixels = image_shape[0] * image_shape[1]
    tv_scale = objective.SIGMA / objective.IJCV_GRADIENT
    alpha_scale = objective.SIGMA / objective.IJCV_NORM
    return {
        "tv_weight": tv_scale**2 / num_pixels,
        "alpha_weight": alpha_scale**6 / num_pixels,
        "range_bound": presets.IJCV_BOUND,
    }


def load_judge(config: Settings) -> Judge | None:
    """Who names pictures; None, said in a line, where its weights are not at hand."""
    try:
        return labels.load(weights_dir=config.weights_dir)
    except MissingWeights:
        print(f"no labels: the weights of {labels.DEFAULT_JUDGE} are not at hand")
        return None


def num_steps(phi: Representation, config: Settings, data_term: DataTerm) -> int:
    """Steps of an ascent; 300 of the paper's unless the flags say otherwise."""
    if config.smoke:
        return 5
    chosen = presets.find(config.preset, phi=phi, data_term=data_term)
    return config.num_steps or chosen.num_steps


def _climb(
    chunk: Sequence[Ascent], config: Settings, data_term: DataTerm, measure: Measure
) -> list[Outcome]:
    phi = chunk[0].phi
    began = time.perf_counter()
    batch = api.invert_batch(
        [
            identity.lane_key(config.seed, identity.code_id(one.code), one.start)
            for one in chunk
        ],
        np.stack([one.code for one in chunk]),
        phi,
        execution=lanes.execution(config),
        initial_image=_initial(chunk),
        **_keywords(chunk[0], config, data_term),
    )
    seconds = (time.perf_counter() - began) / len(chunk)
    outcomes = []
    for number, ascent in enumerate(chunk):
        result = jax.tree.map(lambda leaf, n=number: np.asarray(leaf)[n], batch)
        code = np.asarray(callables.encode(phi, result.image))
        measured = {
            "objective": float(result.objective),
            **measure(ascent, result.image, code),
        }
        if result.status == FAILED:
            measured = dict.fromkeys(measured)
        record = {
            **ascent.facts,
            "start": ascent.start,
            "seed": config.seed,
            "preset": config.preset,
            "status": STATUS_WORDS[int(result.status)],
            "num_steps": int(result.num_steps),
            **measured,
            "seconds": seconds,
        }
        outcomes.append(Outcome(ascent, record, result.image))
    return outcomes


def _keywords(ascent: Ascent, config: Settings, data_term: DataTerm) -> dict[str, Any]:
    return {
        "image_shape": ascent.image_shape,
        "preset": config.preset,
        "num_steps": num_steps(ascent.phi, config, data_term),
        "data_term": data_term,
        **paper_weights(config.preset, ascent.image_shape),
    }


def _initial(chunk: Sequence[Ascent]) -> np.ndarray | None:
    if chunk[0].initial is None:
        return None
    return np.stack([one.initial for one in chunk if one.initial is not None])


def _write(folder: RunFolder, outcome: Outcome, config: Settings) -> None:
    """The picture, and the image unclipped if asked for."""
    path = outcome.ascent.path
    reading.write_png(folder.path / "reconstructions" / f"{path}.png", outcome.image)
    if config.save_arrays:
        with files.whole_file(folder.path / "arrays" / f"{path}.npz") as stream:
            np.savez_compressed(stream, image=outcome.image)


def _program(ascent: Ascent) -> tuple[str, tuple[int, int, int]]:
    return _name(ascent), ascent.image_shape


def _name(ascent: Ascent) -> str:
    return str(getattr(ascent.phi, "name", ""))
