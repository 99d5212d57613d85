"""What every study is carried out by, on a study of twelve lines; the shallow table."""

import csv
import dataclasses
import importlib.util
import json
import math
import pathlib
from typing import Any

import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

from experiments import benchmark, shallow_table
from invjax.commands import studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.images import reading
from invjax.report import contact_sheet, tables
from invjax.report.contact_sheet import Cell, Row
from invjax.runs import errors, loading, units
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Variant
from invjax.runs.runner import Outcome
from invjax.runs.settings import Request, Settings
from tests.experiments import outputs
from tests.runs import made_up

needs_photographs = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None,
    reason="the pretrained extra has the photographs",
)


def table(findings: Findings) -> list[list[str]]:
    """A row per image."""
    return [
        [name, *(tables.mean(studies.finite(some, n), digits=4) for n in COLUMNS[1:])]
        for (name,), some in studies.by(findings.records, COLUMNS[0]).items()
    ]


COLUMNS = ("image", "relative_error", "brightness")
TOY = Study(
    defaults=Defaults(images="sample:abstract", representations=("hogb",)),
    columns=COLUMNS,
    table=table,
    measure=lambda bench, outcome: {"brightness": float(np.mean(outcome.image))},
)


@pytest.fixture
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the weights of LPIPS are missing, which take long to compile."""
    monkeypatch.setattr(loading, "load_lpips", lambda groups, settings: None)


@pytest.fixture
def photographs(tmp_path: pathlib.Path, no_lpips: None) -> pathlib.Path:
    """A folder of two pictures of 32 x 32 pixels."""
    for name, image in made_up.images().items():
        reading.write_png(tmp_path / "photographs" / f"{name}.png", image)
    return tmp_path / "photographs"


def _request(
    photographs: pathlib.Path, workdir: pathlib.Path, **values: Any
) -> Request:
    """A request for two steps of one lane after the other."""
    settings = made_up.settings(
        images=str(photographs),
        representations=("hogb",),
        num_steps=2,
        batch_size=1,
        **values,
    )
    return Request(settings, str(workdir), dry_run=False, overwrite=False)


def _check_table(workdir: pathlib.Path, names: list[str]) -> None:
    """The table is that of the records in the folder."""
    lines, rows = outputs.records(workdir), outputs.table(workdir)
    assert [row["image"] for row in rows] == names
    assert [*dict.fromkeys(line["image"] for line in lines)] == names
    for row in rows:
        for column in COLUMNS[1:]:
            mine = [line[column] for line in lines if line["image"] == row["image"]]
            assert row[column] == f"{np.mean(mine):.4f}"
    assert "| image | relative_error |" in (workdir / "table.md").read_text()


def test_a_study_without_flags(tmp_path: pathlib.Path, photographs: pathlib.Path):
    workdir = tmp_path / "run"
    request = _request(photographs, workdir, num_starts=2)
    findings = studies.run(TOY, request, options={"colour": "red"})
    assert findings is not None
    assert sorted(path.name for path in workdir.iterdir()) == [
        "config.json",
        "metrics",
        "metrics.jsonl",
        "reconstructions",
        "table.csv",
        "table.md",
    ]
    _check_table(workdir, ["one", "two"])
    lines = outputs.records(workdir)
    assert lines == [record.as_json() for record in findings.records]
    assert [(line["image"], line["start"], line["num_steps"]) for line in lines] == [
        *(("one", 0, 2), ("one", 1, 2), ("two", 0, 2), ("two", 1, 2))
    ]
    for outcome in findings.shown:
        assert outcome.image is not None
        picture = workdir / "reconstructions" / f"{outcome.lane.path}.png"
        brightness = np.clip(outcome.image, 0, 1).mean()
        assert reading.read(picture).mean() == pytest.approx(brightness, abs=2e-3)
        assert outcome.record.value("brightness") == pytest.approx(
            outcome.image.mean(), rel=1e-6
        )
    settings = json.loads((workdir / "config.json").read_text())["settings"]
    assert settings == json.loads(
        json.dumps(request.settings.as_json() | {"colour": "red"})
    )
    bench = findings.bench
    assert bench.options == {"colour": "red"} and bench.left_out == []
    assert bench.first_images(1) == ["one"] and bench.first_images(9) == ["one", "two"]
    assert bench.group("hogb") is bench.groups[0]


def test_a_study_by_its_flags(tmp_path: pathlib.Path, photographs: pathlib.Path):
    workdir = tmp_path / "run"
    given = {"workdir": str(workdir), "images": str(photographs), "num_steps": 2}

    def configure(settings: Settings) -> Settings:
        return dataclasses.replace(settings, seed=settings.seed + 1)

    study = dataclasses.replace(
        TOY, configure=configure, options=lambda: {"colour": "blue"}
    )
    with flagsaver.flagsaver(**given, seed=4, batch_size=1):
        studies.main(study)
    _check_table(workdir, ["one", "two"])
    assert {line["seed"] for line in outputs.records(workdir)} == {5}
    settings = json.loads((workdir / "config.json").read_text())["settings"]
    assert settings["representations"] == ["hogb"] and settings["colour"] == "blue"
    # What was run by flags is what is run without them.
    request = _request(photographs, tmp_path / "again", seed=5)
    studies.run(TOY, request)
    same = ("image", "energy", "relative_error", "brightness")
    first, second = (
        [[line[name] for name in same] for line in outputs.records(folder)]
        for folder in (workdir, tmp_path / "again")
    )
    assert first == second


def test_defaults_are_what_flags_are_by_default(tmp_path: pathlib.Path, no_lpips: None):
    defaults = Defaults(
        images="sample:abstract",
        representations=("hogb",),
        num_starts=2,
        preset="adam",
        tv_weight=(0.5, 5.0),
    )
    study = dataclasses.replace(TOY, defaults=defaults)
    workdir = str(tmp_path / "run")
    with flagsaver.flagsaver(workdir=workdir, image_size=32, num_steps=1):
        studies.main(study)
    lines = outputs.records(tmp_path / "run")
    assert [(line["tv_weight"], line["start"]) for line in lines] == [
        *((0.5, 0), (0.5, 1), (5.0, 0), (5.0, 1))
    ]
    assert {(line["image"], line["preset"]) for line in lines} == {("abstract", "adam")}


def test_an_interrupt_keeps_what_was_finished(
    tmp_path: pathlib.Path,
    photographs: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(units, "lanes_per_unit", lambda *_: 1)
    workdir = tmp_path / "run"
    measured: list[Outcome] = []

    def measure(bench: Bench, outcome: Outcome) -> dict[str, float]:
        measured.append(outcome)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return {"brightness": float(np.mean(outcome.image))}

    kept: list[Any] = []

    def summarise(bench: Bench, outcomes: Any) -> int:
        kept.append([(o.lane.target.name, o.lane.start) for o in outcomes])
        return len(outcomes)

    study = dataclasses.replace(TOY, measure=measure, summarise=summarise)
    with pytest.raises(KeyboardInterrupt):
        studies.run(study, _request(photographs, workdir, num_starts=2))
    (line,) = outputs.records(workdir)
    assert (line["image"], line["start"]) == ("one", 0)
    _check_table(workdir, ["one"])
    # A code without all of its starts is summarised by those that there are.
    assert kept == [[("one", 0)]]
    with pytest.raises(KeyboardInterrupt):
        studies.run(
            dataclasses.replace(study, measure=_interrupt),
            _request(photographs, tmp_path / "at_once"),
        )
    # Nothing was finished: there is nothing to tabulate.
    there = sorted(path.name for path in (tmp_path / "at_once").iterdir())
    assert there == ["config.json", "metrics"]
    assert outputs.records(tmp_path / "at_once") == []


def _interrupt(bench: Bench, outcome: Outcome) -> dict[str, float]:
    raise KeyboardInterrupt


def test_a_dry_run_writes_nothing(
    tmp_path: pathlib.Path,
    photographs: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
):
    def load_tools(bench: Bench) -> None:
        raise AssertionError("a dry run needs no tools")

    study = dataclasses.replace(TOY, load_tools=load_tools)
    request = _request(photographs, tmp_path / "run", num_starts=3)
    findings = studies.run(study, dataclasses.replace(request, dry_run=True))
    assert findings is None
    said = capsys.readouterr().out
    assert "hogb: 6 lanes of 2 steps, about" in said and "MiB" in said
    with flagsaver.flagsaver(images=str(photographs), dry_run=True, num_steps=3):
        studies.main(study)
    assert "hogb: 2 lanes of 3 steps, about" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({"preset": "adam"}, "--preset: this study has two"),
        ({"tv_weight": "5"}, "--tv_weight means nothing here"),
        ({"code": "x.npy"}, "--code means nothing here"),
        ({"images": "absent.png"}, "absent.png"),
        ({"representations": "hogc"}, "--representations=hogc"),
        ({}, "--workdir is missing"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    tmp_path: pathlib.Path, typed: dict[str, str], words: str
):
    study = dataclasses.replace(
        TOY,
        used_flags=("workdir", "images", "representations", "image_size"),
        refused_flags={"preset": "this study has two"},
    )
    if typed:
        typed = {"workdir": str(tmp_path / "run")} | typed
    with flagsaver.as_parsed(**typed):
        with pytest.raises(errors.EXPECTED, match=words) as caught:
            studies.main(study)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_written_over(tmp_path: pathlib.Path, photographs: pathlib.Path):
    request = _request(photographs, tmp_path / "run")
    studies.run(TOY, request)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    other = _request(photographs, tmp_path / "run", seed=1)
    with pytest.raises(Refusal, match="--overwrite"):
        studies.run(TOY, other)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    studies.run(TOY, dataclasses.replace(other, overwrite=True))
    assert {line["seed"] for line in outputs.records(tmp_path / "run")} == {1}


def test_what_a_study_may_have_besides(
    tmp_path: pathlib.Path, photographs: pathlib.Path
):
    """Tools, variants, what is summarised and shown, a figure, further files."""

    def variants(bench: Bench, group: Any, target: Any) -> list[Variant]:
        return both if target.name == "one" else both[:1]

    def measure(bench: Bench, outcome: Outcome) -> dict[str, Any]:
        return {"brightness": None, "tool": bench.tools}

    def figure(findings: Findings) -> list[Row]:
        cells = [Cell.found(o.picture, o.lane.target.name) for o in findings.shown]
        return [Row("the first start", cells)]

    def publish(findings: Findings, folder: pathlib.Path) -> None:
        (folder / "curves.png").write_text(f"{len(findings.records)}")

    # The codes have 4 x 4 cells.
    half, none = np.zeros((2, 4, 4, 1), np.float32)
    half[:2] = 1
    both = [Variant("half", {"mask": half}), Variant("none", {"mask": none})]
    study = dataclasses.replace(
        TOY,
        variants=variants,
        measure=measure,
        figure=figure,
        picture_range="stretched",
        publish=publish,
        summarise=lambda bench, outcomes: [o.record.start for o in outcomes],
        is_shown=lambda bench, lane: lane.start == 0,
        bold=lambda rows: [1],
        load_tools=lambda bench: f"{len(bench.planned)} lanes",
        writes_originals=True,
    )
    workdir = tmp_path / "run"
    findings = studies.run(study, _request(photographs, workdir, num_starts=2))
    assert findings is not None
    assert {record.variant for record in findings.records} == {"half"}
    assert {record.value("tool") for record in findings.records} == {"4 lanes"}
    assert [lane.variant_name for lane in findings.bench.left_out] == ["none"] * 2
    assert findings.codes == [[0, 1], [0, 1]]
    assert [(o.lane.target.name, o.lane.start) for o in findings.shown] == [
        *(("one", 0), ("two", 0))
    ]
    for name in ("", "_clipped"):
        drawn = contact_sheet.contact_sheet(
            figure(findings), picture_range="clipped" if name else "stretched"
        )
        with Image.open(workdir / f"figure{name}.png") as written:
            np.testing.assert_array_equal(np.asarray(written), np.asarray(drawn))
    assert (workdir / "curves.png").read_text() == "4"
    assert reading.read(workdir / "originals" / "two.png").shape == (32, 32, 3)
    assert "| **two** |" in (workdir / "table.md").read_text()
    assert [row["brightness"] for row in outputs.table(workdir)] == ["–", "–"]


def test_statistics_leave_out_what_is_undefined():
    records = [
        made_up.record(start=0, ssim=0.5),
        made_up.record(start=1, ssim=0.25, status="failed"),
        made_up.record(start=1, ssim=None),
        made_up.record(start=0, ssim=math.nan, dead_start=True),
        made_up.record(start=0, ssim=1.0, dead_start=True),
    ]
    assert studies.finite(records, "ssim") == [0.5, 1.0]
    assert studies.counts(records) == ["1 of 5", "2 of 5"]
    groups = studies.by(records, "start", "status")
    assert [(key, len(some)) for key, some in groups.items()] == [
        *(((0, "budget"), 3), ((1, "failed"), 1), ((1, "budget"), 1))
    ]
    with pytest.raises(KeyError, match="growth"):
        studies.finite(records, "growth")
    assert tables.mean([1.0, 2.0], scale=100) == "150.0"
    assert tables.mean_and_deviation([1.0, 3.0], digits=2) == "2.00 ± 1.00"
    assert tables.mean([]) == tables.mean_and_deviation([]) == tables.NOTHING
    means, deviations = studies.means([[1.0, 3.0], []], scale=10)
    assert (means[0], deviations[0]) == (20.0, 10.0)
    assert math.isnan(means[1]) and math.isnan(deviations[1])
    columns = ("layer", "preset's lambda_V")
    assert studies.preset_rows(columns, [["a", "no"], ["b", "yes"]]) == [1]


def test_maximisation_and_caricature_have_presets_of_their_own():
    for preset in ("ijcv2016", "fast"):
        settings = made_up.settings(preset=preset)
        assert studies.without_cvpr_presets(settings) is settings
    with pytest.raises(Refusal, match="ijcv2016, fast, natural are accepted"):
        studies.without_cvpr_presets(made_up.settings(preset="cvpr2015"))


@needs_photographs
@pytest.mark.slow
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
    mean = 100 * sum(r["relative_error"] for r in records[:2]) / 2
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
