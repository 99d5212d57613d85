"""What classifiers call pictures, by classifiers that are made up."""

from typing import Any

import numpy as np
import pytest

from invjax.metrics import labels
from invjax.metrics.labels import Classifier
from invjax.networks.weights.pretrained import MissingWeights
from invjax.runs.classifiers import Classifiers
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane
from invjax.runs.runner import Outcome
from invjax.runs.targets import Target
from tests.conftest import micro_representation
from tests.runs import made_up


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the classifiers asked, of which the two judges are at hand.

    They find class 0 in dark pictures and class 1 in bright ones.
    """
    asked: list[str] = []

    def load(*, name: str, weights_dir: str | None) -> Classifier:
        if name not in labels.JUDGES:
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
            "classifier": "efficientnet_lite0/logits",
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
    assert columns.pop("classifier") == "efficientnet_lite0/logits"
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


def _judge(found: Classifiers, group: Group) -> str:
    classifier = found.of("classifier", group)
    assert classifier is not None and found.judge(group) == classifier.name
    return classifier.name


def test_a_network_is_never_its_own_judge(asked: list[str], lane: Lane):
    expected = {
        "alexnet/relu1": "efficientnet_lite0/logits",
        "hog": "efficientnet_lite0/logits",
        "efficientnet_lite0/pooled": "efficientnet_lite1/logits",
        "efficientnet_lite0/logits": "efficientnet_lite1/logits",
        "efficientnet_lite1/logits": "efficientnet_lite0/logits",
    }
    groups = [lane.group._replace(name=name) for name in expected]
    found = Classifiers(groups, made_up.settings())
    assert {group.name: _judge(found, group) for group in groups} == expected
    own = found.of("own", groups[2])
    assert own is not None and own.name == "efficientnet_lite0/logits"


def test_what_judges_nothing_is_not_loaded(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading converts, which takes seconds at first use."""
    loaded = []

    def load(*, name: str, weights_dir: str | None) -> Classifier:
        loaded.append(name)
        return Classifier(name, micro_representation("fc3"))

    monkeypatch.setattr(labels, "load", load)
    Classifiers([lane.group], made_up.settings(), words=("classifier",))
    assert loaded == ["efficientnet_lite0/logits"]
    Classifiers([], made_up.settings(classifier="vgg16/fc8"))
    assert len(loaded) == 1


def test_the_flag_names_the_judge(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, asked: list[str]
):
    named = made_up.settings(classifier="efficientnet_lite1/logits")
    found = Classifiers([lane.group], named)
    assert _judge(found, lane.group) == "efficientnet_lite1/logits"
    guess = found.guess(lane.group, np.zeros((32, 32, 3), np.float32))
    assert guess is not None and guess.name == "tench"
    assert asked == ["efficientnet_lite1/logits"]
    with pytest.raises(MissingWeights):
        Classifiers([lane.group], made_up.settings(classifier="vgg16/fc8"))


@pytest.mark.parametrize(
    ("named", "word"),
    [
        ("alexnet/fc8", "alexnet/relu1 is inverted, and no network judges itself"),
        ("vgg16/relu1_1", "returns no logits; accepted: alexnet/fc8"),
        ("nothing", "returns no logits; accepted: alexnet/fc8"),
    ],
)
def test_judges_that_are_refused(lane: Lane, named: str, word: str):
    with pytest.raises(Refusal, match=word) as caught:
        Classifiers([lane.group], made_up.settings(classifier=named))
    assert str(caught.value).startswith(f"--classifier={named}: ")
    assert "\n" not in str(caught.value)


def test_without_weights_nobody_is_asked(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(labels, "load", made_up.no_weights)
    found = Classifiers([lane.group], made_up.settings())
    assert "no labels by efficientnet_lite0/logits: none" in capsys.readouterr().out
    assert found.label_of_original(lane.group, lane.target) is None
    assert found.judge(lane.group) is None
    assert found.guess(lane.group, np.zeros((32, 32, 3), np.float32)) is None
