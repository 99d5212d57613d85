"""Trajectories, event files and progress of runs, through the main command."""

import functools
import json
import pathlib
import struct
from typing import Any

import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

from invjax import callables
from invjax.commands import invert
from invjax.images import pixels, reading
from invjax.inversion.watching import Sight
from invjax.representations import representation
from invjax.runs import event_files, loading, progress, records, trajectories
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane
from invjax.runs.progress import Progress
from tests.runs import made_up


@pytest.fixture
def photographs(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name, image in made_up.images().items():
        pixels.to_pillow(image).save(folder / f"{name}.png")
    return folder


def _run(workdir: pathlib.Path, photographs: pathlib.Path, **values: Any) -> None:
    flags: dict[str, Any] = {
        "workdir": str(workdir),
        "images": str(photographs),
        "representations": ["hogb"],
        "image_size": 32,
        "num_steps": 12,
    }
    with flagsaver.flagsaver(**flags | values):
        invert.main()


@pytest.fixture(autouse=True)
def without_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_lpips", lambda groups, settings: None)


def _group() -> Group:
    return made_up.group(representation("hogb"), "hogb")


def _rows(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _durations(animation: Image.Image) -> list[int]:
    found = []
    for number in range(getattr(animation, "n_frames", 1)):
        animation.seek(number)
        animation.load()
        found.append(animation.info["duration"])
    return found


def test_a_trajectory_of_every_lane(tmp_path: pathlib.Path, photographs: pathlib.Path):
    workdir = tmp_path / "run"
    _run(workdir, photographs, num_starts=2, save_trajectory=5)
    phi = representation("hogb")
    records_of_run = _rows(workdir / "metrics.jsonl")
    assert len(records_of_run) == 4
    for record in records_of_run:
        path = f"{record['image']}/hogb/start_{record['start']:03d}"
        folder = workdir / trajectories.FOLDER
        rows = _rows(folder / f"{path}.jsonl")
        assert [row["step"] for row in rows] == [0, 5, 10, 12]
        assert rows[-1]["relative_error"] == pytest.approx(record["relative_error"])
        original = reading.read(workdir / "originals" / f"{record['image']}.png")
        target = callables.encode(phi, original[..., :1])
        frames = [folder / path / f"step_{row['step']:05d}.png" for row in rows]
        assert sorted((folder / path).iterdir()) == frames
        for row, frame in zip(rows, frames, strict=True):
            code = callables.encode(phi, reading.read(frame)[..., :1])
            error = np.linalg.norm(code - target) / np.linalg.norm(target)
            # Pictures are clipped and of 8 bits.
            assert row["relative_error"] == pytest.approx(error, abs=0.05)
        final = reading.read(workdir / "reconstructions" / f"{path}.png")
        np.testing.assert_array_equal(reading.read(frames[-1]), final)
        with Image.open(folder / f"{path}.webp") as animation:
            assert animation.size == final.shape[1::-1]
            # Frames that are alike are put together, and last as long as both.
            durations = _durations(animation)
            assert len(durations) > 1 and sum(durations) == 3 * 80 + 1000
    curves = (workdir / "curves.svg").read_text()
    assert "hogb: objective" in curves and "hogb: relative error" in curves
    assert curves.count("<polyline") == 8


def test_a_descent_that_begins_anew_forgets_what_was(tmp_path: pathlib.Path):
    group = _group()
    settings = made_up.settings(save_trajectory=5)
    lane = Lane(group, group.targets[0], 0, 0.5, "one/code/start_000")
    shape = group.targets[0].image_shape
    watcher = trajectories.Trajectory(tmp_path, [lane], settings)

    def look(*steps: int) -> None:
        for step in steps:
            images = np.full((1, *shape), step / 20, np.float32)
            fetch = functools.partial(np.copy, images)
            watcher.look(Sight(np.array([0]), np.array([step]), fetch))

    look(0, 5, 10, 15)
    # Killed, and gone on with from a state after 10 steps; then from the beginning.
    look(15, 20)
    folder = tmp_path / trajectories.FOLDER
    steps = [row["step"] for row in trajectories.read(folder, lane.path)]
    assert steps == [0, 5, 10, 15, 20]
    look(0, 5)
    assert [row["step"] for row in trajectories.read(folder, lane.path)] == [0, 5]
    written = trajectories.finish(tmp_path, lane.path)
    left = sorted(path.name for path in (folder / lane.path).iterdir())
    assert left == ["step_00000.png", "step_00005.png"]
    assert len(written) == 4 and all(path.exists() for path in written)


def test_an_image_that_is_not_finite_has_no_picture(tmp_path: pathlib.Path):
    group = _group()
    lane = Lane(group, group.targets[0], 0, 0.5, "one/code/start_000")
    images = np.full((1, *group.targets[0].image_shape), np.nan, np.float32)
    watcher = trajectories.Trajectory(
        tmp_path, [lane], made_up.settings(save_trajectory=5)
    )
    watcher.look(Sight(np.array([0]), np.array([5]), lambda: images))
    assert trajectories.read(tmp_path / "trajectories", lane.path) == [{"step": 5}]
    assert trajectories.finish(tmp_path, lane.path) == []


def _events(folder: pathlib.Path) -> dict[str, list[tuple[int, Any]]]:
    """Tag -> (step, value or picture's bytes) of the event files in a folder."""
    from tensorboardX.proto import event_pb2

    found: dict[str, list[tuple[int, Any]]] = {}
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                is_image = value.HasField("image")
                item = (
                    value.image.encoded_image_string if is_image else value.simple_value
                )
                found.setdefault(value.tag, []).append((event.step, item))
    return found


@pytest.mark.parametrize("every", [None, 5])
def test_event_files(
    tmp_path: pathlib.Path, photographs: pathlib.Path, every: int | None
):
    workdir = tmp_path / "run"
    _run(workdir, photographs, tensorboard=True, save_trajectory=every)
    for record in _rows(workdir / "metrics.jsonl"):
        folder = workdir / event_files.FOLDER / record["image"] / "hogb" / "start_000"
        found = _events(folder)
        expected = [(step, pytest.approx(value)) for step, value in record["history"]]
        assert found["objective"] == expected
        ((step, error),) = found["relative_error"]
        assert step == 12 and error == pytest.approx(record["relative_error"])
        steps = [step for step, _ in found["image"]]
        assert steps == ([12] if every is None else [0, 5, 10, 12])
        assert "lpips" not in found


def test_without_tensorboardx_a_line_says_so(
    tmp_path: pathlib.Path, photographs: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match="--tensorboard needs tensorboardX"):
        _run(tmp_path / "run", photographs, tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_lanes_that_take_long_say_how_far_they_are(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    group = _group()
    lane = Lane(group, group.targets[0], 0, 0.5, "one/code/start_000")
    now = iter([0.0, *np.arange(0.0, 1000, 10)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    with Progress(1, 1) as shown:
        watcher = shown.within([lane], made_up.settings(num_steps=1000))
        for step in range(0, 100, 10):
            sight = Sight(np.array([0]), np.array([step]), lambda: np.zeros(1))
            watcher.look(sight)
    lines = capsys.readouterr().out.splitlines()
    # A look is ten seconds and ten steps after the other, a line thirty seconds.
    assert [line.split(": ")[1] for line in lines] == [
        f"step {step} of 1000, 1 steps/s, {left} left"
        for step, left in ((30, "16:10"), (60, "15:40"), (90, "15:10"))
    ]
    assert lines[0].startswith("one ") and "start 0" in lines[0]


def test_errors_of_a_trajectory_are_pairs():
    rows: list[dict] = [{"step": 0}, {"step": 5, "relative_error": 0.5}]
    assert trajectories.errors(rows) == [(5, 0.5)]
    assert records.strict({"step": 1}) == {"step": 1}
