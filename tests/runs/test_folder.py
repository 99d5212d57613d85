"""Folders of runs: whose they are, and the files that describe a run."""

import importlib.metadata
import json
import math
import pathlib

import pytest

from invjax import files
from invjax.runs import folder
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from tests.runs import made_up


def test_a_new_or_empty_folder_is_taken(tmp_path: pathlib.Path):
    new = RunFolder.claim(str(tmp_path / "some" / "run"), overwrite=False)
    assert new.path.is_dir()
    assert RunFolder.claim(str(new.path), overwrite=False).path == new.path


def test_a_run_is_emptied_only_if_asked_for(tmp_path: pathlib.Path):
    run = RunFolder.claim(str(tmp_path), overwrite=False)
    run.write_config({"seed": 0}, {})
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "part-00000000.jsonl").write_text("{}\n")
    (tmp_path / "reconstructions" / "one").mkdir(parents=True)
    (tmp_path / "reconstructions" / "one" / "start_000.png").write_bytes(b"png")
    (tmp_path / "notes.txt").write_text("mine")
    other = RunFolder.claim(str(tmp_path), overwrite=False)
    with pytest.raises(Refusal, match="seed 0, not 1; pass --overwrite"):
        other.write_config({"seed": 1}, {})
    assert (tmp_path / "reconstructions" / "one" / "start_000.png").exists()
    RunFolder.claim(str(tmp_path), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    # It is not a run any more, and somebody's notes are there.
    with pytest.raises(Refusal, match="notes.txt"):
        RunFolder.claim(str(tmp_path), overwrite=True)


def test_half_emptied_is_no_finished_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    """Whenever emptying ends early, nothing looks done whose files are gone."""
    remove = files.remove
    for count in range(7):
        path = tmp_path / str(count)
        run = RunFolder.claim(str(path), overwrite=False)
        run.write_config({}, {})
        for name in ("grid_002.png", "skipped.jsonl", "metrics.jsonl"):
            (path / name).write_text("")
        for name in ("metrics", "reconstructions", "originals"):
            (path / name).mkdir()
        left = iter(range(count))

        def killed(path: pathlib.Path, left=left) -> None:
            if next(left, None) is None:
                raise InterruptedError
            remove(path)

        monkeypatch.setattr(files, "remove", killed)
        with pytest.raises(Refusal):
            RunFolder.claim(str(path), overwrite=True)
        monkeypatch.setattr(files, "remove", remove)
        there = {item.name for item in path.iterdir()}
        assert "config.json" in there
        if "metrics.jsonl" in there:
            assert len(there) == 7
        if "metrics" in there:
            assert {"reconstructions", "originals"} <= there


@pytest.mark.parametrize(
    ("settings", "weights", "lanes", "words"),
    [
        (
            {"seed": 1, "num_steps": None},
            {},
            {},
            "seed 0, not 1; num_steps 5, not none",
        ),
        ({"betas": [1.0]}, {}, {}, "betas 1.0,2.0, not 1.0"),
        ({"new": True}, {}, {}, "new none, not True"),
        ({}, {"hog": "b"}, {}, "other weights of hog"),
        ({}, {}, {"number": 7}, "8 lanes, not 7"),
        ({}, {}, {"digest": "f"}, "other images"),
        ({"weights_dir": "elsewhere"}, {}, {}, None),
    ],
)
def test_what_differs_is_listed(
    tmp_path: pathlib.Path,
    settings: dict,
    weights: dict,
    lanes: dict,
    words: str | None,
):
    known = {"seed": 0, "num_steps": 5, "betas": (1.0, 2.0), "weights_dir": None}
    planned = {"number": 8, "digest": "e", "per_unit": [3]}
    run = RunFolder.claim(str(tmp_path), overwrite=False)
    first = run.write_config(known, {"hog": "a"}, planned)
    before = (tmp_path / "config.json").read_text()
    again = {**planned, **lanes, "per_unit": [5]}
    if words is None:
        assert run.write_config(known | settings, weights, again) == first
    else:
        with pytest.raises(Refusal, match=words) as caught:
            run.write_config(known | settings, {"hog": "a"} | weights, again)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "config.json").read_text() == before


def test_another_version_is_said(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    run = RunFolder.claim(str(tmp_path), overwrite=False)
    run.write_config({}, {})
    run.write_config({}, {})
    assert capsys.readouterr().out == ""
    known = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "9" if name == "jax" else known(name),
    )
    run.write_config({}, {})
    assert "jax" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": 1}'])
def test_a_damaged_configuration_is_refused(tmp_path: pathlib.Path, text: str):
    (tmp_path / "config.json").write_text(text)
    run = RunFolder.claim(str(tmp_path), overwrite=False)
    with pytest.raises(Refusal, match="config.json: damaged; pass --overwrite"):
        run.write_config({}, {})
    assert (tmp_path / "config.json").read_text() == text


def test_what_a_killed_process_left_is_no_reason_to_refuse(tmp_path: pathlib.Path):
    (tmp_path / ".config.json.abc").write_text("{")
    RunFolder.claim(str(tmp_path), overwrite=False).write_config({}, {})
    assert json.loads((tmp_path / "config.json").read_text())["settings"] == {}


def test_a_folder_that_cannot_be_made(tmp_path: pathlib.Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="--workdir=.*file/run: Not a directory"):
        RunFolder.claim(str(tmp_path / "file" / "run"), overwrite=False)


def test_the_configuration_is_enough_to_run_it_again(tmp_path: pathlib.Path):
    settings = made_up.settings(tv_weight=(0.5, 5.0), seed=3)
    run = RunFolder.claim(str(tmp_path / "run"), overwrite=False)
    run.write_config(settings.as_json() | {"betas": (1.0, 2.0)}, {"hog": ""})
    config = json.loads((run.path / "config.json").read_text())
    assert list(config) == [
        *("command", "settings", "weights", "versions", "device", "lanes")
    ]
    assert config["command"].startswith("python ")
    found = dict(config["settings"])
    assert found.pop("betas") == [1.0, 2.0]
    for name, value in found.items():
        if isinstance(value, list):
            found[name] = tuple(value)
    assert type(settings)(**found) == settings
    assert config["weights"] == {"hog": ""}
    assert {"python", "invjax", "jax"} <= set(config["versions"])
    assert config["device"]["backend"] and config["device"]["count"] >= 1


def test_lines_of_any_mapping(tmp_path: pathlib.Path):
    folder.write_lines(tmp_path / "sets.jsonl", [{"rms": math.inf}, {"rms": 1 / 3}])
    assert (
        tmp_path / "sets.jsonl"
    ).read_text() == '{"rms": null}\n{"rms": 0.3333333}\n'
