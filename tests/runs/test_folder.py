"""Folders of runs: whose they are, and the files that describe a run."""

import json
import math
import pathlib

import pytest

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
    run.write_config({}, {})
    run.add_records([made_up.record()])
    (tmp_path / "reconstructions" / "one").mkdir(parents=True)
    (tmp_path / "reconstructions" / "one" / "start_000.png").write_bytes(b"png")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Refusal, match="--overwrite"):
        RunFolder.claim(str(tmp_path), overwrite=False)
    assert (tmp_path / "reconstructions" / "one" / "start_000.png").exists()
    RunFolder.claim(str(tmp_path), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    # It is not a run any more, and somebody's notes are there.
    with pytest.raises(Refusal, match="notes.txt"):
        RunFolder.claim(str(tmp_path), overwrite=True)


def test_a_folder_that_cannot_be_made(tmp_path: pathlib.Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="--workdir=.*file/run: Not a directory"):
        RunFolder.claim(str(tmp_path / "file" / "run"), overwrite=False)


def test_the_configuration_is_enough_to_run_it_again(tmp_path: pathlib.Path):
    settings = made_up.settings(tv_weight=(0.5, 5.0), seed=3)
    run = RunFolder.claim(str(tmp_path / "run"), overwrite=False)
    run.write_config(settings.as_json() | {"betas": (1.0, 2.0)}, {"hog": ""})
    config = json.loads((run.path / "config.json").read_text())
    assert list(config) == ["command", "settings", "weights", "versions", "device"]
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


def test_records_are_added_and_strict(tmp_path: pathlib.Path):
    run = RunFolder.claim(str(tmp_path / "run"), overwrite=False)
    run.add_records([made_up.record(start=0)])
    run.add_records([made_up.record(start=1, energy=math.nan), made_up.record(start=2)])
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(line["start"], line["energy"]) for line in found] == [
        *((0, 1.0), (1, None), (2, 1.0))
    ]
    assert not any("NaN" in line for line in lines)


def test_lines_of_any_mapping(tmp_path: pathlib.Path):
    folder.write_lines(tmp_path / "sets.jsonl", [{"rms": math.inf}, {"rms": 1 / 3}])
    assert (
        tmp_path / "sets.jsonl"
    ).read_text() == '{"rms": null}\n{"rms": 0.3333333}\n'
