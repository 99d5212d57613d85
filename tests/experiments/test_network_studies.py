"""The studies of networks run through in small, and their tables hold what they should.

At 64 px and with a made-up classifier; real weights of AlexNet, whose first layers
are cheap.
"""

import csv
import importlib.util
import itertools
import json
import pathlib
import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import invariance, layer_progression, naturalness
from experiments.reproduction import printed
from invjax.images import reading
from invjax.metrics import labels
from invjax.metrics import naturalness as statistics
from invjax.metrics.labels import Classifier
from invjax.networks.layers import Conv, Dense, Network, Relu
from invjax.networks.weights import conversion
from invjax.networks.weights.pretrained import MissingWeights
from invjax.representations import cnn
from invjax.runs import targets
from invjax.runs.errors import Refusal
from invjax.runs.targets import Found
from tests.experiments import inputs
from tests.experiments.inputs import needs_weights

pytestmark = pytest.mark.slow

STUDIES = (layer_progression, invariance, naturalness)
CLASSIFIER = Network(
    name="classifier",
    input_size=32,
    layers=(
        Conv("conv1", 4, kernel=8, stride=8),
        Relu("relu1"),
        Dense("fc2", 1000),
    ),
)


@pytest.fixture(autouse=True)
def _made_up_classifier(monkeypatch: pytest.MonkeyPatch):
    """The judges are replaced by random weights; others are not at hand."""

    def load(*, name: str, weights_dir: str | None) -> Classifier:
        if name not in labels.JUDGES:
            raise MissingWeights(name)
        generator = np.random.default_rng(0)
        tensors = {
            name: generator.normal(size=shape).astype(np.float32)
            for name, shape in conversion.all_shapes(CLASSIFIER).items()
        }
        params = conversion.nest(tensors)
        phi = cnn.from_network(
            CLASSIFIER, "fc2", params, mean=(128.0,) * 3, std=(60.0,) * 3
        )
        return Classifier(name, phi)

    monkeypatch.setattr(labels, "load", load)


