"""Caricatures: the binary as a user runs it, and what its numbers say."""

import pathlib

import numpy as np
import pytest
from absl.testing import flagsaver

from invjax.commands import caricature
from invjax.commands.studies import Bench, Findings
from invjax.images import reading
from invjax.inversion import objective
from invjax.inversion.objective import Terms
from invjax.inversion.result import BUDGET
from invjax.metrics import labels
from invjax.metrics.labels import Classifier
from invjax.runs import records, runner
from invjax.runs.classifiers import Classifiers
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.runner import Outcome
from invjax.runs.targets import Target
from tests.conftest import micro_representation
from tests.experiments import outputs
from tests.experiments.inputs import needs_weights
from tests.runs import made_up

pytestmark = pytest.mark.slow


@pytest.fixture
def no_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where EfficientNet-Lite0's weights are not at hand."""
    monkeypatch.setattr(labels, "load", made_up.no_weights)


@needs_weights
def test_outputs_of_a_run(
    tmp_path: pathlib.Path, photographs: pathlib.Path, no_classifier: None
):
    workdir = tmp_path / "run"
    with flagsaver.flagsaver(
        workdir=str(workdir),
        images=str(photographs),
        representations=["alexnet/relu1", "hog"],
        image_size=64,
        num_steps=3,
        save_arrays=True,
    ):
        caricature.main()
    records = outputs.records(workdir)
    assert [(r["representation"], r["image"]) for r in records] == [
        (name, image) for name in ("alexnet/relu1", "hog") for image in ("one", "two")
    ]
    for record in records:
        assert record["status"] == "budget" and record["num_steps"] == 3
        assert record["preset"] == "ijcv2016"
        assert record["variant"] == "caricature"
        assert record["relative_error"] is record["normalised_error"] is None
        # Grown from 1 on: the data term of the objective is minus the growth.
        assert record["data_term"] == pytest.approx(-record["growth"], rel=1e-4)
        assert record["growth"] > 0 and 0 < record["cosine"] <= 1
        name = f"{record['image']}/{record['representation'].replace('/', '_')}"
        array = np.load(workdir / "arrays" / f"{name}.npz")["image"]
        picture = reading.read(workdir / "reconstructions" / f"{name}.png")
        np.testing.assert_allclose(
            picture[..., : array.shape[-1]], np.clip(array, 0, 1), atol=0.5 / 255 + 1e-6
        )
        assert 0 < record["ssim"] < 1
        assert record["label"] is record["is_label_kept"] is None
    original = reading.read(workdir / "originals" / "one.png")
    array = np.load(workdir / "arrays" / "one" / "alexnet_relu1.npz")["image"]
    change = 255 * np.sqrt(np.mean((np.clip(array, 0, 1) - original) ** 2))
    assert records[0]["distance"] == pytest.approx(change, rel=1e-4)
    rows = outputs.table(workdir)
    assert [row["representation"] for row in rows] == ["alexnet/relu1", "hog"]
    mean = np.mean([record["growth"] for record in records[:2]])
    assert rows[0]["growth"].startswith(f"{mean:.2f} ±")
    assert rows[0]["label kept"] == "–"
    assert all(row["failed"] == "0 of 2" for row in rows)
    assert (workdir / "figure.png").stat().st_size > 10_000
    assert "| hog | 3 |" in (workdir / "table.md").read_text()


def _lane(code: np.ndarray, original: np.ndarray) -> Lane:
    target = Target("one", 1, original, code, (32, 32, 3))
    phi = micro_representation("relu2")
    group = Group("micro/relu2", phi, [target], float("nan"))
    variant = Variant("caricature", {"data_term": objective.caricature})
    return Lane(group, target, 0, 0.5, "one/micro_relu2", variant, original)


def _bench(tools: Classifiers | None, lane: Lane) -> Bench:
    settings = made_up.settings(preset="ijcv2016")
    return Bench(settings, {}, [lane.group], planned=[lane], tools=tools)


def _measured(
    tools: Classifiers, lane: Lane, image: np.ndarray, code: np.ndarray
) -> Outcome:
    """An outcome of these numbers, with the study's columns."""
    bench = _bench(tools, lane)
    record = records.record_of(
        lane,
        bench.settings,
        image=image,
        code=code,
        status=BUDGET,
        num_steps=1,
        energy=0.0,
        terms=Terms(*np.zeros(3, np.float32)),
    )
    return runner.with_measured(
        Outcome(lane, record, image, code),
        lambda outcome: caricature.measure(bench, outcome),
    )


def test_measures_of_known_codes():
    original = np.random.default_rng(0).uniform(0.2, 0.8, (32, 32, 3))
    original = original.astype(np.float32)
    code = np.array([3.0, -5.0, 4.0], np.float32)
    nobody = Classifiers([], made_up.settings())
    same = _measured(nobody, _lane(code, original), original, code).record.measured
    assert same["growth"] == pytest.approx(1)
    # The part that is not to grow counts in the norm: 5 / sqrt(50).
    assert same["cosine"] == pytest.approx(5 / np.sqrt(50), rel=1e-6)
    assert same["distance"] == 0 and same["is_label_kept"] is None
    grown = np.array([6.0, 0.0, 8.0], np.float32)
    brighter = original + np.float32(0.1)
    found = _measured(nobody, _lane(code, original), brighter, grown).record.measured
    assert found["growth"] == pytest.approx(2)
    assert found["cosine"] == pytest.approx(1)
    assert found["distance"] == pytest.approx(25.5, rel=1e-4)


def test_labels_are_compared_with_the_originals(monkeypatch: pytest.MonkeyPatch):
    """By a made-up classifier: class 0 for dark pictures and 1 for bright ones."""

    def logits(classifier: object, pictures: list[np.ndarray]) -> np.ndarray:
        rows = np.zeros((len(pictures), 1000), np.float32)
        for row, picture in zip(rows, pictures, strict=True):
            row[int(np.mean(picture) > 0.5)] = 9
        return rows

    monkeypatch.setattr(labels, "logits", logits)
    classifier = Classifier("made up", micro_representation("fc3"))
    monkeypatch.setattr(labels, "load", lambda **_: classifier)
    dark = np.full((32, 32, 3), 0.3, np.float32)
    code = np.array([3.0, 4.0], np.float32)
    lane = _lane(code, dark)
    tools = caricature.load_tools(_bench(None, lane))
    assert tools.label_of_original(lane.group, lane.target) == "tench"
    same = _measured(tools, lane, dark + 0.1, code).record
    assert (same.value("label"), same.value("is_label_kept")) == ("tench", True)
    assert same.value("classifier") == "made up"
    other = _measured(tools, lane, dark + 0.4, code).record
    assert (other.value("label"), other.value("is_label_kept")) == ("goldfish", False)
    findings = Findings(_bench(tools, lane), [same, other], [], [])
    assert caricature.table(findings)[0][6] == "1 of 2"


@needs_weights
def test_bad_settings_are_refused(tmp_path: pathlib.Path, photographs: pathlib.Path):
    workdir = str(tmp_path / "run")
    shared = {"workdir": workdir, "images": str(photographs)}
    for values, word in (
        ({"preset": "adam"}, "ijcv2016, fast, natural"),
        ({"num_starts": "2"}, "--num_starts"),
        ({"representations": "alexnet/nothing"}, "nothing"),
    ):
        with flagsaver.as_parsed(**shared | values):
            with pytest.raises(Refusal, match=word) as caught:
                caricature.main()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
