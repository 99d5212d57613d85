"""The main binary as a user runs it: outputs, refusals, interruption."""

import html.parser
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import urllib.parse
from typing import Any

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

import invjax
from invjax import callables
from invjax.commands import invert
from invjax.images import reading
from invjax.images.pixels import ImageError
from invjax.networks.weights.checkpoints import DamagedCheckpoint
from invjax.runs import loading, shards, targets, units
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from tests.experiments import inputs
from tests.experiments.inputs import needs_weights

ROOT = pathlib.Path(__file__).parents[2]
FIELDS = (
    "image representation start seed preset tv_weight alpha_weight status num_steps "
    "dead_start num_revivals energy objective data_term alpha_term tv_term "
    "relative_error normalised_error psnr ssim lpips rms seconds history"
).split()


def _run(**values: object) -> None:
    """main() with these flags and the defaults of all others."""
    with flagsaver.flagsaver(**values):
        invert.main()


def _records(workdir: pathlib.Path) -> list[dict]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not strict JSON")

    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


@needs_weights
def test_outputs_of_a_run(tmp_path: pathlib.Path, photographs: pathlib.Path):
    workdir = tmp_path / "run"
    _run(
        workdir=str(workdir),
        images=str(photographs),
        representations=["alexnet/conv1"],
        num_steps=3,
        num_starts=2,
        tv_weight=["0.5", "5"],
        save_arrays=True,
    )
    records = _records(workdir)
    assert len(records) == 2 * 2 * 2
    for record in records:
        assert list(record) == FIELDS
        assert record["status"] == "budget" and record["num_steps"] == 3
        terms = record["data_term"] + record["alpha_term"] + record["tv_term"]
        assert terms == pytest.approx(record["energy"], rel=1e-4)
        assert 0 < record["relative_error"] < 5
        assert 0 < record["normalised_error"] < 5
        (start, _), (end, objective) = record["history"]
        assert (start, end) == (0, 3)
        assert objective == pytest.approx(record["objective"], rel=1e-3)
        name = f"start_{record['start']:03d}_tv_{record['tv_weight']:g}"
        lane = f"{record['image']}/alexnet_conv1/{name}"
        picture = reading.read(workdir / "reconstructions" / f"{lane}.png")
        arrays = np.load(workdir / "arrays" / f"{lane}.npz")
        clipped = np.clip(arrays["image"], 0, 1)
        np.testing.assert_allclose(picture, clipped, atol=0.5 / 255 + 1e-6)
        original = reading.read(workdir / "originals" / f"{record['image']}.png")
        error = np.mean((clipped - original) ** 2)
        assert 0 < record["lpips"] < 2
        assert record["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-2)
        # The original on disk is rounded to 8 bit.
        assert record["rms"] == pytest.approx(np.sqrt(error), abs=1e-3)
    assert len({json.dumps(record["energy"]) for record in records}) == 8
    config = json.loads((workdir / "config.json").read_text())
    assert config["settings"]["tv_weight"] == [0.5, 5.0]
    assert len(config["weights"]["alexnet/conv1"]) == 64
    assert config["versions"]["jax"]
    assert (workdir / "grid.png").stat().st_size > 10_000
    assert (workdir / "grid_stretched.png").stat().st_size > 10_000
    page = (workdir / "index.html").read_text()
    assert page.count("<polyline") == page.count("ran its 3 steps</span>") == 8
    assert f"<dt>jax</dt><dd>{config['versions']['jax']}</dd>" in page
    for image in ("one", "two"):
        for weight in ("0.5", "5"):
            folder = workdir / f"reconstructions/{image}/alexnet_conv1"
            starts = sorted(folder.glob(f"start_*_tv_{weight}.png"))
            found = f"over_starts/{image}/alexnet_conv1_TV_weight_{weight}_mean.png"
            mean = np.mean([reading.read(path) for path in starts], 0)
            assert len(starts) == 2 and found in page
            np.testing.assert_allclose(
                reading.read(workdir / found), mean, atol=0.5 / 255 + 1e-6
            )

    recorded = tmp_path / "mine.npy"
    np.save(recorded, arrays["code"])
    _run(
        workdir=str(tmp_path / "code"),
        code=str(recorded),
        representations=["alexnet/conv1"],
        smoke=True,
    )
    (record,) = _records(tmp_path / "code")
    assert record["image"] == "mine" and record["num_steps"] == 5
    assert record["relative_error"] is not None
    assert [record[name] for name in ("normalised_error", "psnr", "ssim")] == [None] * 3


@needs_weights
def test_errors_under_bfloat16_are_of_the_float32_network(
    tmp_path: pathlib.Path, photographs: pathlib.Path
):
    phi = invjax.representation("alexnet/conv1")
    found = {}
    for dtype in ("float32", "bfloat16"):
        workdir = tmp_path / dtype
        _run(
            workdir=str(workdir),
            images=str(photographs / "one.png"),
            representations=["alexnet/conv1"],
            num_steps=2,
            compute_dtype=dtype,
            save_arrays=True,
        )
        (record,) = _records(workdir)
        path = workdir / "arrays" / "one" / "alexnet_conv1" / "start_000.npz"
        image = np.load(path)["image"]
        target = callables.encode(phi, reading.read(workdir / "originals/one.png"))
        error = np.linalg.norm(callables.encode(phi, image) - target) / np.linalg.norm(
            target
        )
        assert record["relative_error"] == pytest.approx(error, rel=1e-4)
        found[dtype] = image
    assert np.any(found["float32"] != found["bfloat16"])


@needs_weights
def test_a_run_is_not_written_over(tmp_path: pathlib.Path, photographs: pathlib.Path):
    workdir = tmp_path / "run"
    settings = {
        "workdir": str(workdir),
        "images": str(photographs / "one.png"),
        "representations": ["alexnet/conv1"],
        "num_steps": 1,
    }
    _run(**settings)
    before = (workdir / "metrics.jsonl").read_text()
    with pytest.raises(Refusal, match="--overwrite"):
        _run(**settings | {"seed": 1})
    assert (workdir / "metrics.jsonl").read_text() == before
    _run(**settings | {"seed": 1, "overwrite": True})
    assert _records(workdir)[0]["seed"] == 1


@needs_weights
def test_damaged_weights_of_a_metric_cost_no_earlier_run(
    tmp_path: pathlib.Path, photographs: pathlib.Path
):
    settings = {
        "workdir": str(tmp_path / "run"),
        "weights_dir": str(tmp_path / "weights"),
        "images": str(photographs / "one.png"),
        "representations": ["hog"],
        "image_size": 32,
        "num_steps": 1,
    }
    _run(**settings)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    (tmp_path / "weights" / "lpips_alexnet" / "manifest.json").write_text("{")
    with pytest.raises(DamagedCheckpoint):
        _run(**settings | {"overwrite": True})
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


@needs_weights
def test_a_failed_lane_is_said_and_not_hidden(
    tmp_path: pathlib.Path, photographs: pathlib.Path
):
    _run(
        workdir=str(tmp_path / "run"),
        images=str(photographs / "one.png"),
        representations=["alexnet/conv1"],
        preset="cvpr2015",
        num_steps=20,
        tv_weight=["5000"],
    )
    (record,) = _records(tmp_path / "run")
    assert record["status"] == "failed" and record["num_steps"] < 20
    assert record["relative_error"] is None and record["psnr"] is None
    assert "failed" in (tmp_path / "run" / "index.html").read_text()


@needs_weights
def test_an_interrupt_keeps_the_finished_lanes(
    tmp_path: pathlib.Path, photographs: pathlib.Path
):
    values = {
        "images": str(photographs),
        "representations": ["alexnet/conv1"],
        "num_steps": 1,
        "batch_size": 1,
    }
    workdir = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        inputs.interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            _run(workdir=str(workdir), **values)
    assert len(list(shards.read_records(workdir))) == 1
    assert (workdir / "grid.png").exists()
    assert (workdir / "index.html").exists()
    assert not (workdir / "metrics.jsonl").exists()
    # The same command goes on.
    first = (workdir / "metrics" / "part-00000000.jsonl").stat().st_mtime_ns
    _run(workdir=str(workdir), **values)
    assert (workdir / "metrics" / "part-00000000.jsonl").stat().st_mtime_ns == first
    _run(workdir=str(tmp_path / "whole"), **values)
    found, expected = _records(workdir), _records(tmp_path / "whole")
    for record in (*found, *expected):
        del record["seconds"]
    assert found == expected
    for name in ("grid.png", "originals/one.png", "originals/two.png"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (workdir / name).read_bytes() == whole


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"workdir": None}, "--workdir"),
        ({"representations": ["nothing/relu1"]}, "--representations=nothing/relu1"),
        ({"representations": ["alexnet/relu9"]}, "relu9"),
        ({"representations": ["a", "a"]}, "repeat"),
        ({"images": "sample:chelsea", "code": "x.npy"}, "--code"),
        ({"code": "absent.npy"}, "absent.npy"),
        ({"tv_weight": ["5", "x"]}, "--tv_weight"),
        ({"tv_weight": ["-1"]}, "--tv_weight"),
        ({"tv_weight": ["0.12345671", "0.12345672"]}, "--tv_weight"),
        ({"alpha_weight": float("inf")}, "--alpha_weight"),
        ({"tolerance": float("inf")}, "--tolerance"),
        ({"representations": ["hog"], "dead_relu": "leaky"}, "--dead_relu=leaky: hog"),
        ({"weights_dir": __file__}, "--weights_dir"),
    ],
)
@needs_weights
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: pathlib.Path, values: dict, word: str
):
    defaults = {"workdir": str(tmp_path / "run"), "num_steps": 1}
    with pytest.raises(Refusal, match=word) as caught:
        _run(**defaults | values)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.ones((2, 2)), "shape"),
        (np.full((55, 55, 64), np.nan), "finite"),
        (np.zeros((55, 55, 64)), "zero"),
        (np.full((55, 55, 64), 1e300), "finite"),
        (np.full((55, 55, 64), 1e-30), "zero"),
        (np.full((55, 55, 64), "a"), "numeric"),
    ],
)
@needs_weights
def test_bad_codes_are_refused(tmp_path: pathlib.Path, array: np.ndarray, word: str):
    np.save(tmp_path / "code.npy", array)
    with pytest.raises(Refusal, match=word):
        _run(
            workdir=str(tmp_path / "run"),
            code=str(tmp_path / "code.npy"),
            representations=["alexnet/conv1"],
        )
    assert not (tmp_path / "run").exists()


