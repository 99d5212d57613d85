"""Samples of the images that have a code, one code at a time."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from invjax.inversion.keeping import Keeper
from invjax.inversion.objective import Terms
from invjax.inversion.result import BUDGET
from invjax.metrics.lpips import Parameters
from invjax.preimages import mcmc, repulsion
from invjax.preimages.kernels import Hmc, Mala
from invjax.preimages.mcmc import Samples
from invjax.runs import lanes, records, runner
from invjax.runs.identification import Identifier
from invjax.runs.lanes import Lane
from invjax.runs.plans import Plan
from invjax.runs.records import Record
from invjax.runs.runner import Finished, Outcome, Run, UnitWriter
from invjax.runs.sets.options import Options
from invjax.runs.settings import Settings
from invjax.runs.shards import Shard
from invjax.runs.units import Unit

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


def compute(
    run: Run,
    todo: Sequence[Unit],
    options: Options,
    lpips_parameters: Parameters | None,
    *,
    identifier: Identifier | None = None,
) -> None:
    """Draws the samples of units, and writes their files.

    Args:
      run: the run, whose lanes are the inversions of all codes: the samples themselves,
        or the starts of chains.
      todo: the units.
      options: how samples are drawn.
      lpips_parameters: weights of LPIPS; None where they are not at hand.
      identifier: ranks originals; None where that is not asked for.
    """
    if options.method == "starts":
        runner.compute(
            run,
            todo,
            lpips_parameters=lpips_parameters,
            pictures=FOLDER,
            keeps=_keep_all,
            identifier=identifier,
        )
        return
    settings = run.settings
    search = _repelled if options.method == "repulsion" else _chained
    writer = UnitWriter(run, pictures=FOLDER, keeps=_keep_all)
    for unit in todo:
        members = run.plan.lanes(unit.first, unit.stop).lanes
        numbers = {lane.start: number for number, lane in members.items()}
        mine = list(members.values())
        with runner.solver_keeper(run) as keeper:
            found = search(mine, settings, options, lpips_parameters, keeper)
        outcomes = (
            (numbers[outcome.lane.start], _with_rank(outcome, identifier))
            for outcome in found.outcomes
        )
        # As text: strict JSON has no infinity, which an R-hat may be.
        said = {name: repr(value) for name, value in found.diagnostics.items()}
        num_samples = writer.write(unit, outcomes, {"diagnostics": said})
        if keeper is not None:
            keeper.clear()
        lane = members[unit.first]
        print(
            f"{lane.target.name} {lane.group.name} tv {lane.tv_weight:g}: "
            f"{num_samples} samples",
            flush=True,
        )


def lanes_per_unit(plan: Plan, options: Options) -> list[int] | None:
    """How many lanes a unit has, for each kind of lane.

    Samples that depend on each other are one unit, those of a code; None for
    independent ones, whose units are those of any run.
    """
    if options.method == "starts":
        return None
    return [options.num_inversions] * len(plan.kinds)


def sets(
    run: Run, planned: Sequence[Lane], shards: Iterable[tuple[Unit, Shard]]
) -> Iterator[SampleSet]:
    """The samples of every code, once all of them are done, read back from disk.

    Args:
      run: the run.
      planned: its lanes.
      shards: the units that are done.
    """
    by_code = runner.ByCode(planned)
    for unit, shard in shards:
        finished = run.lanes(unit, shard)
        if "diagnostics" in shard.extra:
            said = shard.extra["diagnostics"]
            diagnostics = {name: float(value) for name, value in said.items()}
            yield _gather(finished)._replace(diagnostics=diagnostics)
            continue
        for lane in finished:
            if (complete := by_code.add(lane)) is not None:
                yield _gather(complete)


class _Found(NamedTuple):
    """What a search found.

    Attributes:
      outcomes: samples, encoded as they are taken.
      diagnostics: diagnostics of Markov chains by name; empty for other methods.
    """

    outcomes: Iterator[Outcome]
    diagnostics: dict[str, float]


def _keep_all(lane: Lane) -> bool:
    del lane
    return True


def _with_rank(outcome: Outcome, identifier: Identifier | None) -> Outcome:
    return outcome if identifier is None else runner.identified(outcome, identifier)


def _gather(finished: Iterable[Finished]) -> SampleSet:
    """Keeps images and records; all codes of a set would fill the memory."""
    images, kept, paths = [], [], []
    num_failed = num_dead_starts = 0
    for one in finished:
        lane = one.lane
        num_dead_starts += bool(one.record.dead_start)
        if one.picture is None:
            num_failed += 1
            continue
        images.append(one.picture)
        kept.append(one.record)
        paths.append(f"{FOLDER}/{one.path}.png")
    stacked = np.stack(images) if images else np.zeros((0, *lane.target.image_shape))
    return SampleSet(lane, stacked, kept, paths, num_failed, num_dead_starts, {})


def _repelled(
    members: list[Lane],
    settings: Settings,
    options: Options,
    lpips_parameters: Parameters | None,
    keeper: Keeper | None,
) -> _Found:
    """Sets of images that keep apart, as large as allowed and of about one size."""
    # A set of them has no state that could be kept.
    del keeper
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
    keywords = members[0].keywords(settings) | {
        "tv_weight": members[0].tv_weight,
        "mask": members[0].mask,
        "initial_image": members[0].initial,
    }
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
    keeper: Keeper | None,
) -> _Found:
    """Chains that start from inversions; those whose inversion failed have no draws."""
    began = time.perf_counter()
    group, target = members[0].group, members[0].target
    inverted = [
        o for chunk in runner.invert(members, settings, keeper=keeper) for o in chunk
    ]
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
        code_weights=lanes.code_weights(group.phi, settings),
        mask=members[0].mask,
        execution=lanes.execution(settings),
        keeper=keeper,
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
