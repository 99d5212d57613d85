"""Carries out a run: inverts lanes unit by unit, keeps results, finishes the run.

A run may be interrupted at any moment and is gone on with by the same command. What is
shown and tabulated of its lanes is always read back from disk, whoever has done them
and when; so it is the same for a run that was never interrupted.
"""

import contextlib
import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax import callables, files, identity
from invjax.images import reading
from invjax.inversion import api, dead_starts, memory, objective, request
from invjax.inversion.execution import Execution
from invjax.inversion.keeping import Keeper
from invjax.inversion.memory import OnNarrower
from invjax.inversion.result import Result
from invjax.inversion.watching import Watcher
from invjax.metrics import lpips
from invjax.report import contrast
from invjax.runs import (
    array_files,
    capacity,
    lanes,
    locks,
    records,
    shards,
    skipped,
    solver_states,
    trajectories,
    units,
)
from invjax.runs.errors import Refusal
from invjax.runs.event_files import EventFiles
from invjax.runs.folder import RunFolder, writing
from invjax.runs.identification import Identifier
from invjax.runs.lanes import Lane
from invjax.runs.plans import LoadedPlan, Plan
from invjax.runs.processes import Process
from invjax.runs.progress import Progress
from invjax.runs.records import Record
from invjax.runs.settings import Settings
from invjax.runs.shards import DamagedShard, Entry, Shard
from invjax.runs.skipped import Skipped
from invjax.runs.solver_states import SolverStates
from invjax.runs.trajectories import Trajectory
from invjax.runs.units import Unit

_GOES_ON = "; units that are done are kept, and the same command goes on"
_STATES = "states"
_WINDOW_BYTES = 2**28
_UNITS_PER_WINDOW = 8
_TIMES_PER_WINDOW = 8


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
    code: Any

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
    on_narrower: OnNarrower | None = None,
    keeper: Keeper | None = None,
    watch: Callable[[Sequence[Lane]], Sequence[Watcher]] | None = None,
) -> Generator[list[Outcome], None, None]:
    """Inverts lanes and yields outcomes as they come; nothing is written.

    Args:
      planned: the lanes; neighbours that one compiled program serves run together.
      settings: settings of the run.
      lpips_parameters: weights of LPIPS; without them records have none.
      on_narrower, keeper: as in `api.invert_stream`.
      watch: returns what looks at the given lanes while they descend; None for nobody.
    """
    for _, members in itertools.groupby(planned, _program):
        mine = list(members)
        watchers = () if watch is None else watch(mine)
        stream = _stream(mine, settings, on_narrower, keeper, watchers)
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