@needs_weights
def test_a_code_file_may_name_each_representation(tmp_path: pathlib.Path):
    path = tmp_path / "codes.npz"
    code = np.random.default_rng(0).uniform(size=(55, 55, 64)).astype(np.float32)
    arrays: dict = {"alexnet_conv1": code, "alexnet/relu1": code}
    np.savez(path, **arrays)
    both = ["alexnet/conv1", "alexnet/relu1"]
    _run(
        workdir=str(tmp_path / "run"), code=str(path), representations=both, smoke=True
    )
    assert [r["representation"] for r in _records(tmp_path / "run")] == both
    with pytest.raises(Refusal, match="alexnet/pool1"):
        _run(
            workdir=str(tmp_path / "other"),
            code=str(path),
            representations=["alexnet/pool1", "alexnet/relu1"],
        )


@needs_weights
@pytest.mark.slow
def test_the_sheet_has_a_row_per_representation_and_lambda(tmp_path, monkeypatch):
    rows: list = []

    monkeypatch.setattr(
        invert.contact_sheet, "write_both", lambda path, given: rows.extend(given)
    )
    _run(
        workdir=str(tmp_path / "run"),
        images="sample:chelsea,sample:coffee",
        image_size=32,
        representations=["hog", "hogb"],
        tv_weight=["0.5", "5"],
        num_steps=1,
    )
    assert [row.label for row in rows] == [
        "originals",
        *(
            f"{name}  tv {weight}"
            for name in ("hog", "hogb")
            for weight in ("0.5", "5")
        ),
    ]
    assert all(len(row.cells) == 2 for row in rows)


