"""What classifiers call pictures: EfficientNet-Lite0, and the inverted network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from invjax.metrics import labels
from invjax.metrics.labels import Classifier
from invjax.networks.weights.pretrained import MissingWeights
from invjax.runs.lanes import Group
from invjax.runs.runner import Outcome
from invjax.runs.settings import Settings
from invjax.runs.targets import Target

CLASSIFIERS = ("classifier", "own")
"""How records name EfficientNet-Lite0, and the network that is inverted."""


def load_default(settings: Settings) -> Classifier | None:
    """Loads EfficientNet-Lite0; None, with a line, where its weights are missing."""
    return _load(labels.DEFAULT_CLASSIFIER, settings)


class Classifiers:
    """The classifiers whose weights are at hand; a line says which are not."""

    def __init__(self, groups: Sequence[Group], settings: Settings):
        names = {labels.DEFAULT_CLASSIFIER, *map(_own, groups)} - {None}
        self._classifiers: dict[str, Classifier] = {}
        self._logits: dict[tuple[str, int], np.ndarray] = {}
        for name in sorted(filter(None, names)):
            if (classifier := _load(name, settings)) is not None:
                self._classifiers[name] = classifier

    def measure(self, outcome: Outcome) -> dict[str, Any]:
        """Columns {classifier,own}_{label,top1,top5} of a lane's record.

        Top 1 and top 5 as in `labels.LabelAgreement`; None for failed lanes, and where
        the classifier is not at hand.
        """
        group, target = outcome.lane.group, outcome.lane.target
        columns: dict[str, Any] = {}
        for word in CLASSIFIERS:
            label = top1 = top5 = None
            classifier = self.of(word, group)
            if classifier is not None and outcome.picture is not None:
                logits = labels.logits(classifier, [outcome.picture])
                label = labels.guesses(logits[0], count=1)[0].name
                originals = self.of_originals(classifier, [target])
                agreement = labels.label_agreement(logits, originals)
                top1, top5 = float(agreement.top1), float(agreement.top5)
            columns |= {f"{word}_label": label}
            columns |= {f"{word}_top1": top1, f"{word}_top5": top5}
        return columns

    def of(self, word: str, group: Group) -> Classifier | None:
        """A classifier of a group's pictures by its word in `CLASSIFIERS`."""
        name = labels.DEFAULT_CLASSIFIER if word == "classifier" else _own(group)
        return self._classifiers.get(name) if name else None

    def of_originals(
        self, classifier: Classifier, targets: Sequence[Target]
    ) -> np.ndarray:
        """Logits [n, classes] of the originals."""
        rows = []
        for target in targets:
            key = (classifier.name, target.image_id)
            if key not in self._logits:
                assert target.original is not None
                self._logits[key] = labels.logits(classifier, [target.original])[0]
            rows.append(self._logits[key])
        return np.stack(rows)

    def label_of_original(self, group: Group, target: Target) -> str | None:
        """What EfficientNet-Lite0 calls an image; None where it is not at hand."""
        classifier = self.of("classifier", group)
        if classifier is None:
            return None
        (logits,) = self.of_originals(classifier, [target])
        return labels.guesses(logits, count=1)[0].name


def _load(name: str, settings: Settings) -> Classifier | None:
    try:
        return labels.load(name=name, weights_dir=settings.weights_dir)
    except MissingWeights:
        print(f"no labels by {name}: its weights are not at hand")
        return None


def _own(group: Group) -> str | None:
    return labels.logits_layer(group.name)
