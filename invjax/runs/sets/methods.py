"""Samples of the images that have a code, one code at a time."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from invjax import callables, identity
from invjax.inversion.api import Result
from invjax.inversion.objective import Terms
from invjax.inversion.result import BUDGET
from invjax.metrics.lpips import Parameters
from invjax.preimages import mcmc, repulsion
from invjax.preimages.kernels import Hmc, Mala
from invjax.preimages.mcmc import Samples
from invjax.runs import lanes, runner
from invjax.runs.folder import RunFolder
from invjax.runs.lanes import Lane, Outcome
from invjax.runs.records import record_of
from invjax.runs.sets.options import Options
from invjax.runs.settings import Settings

FOLDER = "samples"
"""Where the pictures go."""

_CHAIN = 2
"""Folded into the key of a lane for the chain that starts where the lane ended."""


class SampleSet(NamedTuple):
    """Samples of one code with one lambda, in the host's memory.

    Attributes:
      lane: one of theirs; its group, target and lambda are those of all.
      images: [s, h, w, c] in phi's range, not clipped; failed ones are left out.
      records: [s], their lines of metrics.jsonl.
      paths: [s], their pictures below the run's folder.
      num_failed: how many samples failed.
      diagnostics: of chains, by name; empty otherwise.
      logits: [s, n], what a judge says of the samples, once it was asked.
    """

    lane: Lane
    images: np.ndarray
    records: list[dict[str, Any]]
    paths: list[str]
    num_failed: int
    diagnostics: dict[str, float]
    logits: np.ndarray | None = None

    def values(self, field: str) -> np.ndarray:
        """[s]: a field of the records; NaN where it is undefined."""
        return np.array([record[field] for record in self.records], np.float64)

    def chosen(self, keep: np.ndarray) -> "SampleSet":
        """The samples where `keep` [s] is true; diagnostics are of all of them."""
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
    config: Settings,
    options: Options,
    folder: RunFolder,
    judge: Parameters | None,
) -> Iterator[SampleSet]:
    """Draws the samples of every code; files are written before a set is yielded.

    Args:
      planned: the inversions of all codes, from `lanes.plan`: samples, or starts of
        chains.
      config, options: of the run.
      folder: of the run.
      judge: of LPIPS, if at hand.
    """
    if options.method == "starts":
        outcomes = runner.run(planned, config, folder, judge, pictures=FOLDER)
        for _, same in itertools.groupby(outcomes, lambda outcome: _code(outcome.lane)):
            yield _gather(same)
        return
    search = _repelled if options.method == "repulsion" else _chained
    for _, mine in itertools.groupby(planned, _code):
        found = search(list(mine), config, options, judge)
        records: list[dict[str, Any]] = []
        gathered = _gather(_written(found.outcomes, config, folder, records))
        folder.add_records(records)
        lane = gathered.lane
        print(
            f"{lane.target.name} {lane.group.name} tv {lane.tv_weight:g}: "
            f"{len(gathered.images)} samples",
            flush=True,
        )
        yield gathered._replace(diagnostics=found.diagnostics)


class _Found(NamedTuple):
    """What a search found; `outcomes` are made, with their codes, as they are taken."""

    outcomes: Iterator[Outcome]
    diagnostics: dict[str, float]


def _written(
    outcomes: Iterable[Outcome],
    config: Settings,
    folder: RunFolder,
    records: list[dict[str, Any]],
) -> Iterator[Outcome]:
    """Writes pictures on their way, and adds to `records`."""
    for outcome in outcomes:
        runner.write_outcome(folder, outcome, config, pictures=FOLDER)
        records.append(outcome.record)
        yield outcome


def _code(lane: Lane) -> tuple[str, str, float]:
    return lane.group.name, lane.target.name, lane.tv_weight


def _gather(outcomes: Iterable[Outcome]) -> SampleSet:
    """Keeps images and records; all codes of a set would fill the memory."""
    images, records, paths = [], [], []
    num_failed = 0
    for outcome in outcomes:
        lane = outcome.lane
        if outcome.record["status"] == "failed":
            num_failed += 1
            continue
        images.append(outcome.image)
        records.append(outcome.record)
        paths.append(f"{FOLDER}/{lane.path}.png")
    pixels = np.stack(images) if images else np.zeros((0, *lane.target.image_shape))
    return SampleSet(lane, pixels, records, paths, num_failed, {})


def _repelled(
    members: list[Lane],
    config: Settings,
    options: Options,
    judge: Parameters | None,
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
        for outcome in _repelled_set(mine, number, config, options, judge)
    )
    return _Found(outcomes, {})


def _repelled_set(
    members: list[Lane],
    number: int,
    config: Settings,
    options: Options,
    judge: Parameters | None,
) -> Iterator[Outcome]:
    began = time.perf_counter()
    group, target = members[0].group, members[0].target
    num_steps = config.steps(group.phi)
    found = repulsion.repel(
        [_key(config, lane) for lane in members],
        target.code,
        group.phi,
        weight=options.repulsion,
        image_shape=target.image_shape,
        preset=config.preset,
        num_steps=num_steps,
        tv_weight=members[0].tv_weight,
        alpha_weight=config.alpha_weight,
        execution=lanes.execution(config),
    )
    found = jax.tree.map(np.asarray, found)
    notes = {"set": number, "seconds": (time.perf_counter() - began) / len(members)}
    for place, lane in enumerate(members):
        terms = jax.tree.map(lambda leaf, n=place: leaf[n], found.terms)
        result = _result(
            found.images[place], found.energies[place], terms, found.status, num_steps
        )
        yield _outcome(lane, result, config, judge, notes)


def _chained(
    members: list[Lane],
    config: Settings,
    options: Options,
    judge: Parameters | None,
) -> _Found:
    """Chains that start from inversions; those whose inversion failed have no draws."""
    began = time.perf_counter()
    group, target = members[0].group, members[0].target
    inverted = [
        outcome
        for chunk in runner.chunks(members, config)
        for outcome in runner.invert(chunk, config)
    ]
    failed = [o for o in inverted if o.record["status"] == "failed"]
    starts = [o for o in inverted if o.record["status"] != "failed"]
    if not starts:
        return _Found(iter(failed), {})
    hmc = Hmc(num_leaps=options.num_leaps)
    found = mcmc.sample(
        [jax.random.fold_in(_key(config, o.lane), _CHAIN) for o in starts],
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
        alpha_weight=config.alpha_weight,
        execution=lanes.execution(config),
    )
    seconds = time.perf_counter() - began
    errors = [outcome.record["relative_error"] for outcome in starts]
    diagnostics = _diagnostics(found) | {"start_error": float(np.mean(errors))}
    draws = _draws(starts, found, seconds, config, options, judge)
    return _Found(itertools.chain(failed, draws), diagnostics)


def _draws(
    starts: list[Outcome],
    found: Samples,
    seconds: float,
    config: Settings,
    options: Options,
    judge: Parameters | None,
) -> Iterator[Outcome]:
    # The summands of a regulariser are not kept.
    undefined = jnp.float32(jnp.nan)
    for chain, start in enumerate(starts):
        for number in range(options.num_draws):
            data = jnp.square(found.relative_errors[chain, number])
            num_steps = options.num_warmup + (number + 1) * options.thin
            result = _result(
                found.images[chain, number],
                found.energies[chain, number],
                Terms(data, undefined, undefined),
                BUDGET,
                num_steps,
            )
            lane = start.lane._replace(path=f"{start.lane.path}_draw_{number:04d}")
            notes = {
                "draw": number,
                "temperature": float(found.temperatures[chain]),
                "seconds": seconds / found.energies.size,
            }
            yield _outcome(lane, result, config, judge, notes)


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


def _result(
    image: ArrayLike,
    energy: ArrayLike,
    terms: Terms,
    status: ArrayLike,
    num_steps: int,
) -> Result:
    """What was found by other means as a result of inversion."""
    pixels, value = jnp.asarray(image), jnp.asarray(energy)
    return Result(
        image=pixels,
        energy=value,
        objective=value,
        terms=terms,
        status=jnp.asarray(status),
        num_steps=jnp.asarray(num_steps),
        best_image=pixels,
        best_energy=value,
        history=jnp.zeros(0),
        dead_start=jnp.asarray(False),
        num_revivals=jnp.asarray(0),
    )


def _outcome(
    lane: Lane,
    result: Result,
    config: Settings,
    judge: Parameters | None,
    notes: dict[str, Any],
) -> Outcome:
    code = np.asarray(callables.encode(lane.group.phi, result.image))
    record = record_of(lane, result, code, config, judge)
    return Outcome(lane, record | notes, np.asarray(result.image), code)


def _key(config: Settings, lane: Lane) -> jax.Array:
    return identity.lane_key(config.seed, lane.target.image_id, lane.start)