@pytest.fixture
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the weights of LPIPS are missing, which take long to compile."""
    monkeypatch.setattr(loading, "load_lpips", lambda groups, settings: None)


def test_recorded_codes_are_what_save_arrays_writes(
    tmp_path: pathlib.Path, no_lpips: None, monkeypatch: pytest.MonkeyPatch
):
    few = {"representations": "hogb", "num_steps": "2", "image_size": "32"}
    with flagsaver.as_parsed(
        workdir=str(tmp_path / "a"),
        images="sample:abstract",
        save_arrays="true",
        num_starts="2",
        **few,
    ):
        invert.main()
    folder = tmp_path / "a" / "arrays" / "abstract" / "hogb"
    codes = [np.load(folder / f"start_00{start}.npz")["code"] for start in (0, 1)]
    monkeypatch.setenv("HOME", str(folder))
    given = {"one": "~/start_001.npz", "two": "~/both.npy"}
    np.save(folder / "both.npy", np.stack(codes))
    errors = {}
    for name, code in given.items():
        workdir = tmp_path / name
        with flagsaver.as_parsed(workdir=str(workdir), code=code, **few):
            invert.main()
        errors[name] = {r["image"]: r["relative_error"] for r in _records(workdir)}
        config = json.loads((workdir / "config.json").read_text())
        assert config["settings"]["code"] == code.replace("~", str(folder))
    assert list(errors["one"]) == ["start_001"]
    assert list(errors["two"]) == ["both_000", "both_001"]
    # The second code is the same one, and so are its noise and what becomes of it.
    assert errors["two"]["both_001"] == errors["one"]["start_001"]
    assert errors["two"]["both_000"] != errors["two"]["both_001"]
    page = (tmp_path / "two" / "index.html").read_text()
    assert "both_000" in page and "both_001" in page


def test_images_of_equal_stems_and_files_that_are_none(
    tmp_path: pathlib.Path, no_lpips: None, capsys: pytest.CaptureFixture[str]
):
    generator = np.random.default_rng(0)
    names = ("cats/a_tv_1.png", "cats/a_tv_1.bmp", "dogs/a_tv_1.png", "dogs/b.png")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        levels = generator.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(levels).save(tmp_path / name)
    (tmp_path / "dogs" / "notes.txt").touch()
    workdir = tmp_path / "run"
    with flagsaver.as_parsed(
        workdir=str(workdir),
        images=f"{tmp_path}/cats,{tmp_path}/dogs",
        representations="hogb",
        num_steps="1",
        tv_weight="1,2",
    ):
        invert.main()
    said = capsys.readouterr().out
    assert f"{tmp_path}/dogs: 1 file is not an image and was left out (.txt 1)" in said
    found = {record["image"] for record in _records(workdir)}
    assert found == {"cats/a_tv_1.bmp", "cats/a_tv_1.png", "dogs/a_tv_1", "b"}
    page = (workdir / "index.html").read_text()
    for name in found:
        assert reading.read(workdir / "originals" / f"{name}.png").shape == (32, 32, 3)
        for weight in (1, 2):
            lane = f"{name}/hogb/start_000_tv_{weight}"
            for picture in (f"reconstructions/{lane}.png", f"stretched/{lane}.jpg"):
                assert (workdir / picture).exists() and picture in page
    assert page.count('class="stretched"') == len(found) * 2
    assert "only the PNG" not in page


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("broken.jpg", b"\xff\xd8\xff\xe0 and nothing", "broken.jpg: cannot be read"),
        ("cut.png", None, "cut.png: cannot be read as an image"),
        ("text.gif", b"no image", "text.gif: cannot be read as an image"),
    ],
)
def test_damaged_images_are_named_before_anything_is_computed(
    tmp_path: pathlib.Path,
    no_lpips: None,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    data: bytes | None,
    words: str,
):
    inputs.write_photographs(tmp_path / "photos")
    if data is None:
        data = (tmp_path / "photos" / "one.png").read_bytes()[:200]
    (tmp_path / "photos" / name).write_bytes(data)
    monkeypatch.setattr(callables, "encode", None)
    with pytest.raises(ImageError, match=words):
        _run(
            workdir=str(tmp_path / "run"),
            images=str(tmp_path / "photos"),
            representations=["hogb"],
            on_bad_image="refuse",
        )
    assert not (tmp_path / "run").exists()


def test_damaged_images_are_passed_over_and_listed(
    tmp_path: pathlib.Path, no_lpips: None, capsys: pytest.CaptureFixture[str]
):
    inputs.write_photographs(tmp_path / "photos")
    (tmp_path / "photos" / "cut.png").write_bytes(b"\x89PNG")
    workdir = tmp_path / "run"
    values = {
        "workdir": str(workdir),
        "representations": ["hogb"],
        "image_size": 32,
        "num_steps": 1,
    }
    _run(images=str(tmp_path / "photos"), **values)
    assert "1 of 3 images is left out: cut: cannot be read" in capsys.readouterr().out
    assert {record["image"] for record in _records(workdir)} == {"one", "two"}
    (line,) = (workdir / "skipped.jsonl").read_text().splitlines()
    left_out = json.loads(line)
    assert (left_out["image"], left_out["representation"]) == ("cut", None)
    assert left_out["source"] == str(tmp_path / "photos" / "cut.png")
    assert left_out["reason"].startswith("cannot be read as an image (")
    # A run that replaces it leaves no list of the old one's.
    _run(images=str(tmp_path / "photos" / "one.png"), overwrite=True, **values)
    assert not (workdir / "skipped.jsonl").exists()
    with pytest.raises(Refusal, match="cut.png: cannot be read as an image"):
        _run(images=str(tmp_path / "photos" / "cut.png"), overwrite=True, **values)
    assert {record["image"] for record in _records(workdir)} == {"one"}


LARGE = {"representations": ["hogb"], "image_size": 32, "num_steps": 2}


@pytest.fixture
def large(
    tmp_path: pathlib.Path, no_lpips: None, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A set as if it were large: nine images, of which two cannot be read."""
    monkeypatch.setattr(invert, "MOST_LOADED", 2)
    generator = np.random.default_rng(0)
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(9):
        levels = generator.integers(0, 256, (40, 36, 3), np.uint8)
        Image.fromarray(levels).save(folder / f"{number}.png")
    (folder / "0.png").write_bytes(b"no image")
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:200])
    return str(folder)


