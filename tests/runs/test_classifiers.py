"""What classifiers call pictures, by classifiers that are made up."""

from typing import Any

import numpy as np
import pytest

from invjax.metrics import labels
from invjax.metrics.labels import Classifier
from invjax.networks.weights.pretrained import MissingWeights
from invjax.runs import classifiers
from invjax.runs.classifiers import Classifiers
from invjax.runs.lanes import Group, Lane
from invjax.runs.runner import Outcome
from invjax.runs.targets import Target
from tests.conftest import micro_representation
from tests.runs import made_up


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the classifiers asked, of which EfficientNet-Lite0 is at hand.

    It finds class 0 in dark pictures and class 1 in bright ones.
    """
    asked: list[str] = []

    def load(*, name: str, weights_dir: str | None) -> Classifier:
        if name != labels.DEFAULT_CLASSIFIER:
            raise MissingWeights(name)
        return Classifier(name, micro_representation("fc3"))

    def logits(classifier: Classifier, pictures: Any) -> np.ndarray:
        asked.append(classifier.name)
        rows = np.zeros((len(pictures), 1000), np.float32)
        for row, picture in zip(rows, pictures, strict=True):
            row[int(np.mean(picture) > 0.5)] = 9
        return rows

    monkeypatch.setattr(labels, "load", load)
    monkeypatch.setattr(labels, "logits", logits)
    return asked


@pytest.fixture
def lane() -> Lane:
    dark = np.full((32, 32, 3), 0.3, np.float32)
    target = Target("one", 1, dark, np.ones(3, np.float32), (32, 32, 3))
    group = Group("alexnet/relu1", micro_representation("relu1"), [target], 1.0)
    return Lane(group, target, 0, 0.5, "one/alexnet_relu1/start_000")


def test_columns_of_a_lane(
    asked: list[str], lane: Lane, capsys: pytest.CaptureFixture[str]
):
    found = Classifiers([lane.group], made_up.settings())
    assert "no labels by alexnet/fc8: its weights are not at hand" in (
        capsys.readouterr().out
    )
    assert found.label_of_original(lane.group, lane.target) == "tench"
    nothing = dict.fromkeys(("own_label", "own_top1", "own_top5"))
    for brightness, label, top1 in ((0.4, "tench", 1.0), (0.9, "goldfish", 0.0)):
        image = np.full((32, 32, 3), brightness, np.float32)
        outcome = Outcome(lane, made_up.record(), image, np.ones(3))
        columns = found.measure(outcome)
        # Of the first five classes, by index among equal ones, all are the same.
        assert columns == nothing | {
            "classifier_label": label,
            "classifier_top1": top1,
            "classifier_top5": 1.0,
        }
        assert type(columns["classifier_top1"]) is float
    # The original was asked for once, and each picture.
    assert len(asked) == 3


def test_nothing_is_asked_of_a_failed_lane(asked: list[str], lane: Lane):
    found = Classifiers([lane.group], made_up.settings())
    failed = made_up.record(status="failed")
    outcome = Outcome(lane, failed, np.zeros((32, 32, 3)), np.ones(3))
    columns = found.measure(outcome)
    names = ("label", "top1", "top5")
    assert columns == {
        f"{word}_{name}": None for word in ("classifier", "own") for name in names
    }
    assert not asked


def test_shallow_representations_have_no_classifier_of_their_own(
    asked: list[str], lane: Lane, capsys: pytest.CaptureFixture[str]
):
    group = lane.group._replace(name="hog")
    found = Classifiers([group], made_up.settings())
    assert found.of("own", group) is None and not capsys.readouterr().out
    assert found.of("classifier", group) is not None


def test_without_weights_nobody_is_asked(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def missing(**_: object) -> None:
        raise MissingWeights("none")

    monkeypatch.setattr(labels, "load", missing)
    assert classifiers.load_default(made_up.settings()) is None
    assert labels.DEFAULT_CLASSIFIER in capsys.readouterr().out
    found = Classifiers([lane.group], made_up.settings())
    assert found.label_of_original(lane.group, lane.target) is None