@pytest.fixture
def photographs(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "photographs"
    generator = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        coarse = generator.uniform(size=(8, 8, 3)).astype(np.float32)
        photograph = np.kron(coarse, np.ones((8, 8, 1), np.float32))
        reading.write_png(folder / f"{name}.png", photograph)
    return folder


def _run(study: ModuleType, workdir: pathlib.Path, **values: object) -> None:
    with flagsaver.flagsaver(workdir=str(workdir), image_size=64, **values):
        study.main()


def _layers_or_representations(study: ModuleType) -> dict[str, list[str]]:
    if study is layer_progression:
        return {"layers": ["conv1"]}
    return {"representations": ["alexnet/conv1"]}


def _table(workdir: pathlib.Path) -> list[dict[str, str]]:
    with open(workdir / "table.csv") as stream:
        return list(csv.DictReader(stream))


def _records(workdir: pathlib.Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _mean_and_deviation(values: list[float], digits: int = 1) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def _picture(path: pathlib.Path) -> bool:
    return path.stat().st_size > 5_000


@needs_weights
def test_layer_progression(tmp_path, photographs, capsys):
    workdir = tmp_path / "run"
    _run(
        layer_progression,
        workdir,
        images=str(photographs),
        layers=["conv1", "pool1"],
        num_steps=4,
    )
    records, rows = _records(workdir), _table(workdir)
    assert len(records) == 2 * 3 * 3
    names = ("alexnet/conv1", "alexnet/pool1")
    assert [(row["representation"], row["lambda_V"]) for row in rows] == [
        *itertools.product(names, ("0.5", "5", "50"))
    ]
    for row in rows:
        mine = [
            record
            for record in records
            if record["representation"] == row["representation"]
            and f"{record['tv_weight']:g}" == row["lambda_V"]
        ]
        assert len(mine) == 3
        for column in ("normalised error", "relative error"):
            values = [100 * record[column.replace(" ", "_")] for record in mine]
            assert row[f"{column} %"] == _mean_and_deviation(values)
        assert row["failed"] == "0 of 3" and row["code zero"] == "0"
        assert (row["preset's lambda_V"] == "yes") == (row["lambda_V"] == "0.5")
    theirs = [row["paper's normalised error %"] for row in rows]
    assert theirs[:2] == ["10.0 ± 5.0", "20.2 ± 9.3"]
    assert theirs[3:] == ["21.9 ± 9.2", "30.3 ± 13.6", "54.1 ± 22.7"]
    lines = (workdir / "table.md").read_text().splitlines()
    assert [line.startswith("| **") for line in lines[2:]] == [True, False, False] * 2
    assert _picture(workdir / "figure.png")
    has_matplotlib = importlib.util.find_spec("matplotlib") is not None
    assert (workdir / "curves.png").exists() == has_matplotlib
    said = capsys.readouterr().out
    assert re.search(r"\[1/18, [\d:]+ passed, [\d:]+ left\] one alexnet/conv1", said)
    assert "00:00 left] two alexnet/pool1 tv 50 start 0" in said


@needs_weights
def test_layers_of_the_progression(tmp_path: pathlib.Path):
    names = layer_progression.representations("alexnet", None)
    assert names[0] == "alexnet/conv1" and names[-1] == "alexnet/pool5"
    assert len(names) == 13
    assert printed.text("alexnet/pool5", 50.0) == "19.0 ± 4.3"
    assert printed.text("caffenet/mpool5", 5.0) == "15.5 ± 3.5"
    assert printed.text("vgg16/pool5", 50.0) is None
    assert printed.text("alexnet/pool5", 1.0) is None
    for values, word in (
        ({"layers": ["relu9"]}, "--layers=relu9"),
        ({"layers": ["relu1", "relu1"]}, "repeat"),
        ({"network": "nothing"}, "--network=nothing"),
        ({"layers": ["relu1"], "code": "x.npy"}, "--code"),
    ):
        with pytest.raises(Refusal, match=word):
            _run(layer_progression, tmp_path / "run", **values)
    with flagsaver.as_parsed(representations="alexnet/relu1"):
        with pytest.raises(Refusal, match="--representations"):
            _run(layer_progression, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@needs_weights
def test_invariance(tmp_path: pathlib.Path, photographs: pathlib.Path):
    workdir = tmp_path / "run"
    _run(
        invariance,
        workdir,
        images=str(photographs),
        representations=["alexnet/conv1"],
        num_starts=3,
        num_steps=4,
        save_arrays=True,
    )
    records, rows = _records(workdir), _table(workdir)
    assert len(records) == 3 * 3
    names = ["one", "three", "two"]
    assert [row["image"] for row in rows] == [
        *names,
        "mean of 3 images",
        "different images, reconstructed",
        "different images",
    ]

    def reconstruction(name: str, start: int) -> np.ndarray:
        path = workdir / "arrays" / name / "alexnet_conv1" / f"start_{start:03d}.npz"
        return np.clip(np.load(path)["image"], 0, 1)

    def distance(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.sqrt(np.mean((first - second) ** 2)))

    def mean_distance(pictures: list[np.ndarray]) -> float:
        return float(
            np.mean([distance(*p) for p in itertools.combinations(pictures, 2)])
        )

    unit = mean_distance([reconstruction(name, 0) for name in names])
    between = []
    for name, row in zip(names, rows, strict=False):
        mine = [record for record in records if record["image"] == name]
        errors = [100 * record["relative_error"] for record in mine]
        assert row["relative error %"] == _mean_and_deviation(errors)
        between.append(
            mean_distance([reconstruction(name, start) for start in range(3)])
        )
        # Three digits are written, of float32 sums.
        assert float(row["RMS"]) == pytest.approx(between[-1], abs=6e-4)
        percent = float(row["RMS, % of different images'"])
        assert percent == pytest.approx(100 * between[-1] / unit, abs=0.6)
        tops = [record["classifier_top1"] for record in mine]
        percent = float(row["top 1 as the original %"])
        assert percent == pytest.approx(100 * np.mean(tops), abs=0.51)
        assert all(record["own_top1"] is None for record in mine)
        assert row["own top 1 as the original %"] == "–"
    assert float(rows[3]["RMS"]) == pytest.approx(np.mean(between), abs=6e-4)
    assert rows[3]["starts"] == "9" and rows[3]["failed"] == "0 of 9"
    assert float(rows[4]["RMS"]) == pytest.approx(unit, abs=6e-4)
    assert rows[4]["RMS, % of different images'"] == "100"
    originals = [reading.read(photographs / f"{name}.png") for name in names]
    assert float(rows[5]["RMS"]) == pytest.approx(mean_distance(originals), abs=6e-4)
    assert _picture(workdir / "figure.png")
    with pytest.raises(Refusal, match="--num_starts"):
        _run(invariance, tmp_path / "one", num_starts=1)


@needs_weights
def test_naturalness(tmp_path: pathlib.Path, photographs: pathlib.Path):
    workdir = tmp_path / "run"
    _run(
        naturalness,
        workdir,
        images=str(photographs),
        representations=["alexnet/conv1"],
        num_steps=4,
    )
    records, rows = _records(workdir), _table(workdir)
    assert [row["lambda_V"] for row in rows] == [
        *("none", "0.5", "5", "50", "different photographs")
    ]
    names = ("one", "three", "two")
    originals = {name: reading.read(photographs / f"{name}.png") for name in names}
    pairs = itertools.combinations(originals.values(), 2)
    chance = [float(statistics.naturalness(*pair)) for pair in pairs]
    assert rows[4]["naturalness"] == _mean_and_deviation(chance, 3)
    for row in rows[:4]:
        weight = 0.0 if row["lambda_V"] == "none" else float(row["lambda_V"])
        mine = [record for record in records if record["tv_weight"] == weight]
        assert len(mine) == 3
        scores = [record["naturalness"] for record in mine]
        assert row["naturalness"] == _mean_and_deviation(scores, 3)
        above = np.mean(np.array(chance)[:, None] > np.array(scores))
        assert row["pairs of photographs above %"] == f"{100 * above:.0f}"
        for top in ("top1", "top5"):
            values = [record[f"classifier_{top}"] for record in mine]
            percent = float(row[f"{top[:3]} {top[3:]} %"])
            assert percent == pytest.approx(100 * np.mean(values), abs=0.51)
    for record in records:
        is_bare = record["tv_weight"] == 0
        assert (record["alpha_weight"] == 0) == is_bare
        assert (record.get("variant") == "no regulariser") == is_bare
        if is_bare:
            assert record["energy"] == pytest.approx(record["data_term"], rel=1e-6)
        name = f"start_000_tv_{record['tv_weight']:g}.png"
        folder = workdir / "reconstructions" / record["image"] / "alexnet_conv1"
        picture = reading.read(folder / name)
        score = float(statistics.naturalness(picture, originals[record["image"]]))
        # The picture on disk is rounded to 8 bit.
        assert record["naturalness"] == pytest.approx(score, abs=5e-3)
    assert _picture(workdir / "figure.png")


@needs_weights
@pytest.mark.parametrize("study", STUDIES)
def test_failed_lanes_are_counted(tmp_path, photographs, study: ModuleType):
    workdir = tmp_path / "run"
    _run(
        study,
        workdir,
        images=str(photographs / "one.png"),
        preset="cvpr2015",
        num_steps=20,
        num_starts=2,
        tv_weight=["5000"],
        **_layers_or_representations(study),
    )
    records = _records(workdir)
    assert [record["status"] for record in records] == ["failed"] * 2
    assert all(record["relative_error"] is None for record in records)
    assert all(record.get("classifier_top1") is None for record in records)
    assert all(record.get("naturalness") is None for record in records)
    (row, *_) = _table(workdir)
    assert row["failed"] == "2 of 2" and row["relative error %"] == "–"
    assert (workdir / "figure.png").exists()


@needs_weights
@pytest.mark.parametrize("study", STUDIES)
def test_codes_of_zero_are_left_out_and_counted(
    tmp_path: pathlib.Path,
    photographs: pathlib.Path,
    study: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    whole = targets.from_images

    def without_two(*given: Any) -> Found:
        found = whole(*given)
        kept = [
            target._replace(code=0 * target.code) if target.name == "two" else target
            for target in found.targets
        ]
        return found._replace(targets=kept)

    monkeypatch.setattr(targets, "from_images", without_two)
    values = _layers_or_representations(study) | {"num_steps": 1, "num_starts": 2}
    _run(study, tmp_path / "run", images=str(photographs), **values)
    names = {record["image"] for record in _records(tmp_path / "run")}
    assert names == {"one", "three"}
    assert _table(tmp_path / "run")[0]["code zero"] == "1"
    said = capsys.readouterr().out
    assert "alexnet/conv1: 1 of 3 images left out, their code is zero" in said
    assert "everywhere: two\n" in said
    with pytest.raises(Refusal, match="two: its alexnet/conv1 code is zero"):
        _run(study, tmp_path / "no", images=str(photographs / "two.png"), **values)
    assert not (tmp_path / "no").exists()


@needs_weights
@pytest.mark.parametrize("study", STUDIES)
def test_smoke_is_two_lanes_of_five_steps(tmp_path, photographs, study: ModuleType):
    _run(
        study,
        tmp_path / "run",
        images=str(photographs),
        smoke=True,
        **_layers_or_representations(study),
    )
    records = _records(tmp_path / "run")
    assert [record["num_steps"] for record in records] == [5, 5]
    assert _table(tmp_path / "run") and _picture(tmp_path / "run" / "figure.png")


@needs_weights
def test_an_interrupted_study_tabulates_what_it_has(
    tmp_path: pathlib.Path,
    photographs: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
):
    inputs.interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        _run(
            layer_progression,
            tmp_path / "run",
            images=str(photographs),
            layers=["conv1"],
            num_steps=1,
            batch_size=1,
        )
    rows = _table(tmp_path / "run")
    assert [(row["lambda_V"], row["failed"]) for row in rows] == [
        ("0.5", "0 of 1"),
        ("5", "0 of 1"),
    ]