def _without_seconds(workdir: pathlib.Path) -> list[dict]:
    return [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in shards.read_records(workdir)
    ]


def test_large_sets_are_read_unit_by_unit(
    tmp_path: pathlib.Path,
    large: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    values = {**LARGE, "images": large, "num_starts": 2, "tv_weight": ["0.5", "5"]}
    read: list[list[str]] = []
    whole_reading = targets.of_images

    def watched(listed: list, *args: Any) -> targets.Found:
        read.append([source.name for source in listed])
        return whole_reading(listed, *args)

    monkeypatch.setattr(targets, "of_images", watched)
    monkeypatch.setattr(targets.Target, "is_zero", lambda target: target.name == "4")
    monkeypatch.setattr(units, "lanes_per_unit", lambda *_: 6)
    _run(workdir=str(tmp_path / "run"), **values)
    # Units of six lanes, an image and a half; each reads its own images.
    assert read == [
        *(["0", "1"], ["1", "2"], ["3", "4"], ["4", "5"], ["6", "7"], ["7", "8"])
    ]
    said = capsys.readouterr().out
    assert "3 images were passed over" in said, said
    lines = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    skipped = {line["image"]: line["reason"] for line in map(json.loads, lines)}
    assert list(skipped) == ["0", "4", "7"] and "code is zero" in skipped["4"]
    found = _without_seconds(tmp_path / "run")
    assert [record["image"] for record in found] == [
        n for n in "123568" for _ in "abcd"
    ]
    # As if all of them were read first, but for those that cannot be used.
    for name in skipped:
        pathlib.Path(large, f"{name}.png").unlink()
    monkeypatch.setattr(invert, "MOST_LOADED", 99)
    _run(workdir=str(tmp_path / "loaded"), **values)
    assert _without_seconds(tmp_path / "loaded") == found
    for path in (tmp_path / "loaded").rglob("*.png"):
        same = tmp_path / "run" / path.relative_to(tmp_path / "loaded")
        assert same.read_bytes() == path.read_bytes()


def test_a_large_set_is_shared_and_gone_on_with(
    tmp_path: pathlib.Path, large: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(units, "lanes_per_unit", lambda *_: 2)
    values = {**LARGE, "images": large}
    _run(workdir=str(tmp_path / "whole"), **values)
    shared = str(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        inputs.interrupt_after_units(1, patch)
        patch.setattr(units, "lanes_per_unit", lambda *_: 2)
        with pytest.raises(KeyboardInterrupt):
            _run(workdir=shared, num_processes=2, process_id=1, **values)
    # The code scale was settled when the run began.
    monkeypatch.setattr(targets, "code_scale", None)
    for number in (2, 0, 1):
        assert not (tmp_path / "run" / "metrics.jsonl").exists()
        _run(workdir=shared, num_processes=3, process_id=number, **values)
    assert _without_seconds(tmp_path / "run") == _without_seconds(tmp_path / "whole")
    for name in ("grid.png", "skipped.jsonl"):
        same = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "run" / name).read_bytes() == same


def test_a_large_set_is_estimated_by_one_of_its_images(
    large: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # Which would read up to 10,001 images.
    monkeypatch.setattr(targets, "code_scale", None)
    _run(dry_run=True, images=large, num_starts=2, **LARGE)
    assert "hogb: 18 lanes of 2 steps, about" in capsys.readouterr().out


def test_bad_images_of_a_large_set_may_be_refused(tmp_path: pathlib.Path, large: str):
    values = {**LARGE, "images": large, "on_bad_image": "refuse"}
    with pytest.raises(ImageError, match="0.png: cannot be read"):
        _run(workdir=str(tmp_path / "run"), **values)
    for path in pathlib.Path(large).iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(Refusal, match="none of 9 can be used; .*0.png"):
        _run(workdir=str(tmp_path / "run"), **LARGE, images=large)
    assert not (tmp_path / "run").exists()


def test_every_process_has_a_number_and_none_may_overwrite(tmp_path: pathlib.Path):
    for values, words in (
        ({"num_processes": 2}, "--num_processes=2: which of them"),
        ({"process_id": 1}, "--process_id=1: of how many"),
        ({"process_id": 0, "num_processes": 2, "overwrite": True}, "--overwrite: each"),
    ):
        with pytest.raises(Refusal, match=words):
            _run(workdir=str(tmp_path / "run"), **values)


HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"onerror="alert(1)',
    "'); alert('1",
    "{{ 7 * 7 }}{% for %}",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "%3Cscript%3E",
    "../../../up",
    "/etc/root",
    "\u202eback",
    "\x1b[2Jclear",
    "new\nline",
    "?q=1#part",
    "x" * 400,
)


class _Page(html.parser.HTMLParser):
    """What a browser makes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.script = ""
        self._is_in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._is_in_script = tag == "script"
        self.attributes |= {name for name, _ in attrs}
        self.links += [
            value for name, value in attrs if name in ("src", "href") and value
        ]

    def handle_endtag(self, tag: str) -> None:
        self._is_in_script = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._is_in_script:
            self.script += data


def test_names_of_strangers_are_names_and_nothing_else(
    tmp_path: pathlib.Path, no_lpips: None
):
    """From a tar archive to the files and the page of the run."""
    inputs.write_photographs(tmp_path / "photos")
    pictures = [
        (tmp_path / "photos" / f"{name}.png").read_bytes() for name in ("one", "two")
    ]
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for number, name in enumerate(HOSTILE):
            info = tarfile.TarInfo("plain.png")
            info.pax_headers = {"path": f"{name}.png"}
            info.size = len(pictures[number % 2])
            archive.addfile(info, io.BytesIO(pictures[number % 2]))
    before = sorted(tmp_path.iterdir())
    workdir = tmp_path / "run"
    _run(
        workdir=str(workdir),
        images=str(tmp_path / "set.tar"),
        representations=["hogb"],
        image_size=32,
        num_steps=1,
    )
    assert sorted(tmp_path.iterdir()) == sorted([*before, workdir])
    names = [record["image"] for record in _records(workdir)]
    assert len(set(names)) == len(HOSTILE)
    page = _Page()
    page.feed((workdir / "index.html").read_text())
    assert not {*page.tags} & {"iframe", "b", "object"}
    # The one script is the template's, with nothing of the run in it.
    assert page.tags.count("script") == 1
    template = ROOT / "invjax" / "report" / "templates" / "gallery.js"
    assert page.script.strip() == template.read_text().strip()
    assert not [name for name in page.attributes if name.startswith("on")]
    links = [link for link in page.links if not link.startswith("#")]
    assert len(links) >= 2 * len(names)
    for link in links:
        path = (workdir / urllib.parse.unquote(link)).resolve()
        assert path.is_relative_to(workdir.resolve()) and path.is_file()
    assert all(name in page.text for name in names) and "\u202e" not in page.text
    assert (workdir / "grid.png").exists()


def test_other_peoples_folders_are_left_alone(tmp_path: pathlib.Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(Refusal, match="thesis.tex"):
            RunFolder.claim(str(tmp_path), overwrite=overwrite)
    with pytest.raises(Refusal, match="not a folder"):
        RunFolder.claim(str(tmp_path / "thesis.tex"), overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@needs_weights
def test_a_dry_run_writes_nothing(
    tmp_path: pathlib.Path,
    photographs: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
):
    _run(
        workdir=str(tmp_path / "run"),
        images=str(photographs),
        representations=["alexnet/conv1"],
        num_steps=50,
        num_starts=3,
        dry_run=True,
    )
    printed = capsys.readouterr().out
    assert "6 lanes of 50 steps" in printed and "MiB" in printed
    assert not (tmp_path / "run").exists()


def test_the_list_names_every_layer(capsys: pytest.CaptureFixture[str]):
    _run(list=True)
    printed = capsys.readouterr().out
    assert "alexnet/pool5" in printed and "6 x 6 x 256" in printed


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [
        ("experiments.invert", ["--preset=slow"], 2),
        ("experiments.invert", ["--num_stepz=3"], 2),
        ("experiments.invert", ["stray"], 2),
        ("experiments.invert", ["--num_starts=0"], 2),
        ("experiments.invert", ["--images=absent.png"], 1),
        ("experiments.invert", [], 1),
        ("invjax.commands.invert", ["--images=absent.png"], 1),
    ],
)
def test_exit_codes_and_one_line(
    tmp_path: pathlib.Path, module: str, arguments: list[str], code: int
):
    if arguments and arguments != ["stray"]:
        arguments = [f"--workdir={tmp_path / 'run'}", *arguments]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()


def test_flags_have_help():
    module = flags.FLAGS.flags_by_module_dict()["invjax.commands.shared_flags"]
    assert all(flag.help and len(flag.help) < 200 for flag in module)


@needs_weights
def test_several_representations_together(
    tmp_path: pathlib.Path, photographs: pathlib.Path
):
    name = "alexnet/conv1+hogb"
    workdir = tmp_path / "run"
    settings: dict = {
        "representations": [name],
        "num_steps": 4,
        "code_weights": ["3", "1"],
        "save_arrays": True,
    }
    _run(workdir=str(workdir), images=str(photographs), **settings)
    records = _records(workdir)
    assert len(records) == 2
    for record in records:
        own = record["relative_errors"]
        assert set(own) == {"alexnet/conv1", "hogb"}
        mean = (3 * own["alexnet/conv1"] ** 2 + own["hogb"] ** 2) / 4
        assert record["relative_error"] == pytest.approx(mean**0.5, rel=1e-4)
        # The data term is weighted likewise, but the weights' sum is not 1.
        assert record["data_term"] == pytest.approx(4 * mean, rel=1e-3)
        assert record["normalised_error"] is None and record["psnr"] is not None
    page = (workdir / "index.html").read_text()
    assert "alexnet/conv1+hogb" in page

    # What --save_arrays wrote is a code to be inverted.
    arrays = workdir / "arrays" / "one" / "alexnet_conv1+hogb" / "start_000.npz"
    assert set(np.load(arrays)) == {"image", "alexnet_conv1", "hogb"}
    _run(workdir=str(tmp_path / "code"), code=str(arrays), **settings)
    (record,) = _records(tmp_path / "code")
    assert record["image"] == "start_000" and len(record["relative_errors"]) == 2


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"code_weights": ["1", "2"]}, "in hogb, 1, are accepted"),
        (
            {"code_weights": ["1"], "representations": ["hogb+dsift"]},
            "in hogb+dsift, 2, are accepted",
        ),
        ({"code_weights": ["0", "0"]}, "a comma list of numbers from 0 up, not all 0"),
        ({"code_weights": ["1", "-2"]}, "a comma list of numbers from 0 up"),
        ({"code_weights": ["one"]}, "--code_weights=one: a comma list"),
        ({"representations": ["hogb+hogb"]}, "'hogb+hogb' has fewer than two"),
    ],
)
def test_code_weights_are_refused_in_one_line(
    tmp_path: pathlib.Path, photographs: pathlib.Path, flags, words
):
    settings = {"representations": ["hogb"], "num_steps": 1} | flags
    with pytest.raises(Refusal) as caught:
        _run(workdir=str(tmp_path / "run"), images=str(photographs), **settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_masks_and_starts_of_files(tmp_path: pathlib.Path, photographs: pathlib.Path):
    settings: dict = {
        "images": str(photographs),
        "representations": ["hogb"],
        "image_size": 32,
    }
    mask = np.zeros((2, 4, 5, 1))
    mask[0, :2] = mask[1, 2:] = 1
    np.save(tmp_path / "masks.npy", mask)
    starts = tmp_path / "starts"
    starts.mkdir()
    for name, grey in {"one": 0.25, "two": 0.75}.items():
        with Image.open(photographs / f"{name}.png") as photograph:
            size = photograph.size
        Image.new("L", size, round(255 * grey)).save(starts / f"{name}.png")
    settings |= {"mask": str(tmp_path / "masks.npy"), "initial_image": str(starts)}
    workdir = tmp_path / "run"
    _run(workdir=str(workdir), **settings | {"num_steps": 1, "save_arrays": True})
    for number, record in enumerate(_records(workdir)):
        path = f"{record['image']}/hogb/start_000.npz"
        arrays = np.load(workdir / "arrays" / path)
        grey = {"one": 0.25, "two": 0.75}[record["image"]]
        # One step is a few grey levels away from the start.
        assert np.abs(arrays["image"].mean() - grey) < 0.1
        original = reading.read(workdir / "originals" / f"{record['image']}.png")
        target = callables.encode(invjax.representation("hogb"), original[..., :1])
        kept = mask[number]
        error = np.linalg.norm(kept * (arrays["code"] - target))
        error /= np.linalg.norm(kept * target)
        assert record["relative_error"] == pytest.approx(error, rel=1e-3)
        assert record["normalised_error"] is None
    # Another mask is another run, whatever the file is called.
    np.save(tmp_path / "masks.npy", 1 - mask)
    with pytest.raises(Refusal, match="--overwrite"):
        _run(workdir=str(workdir), **settings | {"num_steps": 1, "save_arrays": True})
