"""A run that is killed, shared or damaged ends as one that nothing has happened to.

Lanes are made up here, in no time, so that every moment of a run can be its last.
"""

import contextlib
import errno
import os
import pathlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from invjax import files
from invjax.images import pixels
from invjax.report import tables
from invjax.runs import lanes, locks, runner, shards
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.lanes import Group, Lane
from invjax.runs.plans import LoadedPlan
from invjax.runs.processes import Process
from invjax.runs.runner import Outcome, Run
from invjax.runs.shards import Shard
from invjax.runs.targets import Target
from invjax.runs.units import Unit
from tests.conftest import micro_representation
from tests.runs import made_up

NAMES = ("one", "two", "three")
STARTS = 3
LANES_PER_UNIT = [2, 4]
"""The layers have units of 2, 2, 2, 2 and 1 lanes, and of 4, 4 and 1 lanes."""

NUM_UNITS = 8
_SIDE_BY_SIDE = 3


class Killed(BaseException):
    """SIGKILL, as far as files are concerned: nothing is cleaned up."""


class Machine:
    """Makes lanes up, counts them, and breaks when it is told to."""

    def __init__(self) -> None:
        self.num_lanes = 0
        self.num_operations = 0
        self._lock = threading.Lock()
        self.dies_at: int | None = None
        self.breaks_with: OSError | None = None

    def invert(
        self, planned: Sequence[Lane], settings: Any, **keywords: Any
    ) -> Iterator[list[Outcome]]:
        """Outcomes in another order than asked for, as lanes that converge end."""
        del settings, keywords
        order = sorted(range(len(planned)), key=lambda n: (n // _SIDE_BY_SIDE, -n))
        for lane in (planned[number] for number in order):
            self.num_lanes += 1
            seed = [lane.target.image_id, lane.start, len(lane.group.name)]
            image = np.random.default_rng(seed).uniform(size=(8, 8, 3))
            image = image.astype(np.float32)
            has_failed = (lane.target.name, lane.start) == ("two", 1)
            record = made_up.record(
                image=lane.target.name,
                representation=lane.group.name,
                start=lane.start,
                energy=float("nan") if has_failed else float(image.mean()),
                status="failed" if has_failed else "budget",
                seconds=float(self.num_lanes),
            )
            yield [Outcome(lane, record, image, image.mean(axis=0))]

    def watch(self, name: str, patch: pytest.MonkeyPatch) -> None:
        """Lets a function of os be one at which the machine may break."""
        whole = getattr(os, name)

        def watched(*args: Any, **keywords: Any) -> Any:
            with self._lock:
                self.num_operations += 1
            if self.dies_at is not None and self.num_operations >= self.dies_at:
                raise Killed
            if self.breaks_with is not None:
                raise self.breaks_with
            return whole(*args, **keywords)

        patch.setattr(os, name, watched)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(runner, "invert", made.invert)
    # No test needs to survive a loss of power.
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for name in ("replace", "link", "unlink", "fsync"):
        made.watch(name, monkeypatch)
    return made


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes them from a process that is killed; ours lives on."""
    monkeypatch.setattr(locks, "_held", lambda *_: contextlib.nullcontext())


@pytest.fixture(scope="module")
def planned() -> list[Lane]:
    groups = []
    for layer in ("conv1", "relu1"):
        phi = micro_representation(layer)
        targets = [
            Target(name, pixels.image_id(image), image, np.ones(3), image.shape)
            for name, image in made_up.images(NAMES).items()
        ]
        groups.append(Group(f"micro/{layer}", phi, targets, 1.0))
    return lanes.plan(groups, made_up.settings(num_starts=STARTS))


def _begin(workdir: files.Path, planned: list[Lane], process: Process) -> Run:
    settings = made_up.settings(num_starts=STARTS)
    return runner.begin(
        RunFolder.claim(str(workdir), overwrite=False),
        LoadedPlan(planned),
        settings,
        weights={},
        process=process,
        lanes_per_unit=LANES_PER_UNIT,
    )


def _go(
    workdir: files.Path,
    planned: list[Lane],
    process: Process | None = None,
    *,
    shown: list[int] | None = None,
) -> bool:
    """Carries out the run, or what is left of it; the table needs every image."""
    run = _begin(workdir, planned, process or Process())

    def compute(todo: list[Unit]) -> None:
        runner.compute(run, todo, keeps=lambda lane: True, writes_originals=True)

    def show(found: Iterator[tuple[Unit, Shard]]) -> None:
        rows = []
        for unit, shard in found:
            for lane in run.lanes(unit, shard):
                assert lane.image is not None
                cells = [lane.path, f"{lane.image.sum()!r}", f"{lane.record.energy!r}"]
                rows.append(cells)
        tables.write(workdir, ["path", "sum", "energy"], rows)
        if shown is not None:
            shown.append(len(rows))

    return runner.carry_out(run, compute, show)


def _files(workdir: pathlib.Path) -> dict[str, Any]:
    """What there is in a folder; of records, all but the seconds."""
    found: dict[str, Any] = {}
    for path in sorted(workdir.rglob("*")):
        if not path.is_dir():
            found[str(path.relative_to(workdir))] = path.read_bytes()
    for name in list(found):
        if name.startswith("metrics/part-"):
            del found[name]
    found["metrics.jsonl"] = [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in shards.read_records(workdir)
    ]
    found["shards"] = sorted(path.name for path in (workdir / "metrics").iterdir())
    return found


@pytest.fixture
def whole(
    tmp_path: pathlib.Path, planned: list[Lane], machine: Machine
) -> dict[str, Any]:
    """The files of a run that nothing has happened to."""
    assert _go(tmp_path / "whole", planned)
    return _files(tmp_path / "whole")


def test_a_run_that_nothing_happens_to(
    tmp_path: pathlib.Path, planned: list[Lane], whole: dict[str, Any]
):
    assert whole["shards"] == [f"part-{n:08d}.jsonl" for n in range(NUM_UNITS)]
    records = whole["metrics.jsonl"]
    # In the order of the plan, whatever order they ended in.
    assert [(r["representation"], r["image"], r["start"]) for r in records] == [
        (lane.group.name, lane.target.name, lane.start) for lane in planned
    ]
    assert [r["energy"] is None for r in records] == [
        (lane.target.name, lane.start) == ("two", 1) for lane in planned
    ]
    assert {f"originals/{name}.png" for name in NAMES} <= set(whole)
    for lane in planned:
        assert f"reconstructions/{lane.path}.png" in whole


def test_killed_at_any_moment_it_ends_the_same(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    no_locks: None,
    whole: dict[str, Any],
):
    num_operations = machine.num_operations
    assert num_operations > 2 * len(planned)
    moments = np.random.default_rng(0).choice(num_operations, 12, replace=False) + 1
    for moment in sorted({1, 2, *map(int, moments), num_operations}):
        workdir = tmp_path / str(moment)
        machine.num_operations = machine.num_lanes = 0
        machine.dies_at = moment
        with pytest.raises(Killed):
            _go(workdir, planned)
        machine.dies_at = None
        num_begun, machine.num_lanes = machine.num_lanes, 0
        num_done = len(list(shards.read_records(workdir)))
        # No more is lost than what was under way.
        assert num_begun - num_done <= max(LANES_PER_UNIT) + _SIDE_BY_SIDE
        assert _go(workdir, planned)
        assert machine.num_lanes == len(planned) - num_done
        assert _files(workdir) == whole


def test_killed_again_and_again_it_ends_the_same(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    no_locks: None,
    whole: dict[str, Any],
):
    generator = np.random.default_rng(0)
    num_kills = 0
    while True:
        machine.num_operations = 0
        machine.dies_at = int(generator.integers(1, 25))
        try:
            if _go(tmp_path / "run", planned):
                break
        except Killed:
            num_kills += 1
    assert num_kills > 5
    machine.dies_at = None
    assert _files(tmp_path / "run") == whole


@pytest.mark.parametrize("count", [2, 4, 9])
def test_shared_by_processes_it_ends_the_same(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    whole: dict[str, Any],
    count: int,
):
    machine.num_lanes = 0
    shown: list[int] = []
    workdir = tmp_path / "run"
    ended = [
        _go(workdir, planned, Process(number, count, "--process_id"), shown=shown)
        for number in np.random.default_rng(count).permutation(count).tolist()
    ]
    # Whoever finds all units done finishes the run, and no lane is done twice.
    assert ended.count(True) >= 1 and ended.index(True) >= count - 2
    assert shown == [len(planned)] and machine.num_lanes == len(planned)
    assert _files(workdir) == whole


def test_three_go_on_with_what_two_began(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    no_locks: None,
    whole: dict[str, Any],
):
    workdir = tmp_path / "run"
    for number in range(2):
        machine.num_operations, machine.dies_at = 0, 20
        with pytest.raises(Killed):
            _go(workdir, planned, Process(number, 2))
    machine.dies_at = None
    machine.num_lanes = 0
    num_done = len(list(shards.read_records(workdir)))
    assert 0 < num_done < len(planned)
    ended = [_go(workdir, planned, Process(number, 3)) for number in range(3)]
    assert ended[-1] and machine.num_lanes == len(planned) - num_done
    assert _files(workdir) == whole


def test_a_run_that_is_finished_is_left_as_it_is(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    whole: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
):
    def times() -> dict[pathlib.Path, int]:
        paths = [tmp_path / "whole", *(tmp_path / "whole").rglob("*")]
        return {path: path.stat().st_mtime_ns for path in paths}

    before, num_lanes = times(), machine.num_lanes
    capsys.readouterr()
    assert _go(tmp_path / "whole", planned)
    assert times() == before and machine.num_lanes == num_lanes
    assert "finished already; nothing is changed" in capsys.readouterr().out
    # Another plan is another run.
    with pytest.raises(Refusal, match="18 lanes, not 17; pass --overwrite"):
        _go(tmp_path / "whole", planned[:-1])
    other = [lane._replace(target=lane.target._replace(image_id=1)) for lane in planned]
    with pytest.raises(Refusal, match="other images, codes or variants"):
        _go(tmp_path / "whole", other)
    assert times() == before


@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "empty"])
@pytest.mark.parametrize("number", [0, 5])
def test_a_damaged_unit_is_done_again(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    whole: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    damage: str,
    number: int,
):
    """Whether the process that finds it has done it or another."""
    workdir = tmp_path / "run"
    assert not _go(workdir, planned, Process(0, 2))
    path = workdir / "metrics" / f"part-{number:08d}.jsonl"
    if number % 2:
        assert _begin(workdir, planned, Process(1, 2)).to_do()[0].number == 1
        run = _begin(workdir, planned, Process(1, 2))
        todo = [unit for unit in run.to_do() if unit.number != 7]
        runner.compute(run, todo, keeps=lambda lane: True)
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        changed = {
            "cut": data[:-40],
            "changed": data.replace(b'"start": 1', b'"start": 0', 1),
            "empty": b"",
        }
        path.write_bytes(changed[damage])
    machine.num_lanes = 0
    capsys.readouterr()
    ended = [_go(workdir, planned, Process(n, 2)) for n in (1, 0)]
    assert any(ended)
    said = capsys.readouterr().out
    if damage != "missing":
        lines = [line for line in said.splitlines() if "done again" in line]
        assert len(lines) == 1 and f"part-{number:08d}.jsonl: damaged" in lines[0]
    assert _files(workdir) == whole


def test_kept_images_that_are_gone_are_made_again(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    whole: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
):
    workdir = tmp_path / "run"
    assert not _go(workdir, planned, Process(0, 2))
    (workdir / "metrics" / "part-00000002.npz").write_bytes(b"PK")
    assert _go(workdir, planned, Process(1, 2))
    assert "part-00000002.npz: damaged" in capsys.readouterr().out
    assert _files(workdir) == whole


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "Read-only file system"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
    ],
)
def test_what_the_disk_refuses_is_one_line_and_loses_nothing(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    whole: dict[str, Any],
    error: OSError,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
):
    workdir = tmp_path / "run"
    mkstemp = tempfile.mkstemp
    room = iter(range(30))

    def full(*args: Any, **keywords: Any) -> Any:
        if next(room, None) is None:
            raise error
        return mkstemp(*args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", full)
        with pytest.raises(Refusal, match=words) as caught:
            _go(workdir, planned)
        # Nothing fits any more.
        with pytest.raises(Refusal, match=words):
            _go(workdir, planned)
    assert f"--workdir={workdir}: {words}; units that are done" in str(caught.value)
    assert "\n" not in str(caught.value)
    num_done = len(list(shards.read_records(workdir)))
    assert num_done > 0
    machine.num_lanes = 0
    assert _go(workdir, planned)
    assert machine.num_lanes == len(planned) - num_done
    assert _files(workdir) == whole


def test_a_folder_that_nothing_can_be_written_to(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
):
    def refused(*args: Any, **keywords: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    with pytest.raises(Refusal, match="--workdir=.*: Permission denied$"):
        _go(tmp_path, planned)
    assert machine.num_lanes == 0 and not list(tmp_path.iterdir())


def test_ctrl_c_shows_what_there_is_but_not_among_others(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    whole: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
):
    whole_invert = machine.invert

    def interrupted(lanes: Sequence[Lane], *args: Any, **keywords: Any) -> Any:
        for number, chunk in enumerate(whole_invert(lanes, *args, **keywords)):
            if number == 3:
                raise KeyboardInterrupt
            yield chunk

    shown: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(runner, "invert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _go(tmp_path / "shared", planned, Process(0, 2), shown=shown)
        assert shown == []
        with pytest.raises(KeyboardInterrupt):
            _go(tmp_path / "run", planned, shown=shown)
    # Units that are whole.
    assert len(shown) == 1 and shown[0] % 2 == 0
    assert (tmp_path / "run" / "table.csv").exists()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert _go(tmp_path / "run", planned)
    assert _files(tmp_path / "run") == whole


def test_a_script_gets_all_lanes_whenever_they_were_done(
    tmp_path: pathlib.Path, planned: list[Lane], machine: Machine, no_locks: None
):
    settings = made_up.settings(num_starts=STARTS)

    def go(name: str) -> list[tuple[str, float]]:
        folder = RunFolder.claim(str(tmp_path / name), overwrite=False)
        run = runner.run(planned, settings, folder, weights={}, lanes_per_unit=[2, 2])
        return [(lane.path, float(np.sum(np.asarray(lane.image)))) for lane in run]

    machine.num_operations, machine.dies_at = 0, 30
    with pytest.raises(Killed):
        go("run")
    machine.dies_at = None
    assert 0 < len(list(shards.read_records(tmp_path / "run"))) < len(planned)
    found = go("run")
    assert found == go("whole") and len(found) == len(planned)
    with pytest.raises(Refusal, match="finished already"):
        go("run")
