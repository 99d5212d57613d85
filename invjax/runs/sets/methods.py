"""Samples of the images that have a code, one code at a time."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from invjax.inversion.objective import Terms
from invjax.inversion.result import BUDGET
from invjax.metrics.lpips import Parameters
from invjax.preimages import mcmc, repulsion
from invjax.preimages.kernels import Hmc, Mala
from invjax.preimages.mcmc import Samples
from invjax.runs import lanes, records, runner
from invjax.runs.folder import RunFolder
from invjax.runs.identification import Identifier
from invjax.runs.lanes import Lane
from invjax.runs.records import Record
from invjax.runs.runner import Outcome
from invjax.runs.sets.options import Options
from invjax.runs.settings import Settings

FOLDER = "samples"
"""Subfolder that the pictures are written to."""

_CHAIN = 2
"""Folded into the key of a lane for the chain that starts where the lane ended."""


class SampleSet(NamedTuple):
    """Samples of one code at one lambda_V, in the host's memory.

    Attributes:
      lane: the lane of a sample; group, target and lambda_V are those of all.
      images: [s, h, w, c] in phi's range, not clipped; failed ones are left out.
      records: [s], records of the samples.
      paths: [s], paths of their pictures below the run's folder.
      num_failed: number of samples that failed.
      num_dead_starts: number of samples whose descent began at a dead start, failed
        ones included; of a chain, the descent to the image that it starts from.
      diagnostics: diagnostics of Markov chains by name; empty for other methods.
      logits: [s, n], logits of the samples by a classifier; None where none was asked.
    """

    lane: Lane
    images: np.ndarray
    records: list[Record]
    paths: list[str]
    num_failed: int
    num_dead_starts: int
    diagnostics: dict[str, float]
    logits: np.ndarray | None = None

    def values(self, field: str) -> np.ndarray:
        """A field of the records, [s]; NaN where it is None."""
        return np.array([record.number(field) for record in self.records], np.float64)

    def chosen(self, keep: np.ndarray) -> "SampleSet":
        """The samples where `keep` [s] is true, without diagnostics."""
        numbers = np.flatnonzero(keep)
        return self._replace(
            images=self.images[numbers],
            records=[self.records[number] for number in numbers],
            paths=[self.paths[number] for number in numbers],
            diagnostics={},
            logits=None if self.logits is None else self.logits[numbers],
        )


def draw(
    planned: Sequence[Lane],
    settings: Settings,
    options: Options,
    folder: RunFolder,
    lpips_parameters: Parameters | None,
) -> Iterator[SampleSet]:
    """Draws the samples of every code; files are written before a set is yielded.

    Args:
      planned: the inversions of all codes, from `lanes.plan`: the samples themselves,
        or the starts of chains.
      settings: settings of the run.
      options: how samples are drawn.
      folder: folder of the run.
      lpips_parameters: weights of LPIPS; None where they are not at hand.
    """
    if options.method == "starts":
        by_code = runner.ByCode(planned)
        for outcome in runner.run(
            planned,
            settings,
            folder,
            lpips_parameters=lpips_parameters,
            pictures=FOLDER,
        ):
            if (complete := by_code.add(outcome)) is not None:
                yield _gather(complete)
        return
    search = _repelled if options.method == "repulsion" else _chained
    for _, mine in itertools.groupby(planned, lambda lane: lane.code_key):
        found = search(list(mine), settings, options, lpips_parameters)
        drawn: list[Record] = []
        gathered = _gather(_written(found.outcomes, settings, folder, drawn))
        folder.add_records(drawn)
        lane = gathered.lane
        print(
            f"{lane.target.name} {lane.group.name} tv {lane.tv_weight:g}: "
            f"{len(gathered.images)} samples",
            flush=True,
        )
        yield gathered._replace(diagnostics=found.diagnostics)


class _Found(NamedTuple):
    """What a search found.

    Attributes:
      outcomes: samples, encoded as they are taken.
      diagnostics: diagnostics of Markov chains by name; empty for other methods.
    """

    outcomes: Iterator[Outcome]
    diagnostics: dict[str, float]


def _written(
    outcomes: Iterable[Outcome],
    settings: Settings,
    folder: RunFolder,
    drawn: list[Record],
) -> Iterator[Outcome]:
    """Writes pictures, and adds the records to `drawn`."""
    identifier = Identifier.of(settings)
    for outcome in outcomes:
        if identifier is not None:
            outcome = runner.identified(outcome, identifier)
        runner.write_outcome(folder, outcome, settings, pictures=FOLDER)
        drawn.append(outcome.record)
        yield outcome


def _gather(outcomes: Iterable[Outcome]) -> SampleSet:
    """Keeps images and records; all codes of a set would fill the memory."""
    images, kept, paths = [], [], []
    num_failed = num_dead_starts = 0
    for outcome in outcomes:
        lane = outcome.lane
        num_dead_starts += bool(outcome.record.dead_start)
        if outcome.picture is None:
            num_failed += 1
            continue
        images.append(outcome.picture)
        kept.append(outcome.record)
        paths.append(f"{FOLDER}/{lane.path}.png")
    stacked = np.stack(images) if images else np.zeros((0, *lane.target.image_shape))
    return SampleSet(lane, stacked, kept, paths, num_failed, num_dead_starts, {})


def _repelled(
    members: list[Lane],
    settings: Settings,
    options: Options,
    lpips_parameters: Parameters | None,
) -> _Found:
    """Sets of images that keep apart, as large as allowed and of about one size."""
    num_sets = -(-len(members) // options.set_size)
    sets = [
        [members[place] for place in places]
        for places in np.array_split(np.arange(len(members)), num_sets)
    ]
    outcomes = (
        outcome
        for number, mine in enumerate(sets)
        for outcome in _repelled_set(mine, number, settings, options, lpips_parameters)
    )
    return _Found(outcomes, {})


def _repelled_set(
    members: list[Lane],
    number: int,
    settings: Settings,
    options: Options,
    lpips_parameters: Parameters | None,
) -> Iterator[Outcome]:
    began = time.perf_counter()
    group, target = members[0].group, members[0].target
    keywords = members[0].keywords(settings) | {"tv_weight": members[0].tv_weight}
    num_steps = keywords["num_steps"]
    keys = [runner.lane_key(lane, settings) for lane in members]
    found = repulsion.repel(
        keys, target.code, group.phi, weight=options.repulsion, **keywords
    )
    found = jax.tree.map(np.asarray, found)
    seconds = (time.perf_counter() - began) / len(members)
    for place, lane in enumerate(members):
        image = found.images[place]
        code = runner.encode(lane, image)
        record = records.record_of(
            lane,
            settings,
            image=image,
            code=code,
            status=int(found.status),
            num_steps=num_steps,
            energy=float(found.energies[place]),
            terms=jax.tree.map(lambda leaf, row=place: leaf[row], found.terms),
            dead_start=bool(found.dead_start[place]),
            num_revivals=int(found.num_revivals[place]),
            seconds=seconds,
            lpips_parameters=lpips_parameters,
        )
        yield Outcome(lane, record.with_measured({"set": number}), image, code)


def _chained(
    members: list[Lane],
    settings: Settings,
    options: Options,
    lpips_parameters: Parameters | None,
) -> _Found:
    """Chains that start from inversions; those whose inversion failed have no draws."""
    began = time.perf_counter()
    group, target = members[0].group, members[0].target
    inverted = [o for chunk in runner.invert(members, settings) for o in chunk]
    failed = [outcome for outcome in inverted if outcome.record.has_failed]
    starts = [outcome for outcome in inverted if not outcome.record.has_failed]
    if not starts:
        return _Found(iter(failed), {})
    hmc = Hmc(num_leaps=options.num_leaps)
    keys = [
        jax.random.fold_in(runner.lane_key(outcome.lane, settings), _CHAIN)
        for outcome in starts
    ]
    found = mcmc.sample(
        keys,
        target.code,
        group.phi,
        np.stack([outcome.image for outcome in starts]),
        kernel=hmc if options.method == "hmc" else Mala(),
        temperature=options.temperature,
        target_error=None if options.temperature else options.target_error,
        num_samples=options.num_draws,
        num_warmup=options.num_warmup,
        thin=options.thin,
        tv_weight=members[0].tv_weight,
        alpha_weight=settings.alpha_weight,
        execution=lanes.execution(settings),
    )
    seconds = (time.perf_counter() - began) / found.energies.size
    errors = [outcome.record.number("relative_error") for outcome in starts]
    diagnostics = _diagnostics(found) | {"start_error": float(np.mean(errors))}
    draws = _draws(starts, found, seconds, settings, options, lpips_parameters)
    return _Found(itertools.chain(failed, draws), diagnostics)


def _draws(
    starts: list[Outcome],
    found: Samples,
    seconds: float,
    settings: Settings,
    options: Options,
    lpips_parameters: Parameters | None,
) -> Iterator[Outcome]:
    for chain, start in enumerate(starts):
        for number in range(options.num_draws):
            lane = start.lane._replace(path=f"{start.lane.path}_draw_{number:04d}")
            image = found.images[chain, number]
            code = runner.encode(lane, image)
            record = records.record_of(
                lane,
                settings,
                image=image,
                code=code,
                status=BUDGET,
                num_steps=options.num_warmup + (number + 1) * options.thin,
                energy=float(found.energies[chain, number]),
                terms=Terms(*(term[chain, number] for term in found.terms)),
                dead_start=start.record.dead_start,
                num_revivals=start.record.num_revivals,
                seconds=seconds,
                lpips_parameters=lpips_parameters,
            )
            temperature = float(found.temperatures[chain])
            columns = {"draw": number, "temperature": temperature}
            yield Outcome(lane, record.with_measured(columns), image, code)


def _diagnostics(found: Samples) -> dict[str, float]:
    """Means over chains, and the worst of the projections."""
    mixed = found.diagnostics
    return {
        "acceptance": float(np.mean(found.acceptance)),
        "temperature": float(np.exp(np.mean(np.log(found.temperatures)))),
        "heating": float(np.mean(found.heating)),
        "energy_ess": float(mixed.energy_ess),
        "projection_ess": float(np.min(mixed.projection_ess)),
        "energy_rhat": float(mixed.energy_rhat),
        "projection_rhat": float(np.max(mixed.projection_rhat)),
    }