class Finished(NamedTuple):
    """A lane that is done, as it is read back from disk.

    Attributes:
      lane: the lane.
      path: path of its picture, without ending.
      record: its line of metrics.jsonl.
      image: [h, w, c], not clipped; None where it was not kept.
    """

    lane: Lane
    path: str
    record: Record
    image: np.ndarray | None

    @property
    def picture(self) -> np.ndarray | None:
        """The image; None of a failed lane, and where it was not kept."""
        return None if self.record.has_failed else self.image


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, begun or gone on with.

    Attributes:
      folder: its folder.
      plan: its lanes.
      digest: digest of its lanes.
      units: its units of work.
      settings: its settings, with the width that it was begun with.
      process: this process.
      skipped: images that were passed over before it began.
    """

    folder: RunFolder
    plan: Plan
    digest: str
    units: list[Unit]
    settings: Settings
    process: Process
    skipped: Sequence[Skipped] = ()

    @property
    def mine(self) -> list[Unit]:
        """The units of this process."""
        return units.of_process(self.units, self.process.number, self.process.count)

    def to_do(self) -> list[Unit]:
        """Those of them that are not done; a line says which are damaged."""
        there = shards.present(self.folder.path)
        found = []
        for unit in self.mine:
            try:
                if unit.number not in there:
                    found.append(unit)
                else:
                    shards.read(self.folder.path, unit, self.digest)
            except DamagedShard as error:
                print(f"{error}: its unit is done again", flush=True)
                found.append(unit)
        return found

    def num_missing(self) -> int:
        """Number of units, of all processes, that are not done."""
        there = shards.present(self.folder.path)
        return sum(unit.number not in there for unit in self.units)

    def shards(self, *, partial: bool = False) -> Iterator[tuple[Unit, Shard]]:
        """The units that are done, in order.

        Args:
          partial: whether those that are not are passed over.

        Raises:
          DamagedShard: a unit is not done, or its shard is damaged; not if `partial`.
        """
        there = shards.present(self.folder.path)
        for unit in self.units:
            if partial and unit.number not in there:
                continue
            try:
                yield unit, shards.read(self.folder.path, unit, self.digest)
            except DamagedShard:
                if not partial:
                    raise

    def lanes(self, unit: Unit, shard: Shard) -> list[Finished]:
        """The lanes of a unit that is done, with the images that were kept of them.

        Raises:
          DamagedShard: the images are missing or damaged.
        """
        images: dict[int, np.ndarray] = {}
        if shard.extra.get("num_arrays"):
            images = shards.read_arrays(self.folder.path, unit)
        lanes = self.plan.lanes(unit.first, unit.stop).lanes
        return [
            Finished(
                lanes[entry.lane],
                entry.path,
                Record.from_json(entry.record),
                images.get(place),
            )
            for place, entry in enumerate(shard.entries)
        ]


def begin(
    folder: RunFolder,
    plan: Plan,
    settings: Settings,
    *,
    weights: Mapping[str, str],
    options: Mapping[str, Any] | None = None,
    process: Process | None = None,
    lanes_per_unit: Sequence[int] | None = None,
    code_scales: Mapping[str, float | None] | None = None,
    skipped: Sequence[Skipped] = (),
) -> Run:
    """Begins a run, or goes on with the one that its folder holds.

    What is settled when a run begins is in the field "lanes" of config.json.

    Args:
      folder: folder of the run, claimed.
      plan: the lanes.
      settings: settings of the run.
      weights: digests of the weights by representation.
      options: further settings, by name, that config.json keeps.
      process: this process; by default the only one.
      lanes_per_unit: number of lanes of a unit of each kind of the plan; by default
        what takes about half a minute, by a few steps that are timed.
      code_scales: code scale by representation, where it was taken from a part of the
        set.
      skipped: images that were passed over.

    Raises:
      Refusal: the folder holds another run.
    """
    process = process or Process()
    there = folder.config()
    begun = (there or {}).get("lanes", {})
    sizes, width = begun.get("per_unit"), begun.get("batch_size")
    if there is None:
        width = _width(plan, settings)
        at_width = dataclasses.replace(settings, batch_size=width)
        sizes = lanes_per_unit or [
            _lanes_per_unit(plan, kind, at_width) for kind in range(len(plan.kinds))
        ]
    digest = plan.digest
    config = folder.write_config(
        {**settings.as_json(), **(options or {})},
        weights,
        {
            "number": plan.num_lanes,
            "digest": digest,
            "per_unit": sizes,
            "batch_size": width,
            **({"code_scales": code_scales} if code_scales else {}),
        },
    )
    settled = config["lanes"]
    if scales := settled.get("code_scales"):
        plan = plan.with_scales(scales)
    divided = units.divide(plan.kinds, settled["per_unit"])
    settings = dataclasses.replace(settings, batch_size=settled["batch_size"])
    return Run(folder, plan, digest, divided, settings, process, skipped)


def carry_out(
    run: Run,
    compute: Callable[[list[Unit]], None],
    show: Callable[[Iterator[tuple[Unit, Shard]]], None],
) -> bool:
    """Does what is not done of a run, and finishes it once all units are done.

    A run that is finished is left as it is. Of several processes, whichever finds all
    units done finishes the run; metrics.jsonl comes last, and once. After Ctrl-C, what
    there is is shown, unless other processes are at work.

    Args:
      run: the run.
      compute: does units, and writes their shards.
      show: writes and prints what there is to see of units that are done.

    Returns:
      Whether the run is finished now.

    Raises:
      Refusal: another process does the same, or files cannot be written.
      KeyboardInterrupt: after what there is has been shown.
    """
    folder = run.folder
    if folder.is_finished:
        print(f"{folder.path}: finished already; nothing is changed", flush=True)
        # Of whoever was killed just after finishing it.
        folder.remove_unfinished()
        shards.drop_arrays(folder.path)
        locks.remove_left(folder.path)
        files.remove(folder.path / _STATES)
        return True
    with writing(folder.path, hint=_GOES_ON), locks.held(folder.path, run.process):
        try:
            _print_begin(run, left := run.to_do())
            while not folder.is_finished:
                compute(left)
                if missing := run.num_missing():
                    print(
                        f"this process is done; {missing} of {len(run.units)} units of "
                        "others are missing",
                        flush=True,
                    )
                    return False
                try:
                    with locks.finishing(folder.path) as is_mine:
                        if not is_mine:
                            print("another process finishes the run", flush=True)
                            return False
                        _finish(run, show)
                except DamagedShard as error:
                    # Whoever has finished the run meanwhile has removed arrays.
                    if folder.is_finished:
                        break
                    print(f"{error}: its unit is done again", flush=True)
                    left = [error.unit]
        except KeyboardInterrupt:
            if run.process.count == 1 and shards.present(folder.path):
                _write_skipped(run, partial=True)
                show(run.shards(partial=True))
            raise
    return True


def compute(
    run: Run,
    todo: Sequence[Unit],
    *,
    lpips_parameters: lpips.Parameters | None = None,
    measure: Measure | None = None,
    pictures: str = "reconstructions",
    stretched: str | None = None,
    keeps: Callable[[Lane], bool] | None = None,
    writes_originals: bool = False,
    identifier: Identifier | None = None,
) -> None:
    """Inverts the lanes of units; the files of a unit are there before its shard.

    Progress is a bar on a terminal and a line per lane elsewhere, both with the time
    that has passed and, at the pace so far, the time that is left.

    Args:
      run: the run.
      todo: the units, in order.
      lpips_parameters: weights of LPIPS; without them records have none.
      measure: further columns of a record; None for none.
      pictures: subfolder that pictures are written to.
      stretched: subfolder for pictures stretched to their range, which a gallery shows;
        None for none.
      keeps: whether the image of a lane is kept as it is until the run is finished; by
        default none is.
      writes_originals: whether originals/<image>.png are written.
      identifier: ranks originals, in further columns of a record; None for none.
    """
    if not todo:
        return
    settings = run.settings

    def on_narrower(execution: Execution) -> None:
        nonlocal settings
        print(memory.narrower_line(execution), flush=True)
        settings = dataclasses.replace(settings, batch_size=execution.width)

    writer = UnitWriter(run, pictures=pictures, stretched=stretched, keeps=keeps)
    left = sum(unit.num_lanes for unit in todo)
    total = max(sum(unit.num_lanes for unit in run.mine), left)
    with Progress(left, total) as progress, solver_keeper(run) as keeper:

        def watch(planned: Sequence[Lane]) -> list[Watcher]:
            return [progress.within(planned, settings), *writer.watch(planned)]

        for window in units.windows(todo, _lanes_per_window(run, todo)):
            planned: dict[int, Lane] = {}
            of_unit: dict[int, Unit] = {}
            for unit, first, stop in window:
                part = run.plan.lanes(first, stop)
                planned |= part.lanes
                of_unit |= dict.fromkeys(part.lanes, unit)
                writer.expect(unit, part.lanes, part.skipped, is_last=stop == unit.stop)
            if writes_originals:
                _write_originals(run, planned.values())
            numbers = {id(lane): number for number, lane in planned.items()}
            outcomes = invert(
                list(planned.values()),
                settings,
                lpips_parameters=lpips_parameters,
                on_narrower=on_narrower,
                keeper=keeper,
                watch=watch,
            )
            with contextlib.closing(outcomes):
                for chunk in outcomes:
                    for outcome in chunk:
                        if measure is not None:
                            outcome = with_measured(outcome, measure)
                        if identifier is not None:
                            outcome = identified(outcome, identifier)
                        number = numbers[id(outcome.lane)]
                        writer.add(of_unit[number], number, outcome)
                        progress.add(outcome.lane, outcome.record)
            if keeper is not None:
                keeper.clear()


def run(
    planned: Sequence[Lane],
    settings: Settings,
    folder: RunFolder,
    *,
    weights: Mapping[str, str],
    process: Process | None = None,
    lanes_per_unit: Sequence[int] | None = None,
    lpips_parameters: lpips.Parameters | None = None,
    measure: Measure | None = None,
    pictures: str = "reconstructions",
    stretched: str | None = None,
) -> Iterator[Finished]:
    """Carries a run out from a script: does what is not done, and yields all lanes.

    Of several processes, only the last one yields any: it finds all of them done.

    Args:
      planned: the lanes, in order.
      settings: settings of the run.
      folder: folder of the run, claimed.
      weights: digests of the weights by representation.
      process, lanes_per_unit: as in `begin`.
      lpips_parameters, measure, pictures, stretched: as in `compute`.

    Yields:
      The lanes in order, also those that were done before, with their images.

    Raises:
      Refusal: the folder holds another run, or one that is finished.
    """
    identifier = Identifier.of(settings)
    begun = begin(
        folder,
        LoadedPlan(planned),
        settings,
        weights=weights,
        process=process,
        lanes_per_unit=lanes_per_unit,
    )
    if folder.is_finished:
        raise Refusal(f"{folder.path}: finished already; its metrics.jsonl has all")
    with writing(folder.path, hint=_GOES_ON), locks.held(folder.path, begun.process):
        compute(
            begun,
            begun.to_do(),
            lpips_parameters=lpips_parameters,
            measure=measure,
            pictures=pictures,
            stretched=stretched,
            keeps=lambda lane: True,
            identifier=identifier,
        )
        if begun.num_missing():
            return
        for unit, shard in begun.shards():
            yield from begun.lanes(unit, shard)
        _finish(begun, lambda _: None)


class UnitWriter:
    """Writes the files of lanes as they end, and the shard of a unit after its lanes.

    Args:
      run: the run.
      pictures: subfolder that pictures are written to.
      stretched: subfolder for pictures stretched to their range; None for none.
      keeps: whether the image of a lane is kept; None for none.
    """

    def __init__(
        self,
        run: Run,
        *,
        pictures: str,
        stretched: str | None = None,
        keeps: Callable[[Lane], bool] | None = None,
    ):
        self._run = run
        self._pictures = pictures
        self._stretched = stretched
        self._keeps = keeps
        self._open: dict[int, _OpenUnit] = {}
        settings = run.settings
        self._events = None
        if settings.tensorboard:
            self._events = EventFiles(run.folder.path, settings.save_trajectory)

    def watch(self, planned: Sequence[Lane]) -> list[Watcher]:
        """What is written of lanes while they descend.

        Args:
          planned: the lanes, by their number in the loop.
        """
        settings = self._run.settings
        found: list[Watcher] = []
        if settings.save_trajectory is not None:
            found.append(Trajectory(self._run.folder.path, planned, settings))
        if self._events is not None and (one := self._events.watch(planned)):
            found.append(one)
        return found

    def expect(
        self,
        unit: Unit,
        lanes: Iterable[int],
        skipped: Iterable[Skipped],
        *,
        is_last: bool,
    ) -> None:
        """Announces lanes of a unit; one without any is written at once.

        Args:
          unit: the unit.
          lanes: numbers of lanes that will end.
          skipped: images that are passed over.
          is_last: whether these are the last ones of the unit.
        """
        found = self._open.setdefault(unit.number, _OpenUnit())
        found.missing |= set(lanes)
        found.skipped += skipped
        found.is_announced = is_last
        self._close_if_done(unit)

    def add(self, unit: Unit, number: int, outcome: Outcome) -> None:
        """Writes the files of a lane; `number` is its number in the plan."""
        found = self._open[unit.number]
        found.paths += write_outcome(
            self._run.folder,
            outcome,
            self._run.settings,
            pictures=self._pictures,
            stretched=self._stretched,
        )
        if self._run.settings.save_trajectory is not None:
            folder = self._run.folder.path
            found.paths += trajectories.finish(folder, outcome.lane.path)
        if self._events is not None:
            self._events.end(outcome.lane, outcome.record, outcome.image)
        keeps = self._keeps is not None and self._keeps(outcome.lane)
        entry = Entry(number, outcome.lane.path, outcome.record.as_json())
        found.ended.append((entry, outcome.image if keeps else None))
        found.missing.discard(number)
        self._close_if_done(unit)

    def write(
        self,
        unit: Unit,
        outcomes: Iterable[tuple[int, Outcome]],
        extra: Mapping[str, Any],
    ) -> int:
        """Writes a whole unit, whose lanes may have several outcomes each.

        Args:
          unit: the unit.
          outcomes: numbers of lanes, and what was found for them.
          extra: what else is known of the unit.

        Returns:
          The number of outcomes that did not fail.
        """
        num_whole = 0
        found = self._open[unit.number] = _OpenUnit(extra=extra)
        for number, outcome in outcomes:
            self.add(unit, number, outcome)
            num_whole += not outcome.record.has_failed
        found.is_announced = True
        self._close_if_done(unit)
        return num_whole

    def _close_if_done(self, unit: Unit) -> None:
        found = self._open[unit.number]
        if not found.is_announced or found.missing:
            return
        # Lanes may end in any order.
        ended = sorted(found.ended, key=lambda pair: pair[0].lane)
        kept = {
            place: image for place, (_, image) in enumerate(ended) if image is not None
        }
        folder = self._run.folder.path
        shards.remove_unfinished(folder, unit)
        if kept:
            shards.write_arrays(folder, unit, kept)
        files.settle(found.paths)
        entries = [entry for entry, _ in ended]
        extra = {**found.extra, "num_arrays": len(kept)}
        shard = Shard(entries, found.skipped, extra)
        shards.write(folder, unit, self._run.digest, shard)
        del self._open[unit.number]


@dataclasses.dataclass
class _OpenUnit:
    """A unit some of whose lanes have not ended.

    Attributes:
      extra: what else is known of it.
      missing: numbers of lanes that have not ended.
      is_announced: whether all of its lanes have been announced.
      skipped: images that are passed over.
      paths: files that were written.
      ended: what was found, and the images that are kept.
    """

    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    missing: set[int] = dataclasses.field(default_factory=set)
    is_announced: bool = False
    skipped: list[Skipped] = dataclasses.field(default_factory=list)
    paths: list[files.Path] = dataclasses.field(default_factory=list)
    ended: list[tuple[Entry, np.ndarray | None]] = dataclasses.field(
        default_factory=list
    )


class ByCode:
    """Gathers lanes until all of a code have ended.

    A code here is what the starts share: representation, image, lambda_V and variant.
    """

    def __init__(self, planned: Sequence[Lane]):
        self._missing = Counter(lane.code_key for lane in planned)
        self._gathered: dict[Any, list[Finished]] = {}

    def add(self, lane: Finished) -> list[Finished] | None:
        """Takes a lane; returns all lanes of its code if it is the last one."""
        key = lane.lane.code_key
        self._gathered.setdefault(key, []).append(lane)
        self._missing[key] -= 1
        return None if self._missing[key] else self._gathered.pop(key)

    def incomplete(self) -> list[list[Finished]]:
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
    """Prints lanes, predicted time and memory, representation by representation.

    Where --batch_size is not given, the prediction is for the width that a new run
    would choose.
    """
    width = _width(LoadedPlan(planned), settings)
    settings = dataclasses.replace(settings, batch_size=width)
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


def original_path(image: str) -> str:
    """Path of an original below the folder of its run.

    Args:
      image: name of the image.
    """
    return f"originals/{image}.png"


def write_outcome(
    folder: RunFolder,
    outcome: Outcome,
    settings: Settings,
    *,
    pictures: str,
    stretched: str | None = None,
) -> list[files.Path]:
    """Writes the picture of a lane; if asked for, a stretched one and its arrays.

    Returns:
      The files.
    """
    path = outcome.lane.path
    written = [folder.path / pictures / f"{path}.png"]
    files.remove_unfinished(written[0])
    # A lane that diverges may end anywhere.
    reading.write_png(written[0], np.clip(outcome.image, 0, 1))
    if stretched is not None:
        written.append(folder.path / stretched / f"{path}.jpg")
        files.remove_unfinished(written[-1])
        # From the image as it is: the PNG file has lost what lies beyond [0, 1].
        contrast.write_stretched(written[-1], outcome.image)
    if settings.save_arrays:
        written.append(folder.path / "arrays" / f"{path}.npz")
        files.remove_unfinished(written[-1])
        with files.whole_file(written[-1]) as stream:
            np.savez_compressed(
                stream, image=outcome.image, **array_files.named(outcome.code)
            )
    return written


def encode(lane: Lane, image: np.ndarray) -> Any:
    """The code that errors are measured with: by the float32 representation."""
    code = callables.encode(lanes.in_float32(lane.group.phi), image)
    return jax.tree.map(np.asarray, code)


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
        jax.tree.map(lambda part: part[None], lane.target.code),
        lane.group.phi,
        1,
        tv_weight=np.array([lane.tv_weight]),
        **keywords,
    ).on_device()
    attempt = jnp.asarray(num_restarts, jnp.int32) if num_restarts else None
    started = dead_starts.start(lane_key(lane, settings)[None], plan, attempt=attempt)
    return np.asarray(objective.to_image(started.last[0], plan.shared.centre))


def _stream(
    planned: Sequence[Lane],
    settings: Settings,
    on_narrower: OnNarrower | None,
    keeper: Keeper | None,
    watchers: Sequence[Watcher],
) -> Generator[tuple[np.ndarray, Result], None, None]:
    """Inverts lanes of one program."""
    first = planned[0]
    keywords = first.keywords(settings)
    if first.initial is not None:
        keywords["initial_image"] = np.stack(
            [lane.initial for lane in planned if lane.initial is not None]
        )
    if first.target.mask is not None and "mask" not in keywords:
        keywords["mask"] = jax.tree.map(
            lambda *parts: np.stack(parts), *(lane.target.mask for lane in planned)
        )
    return api.invert_stream(
        jnp.stack([lane_key(lane, settings) for lane in planned]),
        jax.tree.map(
            lambda *parts: np.stack(parts), *(lane.target.code for lane in planned)
        ),
        first.group.phi,
        tv_weight=np.array([lane.tv_weight for lane in planned]),
        history_every=records.HISTORY_EVERY,
        on_narrower=on_narrower,
        keeper=keeper,
        watchers=watchers,
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


def _width(plan: Plan, settings: Settings) -> int:
    """How many lanes a new run has side by side."""
    examples = [plan.example(kind) for kind in range(len(plan.kinds))]
    return capacity.batch_size(examples, settings, num_lanes=plan.num_lanes)


def _lanes_per_unit(plan: Plan, kind: int, settings: Settings) -> int:
    """How many lanes of a kind take about as long as a unit should."""
    execution = lanes.execution(settings)
    if plan.kinds[kind] <= execution.lanes_at_once:
        # They run side by side, so that timing them first would win nothing.
        return execution.lanes_per_call
    lane = plan.example(kind)
    keywords = lane.keywords(settings)
    estimate = api.estimate(lane.target.code, lane.group.phi, **keywords)
    return units.lanes_per_unit(estimate.seconds_per_lane, execution)


def _lanes_per_window(run: Run, todo: Sequence[Unit]) -> list[int]:
    """How many lanes of each kind are in memory, and in the hands of the loop, at most.

    At the end of a window some lanes end before others; so it has many times the lanes
    that run at once, and those of several units, as far as the memory allows.
    """
    sizes = dict.fromkeys(unit.kind for unit in todo)
    found = [1] * len(run.plan.kinds)
    at_once = lanes_at_once(run.settings)
    for kind in sizes:
        lane = run.plan.example(kind)
        height, width, channels = lane.target.image_shape
        # The code is stacked, and the target has it and the original.
        code_bytes = sum(part.nbytes for part in jax.tree.leaves(lane.target.code))
        num_bytes = 2 * code_bytes + 4 * height * width * channels
        unit = max(unit.num_lanes for unit in run.units if unit.kind == kind)
        wanted = max(_UNITS_PER_WINDOW * unit, _TIMES_PER_WINDOW * at_once)
        fitting = _WINDOW_BYTES // num_bytes
        # Whole calls, so that none is filled up in the middle of a run.
        found[kind] = max(min(wanted, fitting) // at_once, 1) * at_once
    return found


def lanes_at_once(settings: Settings) -> int:
    """Number of lanes that run side by side here."""
    return lanes.execution(settings).lanes_at_once


@contextlib.contextmanager
def solver_keeper(run: Run) -> Iterator[SolverStates | None]:
    """Keeps the states of descents and chains that last minutes, in states/.

    They are found again by what they are of, by a process of the same number. Who has
    kept what they led to deletes them.

    Args:
      run: the run.

    Yields:
      The keeper; None for a run in a bucket.
    """
    if files.is_remote(run.folder.path):
        yield None
        return
    folder = run.folder.path / _STATES / f"process-{run.process.number}"
    states = SolverStates(folder, seconds_between=solver_states.SECONDS_BETWEEN)
    with contextlib.closing(states):
        yield states


def _print_begin(run: Run, left: Sequence[Unit]) -> None:
    mine = run.mine
    num_lanes = sum(unit.num_lanes for unit in mine)
    num_done = num_lanes - sum(unit.num_lanes for unit in left)
    process = run.process
    which = ""
    if process.count > 1:
        which = f"process {process.number} of {process.count} ({process.source}): its "
    line = f"{which}lanes: {num_lanes}"
    if num_done:
        line += f", {num_done} of them done before"
    print(line, flush=True)


def _finish(run: Run, show: Callable[[Iterator[tuple[Unit, Shard]]], None]) -> None:
    """Writes what there is to see, then metrics.jsonl, and removes what was kept."""
    folder = run.folder.path
    run.folder.remove_unfinished()
    _write_skipped(run, partial=False)
    show(run.shards())
    shards.assemble(folder, run.units, run.digest)
    shards.drop_arrays(folder)
    locks.remove_left(folder)
    files.remove(folder / _STATES)


def _write_skipped(run: Run, *, partial: bool) -> None:
    """Writes skipped.jsonl, and says in a line how many images were passed over."""
    found = dict.fromkeys(run.skipped)
    for _, shard in run.shards(partial=partial):
        found |= dict.fromkeys(shard.skipped)
    skipped.write(run.folder.path / skipped.FILE, found)
    later = [item for item in found if item not in set(run.skipped)]
    if later:
        print(f"{len(later)} images were passed over: see {skipped.FILE}", flush=True)


def _write_originals(run: Run, planned: Iterable[Lane]) -> None:
    """Writes the originals of lanes, as the first representation was given them."""
    for lane in planned:
        original = lane.target.original
        if original is None or lane.group.name != run.plan.first_group:
            continue
        path = run.folder.path / original_path(lane.target.name)
        if not path.exists():
            files.remove_unfinished(path)
            reading.write_png(path, original)


def _program(lane: Lane) -> tuple[Any, ...]:
    """What lanes of one compiled program have in common."""
    has_initial = lane.initial is not None
    return lane.group.name, lane.target.image_shape, lane.variant, has_initial
