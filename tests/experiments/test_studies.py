"""Each study runs through in small, and its outputs hold what they should."""

import csv
import json
import pathlib

import pytest
from absl.testing import flagsaver

from experiments import benchmark, shallow_table
from invjax.runs.errors import Refusal

pytest.importorskip("skimage", reason="the pretrained extra has the photographs")


def test_shallow_table(tmp_path: pathlib.Path):
    with flagsaver.flagsaver(
        workdir=str(tmp_path / "run"),
        images="sample:chelsea,sample:rocket",
        image_size=64,
        num_steps=4,
    ):
        shallow_table.main()
    with open(tmp_path / "run" / "table.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["representation"], row["preset"]) for row in rows] == [
        (name, preset)
        for preset in ("fast", "cvpr2015")
        for name in ("hog", "hogb", "dsift")
    ]
    # The published rate diverges on images this small; `fast` must not.
    assert all(row["failed"] == "0 of 2" for row in rows[:3])
    assert all(row["steps"] == "4" for row in rows[:3])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 12
    errors = [r["relative_error"] for r in records[:2]]
    mean = 100 * sum(errors) / 2
    assert rows[0]["relative error %"].startswith(f"{mean:.1f} ±")
    for record in records:
        folder = tmp_path / "run" / "reconstructions" / record["preset"]
        lane = folder / record["image"] / record["representation"]
        assert (lane / "start_000.png").exists()
    assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000
    assert "| hogb | fast |" in (tmp_path / "run" / "table.md").read_text()


def test_shallow_table_refuses_networks(tmp_path: pathlib.Path):
    with flagsaver.flagsaver(
        workdir=str(tmp_path / "run"), representations=["alexnet/relu1"]
    ):
        with pytest.raises(Refusal, match="hogb"):
            shallow_table.main()
    assert not (tmp_path / "run").exists()


def test_flags_without_a_meaning_are_refused(tmp_path: pathlib.Path):
    with flagsaver.flagsaver(workdir=str(tmp_path / "run")):
        with flagsaver.as_parsed(preset="cvpr2015"):
            with pytest.raises(Refusal, match="--preset"):
                shallow_table.main()
        with flagsaver.as_parsed(representations="hog"):
            with pytest.raises(Refusal, match="--representations"):
                benchmark.main()
    assert not (tmp_path / "run").exists()
