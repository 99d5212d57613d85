"""What classifiers call pictures: a network that judges, and the inverted network.

The judge of a representation is the network that --classifier names, else
`labels.judge`; it is never the inverted network.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from invjax.metrics import labels
from invjax.metrics.labels import Classifier, Guess
from invjax.networks.weights.pretrained import MissingWeights
from invjax.runs import loading
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group
from invjax.runs.runner import Outcome
from invjax.runs.settings import Settings
from invjax.runs.targets import Target

CLASSIFIERS = ("classifier", "own")
"""How records name the judge, and the network that is inverted."""


class Classifiers:
    """The classifiers whose weights are at hand; a line says which are not.

    Args:
      groups: representations whose pictures are named.
      settings: settings of the run.
      words: the words of `CLASSIFIERS` that are wanted.

    Raises:
      Refusal: --classifier names no last layer, or a network that is inverted.
      MissingWeights: those of the network that --classifier names are not at hand.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        settings: Settings,
        *,
        words: Sequence[str] = CLASSIFIERS,
    ):
        self._names = {
            (word, group.name): _name(word, group.name, settings)
            for group in groups
            for word in words
        }
        self._classifiers: dict[str, Classifier] = {}
        self._logits: dict[tuple[str, int], np.ndarray] = {}
        for name in sorted(set(filter(None, self._names.values()))):
            if (classifier := _load(name, settings)) is not None:
                self._classifiers[name] = classifier

    def measure(self, outcome: Outcome) -> dict[str, Any]:
        """Columns `classifier` and {classifier,own}_{label,top1,top5} of a record.

        `classifier` is the judge's name; top 1 and top 5 are as in
        `labels.LabelAgreement`. None for failed lanes, and where the network is not at
        hand.
        """
        group, target = outcome.lane.group, outcome.lane.target
        columns: dict[str, Any] = {"classifier": self.judge(group)}
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
        name = self._names.get((word, group.name))
        return self._classifiers.get(name) if name else None

    def judge(self, group: Group) -> str | None:
        """Name of the judge of a group's pictures; None where it is not at hand."""
        classifier = self.of("classifier", group)
        return None if classifier is None else classifier.name

    def guess(self, group: Group, picture: np.ndarray) -> Guess | None:
        """What the judge calls a picture [h, w, c]; None where it is not at hand."""
        classifier = self.of("classifier", group)
        if classifier is None:
            return None
        (logits,) = labels.logits(classifier, [picture])
        return labels.guesses(logits, count=1)[0]

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
        """What the judge calls an original; None where it is not at hand."""
        classifier = self.of("classifier", group)
        if classifier is None:
            return None
        (logits,) = self.of_originals(classifier, [target])
        return labels.guesses(logits, count=1)[0].name


def _name(word: str, representation: str, settings: Settings) -> str | None:
    """Name of a classifier of a representation's pictures; None where there is none."""
    if word == "own":
        return labels.logits_layer(representation)
    network = representation.partition("/")[0]
    named = settings.classifier
    if named is None:
        return labels.judge(network)
    if named.partition("/")[0] == network:
        raise Refusal(
            f"--classifier={named}: {representation} is inverted, and no network "
            f"judges itself; another one is accepted, as {labels.judge(network)}"
        )
    return named


def _load(name: str, settings: Settings) -> Classifier | None:
    try:
        with loading.refusing("--classifier=", settings):
            return labels.load(name=name, weights_dir=settings.weights_dir)
    except MissingWeights as error:
        if name == settings.classifier:
            raise
        is_judge = name in labels.JUDGES
        reason = str(error) if is_judge else "its weights are not at hand"
        print(f"no labels by {name}: {reason}")
        return None
