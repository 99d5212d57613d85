"""What networks call a study's pictures: EfficientNet-Lite0, and the inverted one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from invjax.metrics import labels
from invjax.metrics.labels import Judge
from invjax.networks.weights.pretrained import MissingWeights
from invjax.runs.lanes import Group, Outcome
from invjax.runs.settings import Settings
from invjax.runs.targets import Target

JUDGES = ("judge", "own")
"""How records name EfficientNet-Lite0, and the network inverted."""


class Judges:
    """Judges whose weights are at hand; of others a line says that they are not."""

    def __init__(self, groups: Sequence[Group], config: Settings):
        names = {labels.DEFAULT_JUDGE, *map(_own, groups)} - {None}
        self._judges: dict[str, Judge] = {}
        self._logits: dict[tuple[str, int], np.ndarray] = {}
        for name in sorted(filter(None, names)):
            try:
                judge = labels.load(name=name, weights_dir=config.weights_dir)
            except MissingWeights:
                print(f"no labels by {name}: its weights are not at hand")
            else:
                self._judges[name] = judge

    def measure(self, outcome: Outcome) -> dict[str, Any]:
        """{judge,own}_{label,top1,top5} of a lane, for `session.run`.

        Top 1 and 5 as in `agreement.LabelAgreement`; null for failed lanes and without
        the judge.
        """
        group, target = outcome.lane.group, outcome.lane.target
        record: dict[str, Any] = {}
        for word in JUDGES:
            label = top1 = top5 = None
            judge = self.of(word, group)
            if judge is not None and outcome.record["status"] != "failed":
                logits = labels.logits(judge, [outcome.image])
                label = labels.guesses(logits[0], count=1)[0].name
                originals = self.of_originals(judge, [target])
                top1, top5, *_ = labels.label_agreement(logits, originals)
            record |= {f"{word}_label": label}
            record |= {f"{word}_top1": top1, f"{word}_top5": top5}
        return record

    def of(self, word: str, group: Group) -> Judge | None:
        """A judge of a group's pictures by its word in `JUDGES`."""
        name = labels.DEFAULT_JUDGE if word == "judge" else _own(group)
        return self._judges.get(name) if name else None

    def of_originals(self, judge: Judge, targets: Sequence[Target]) -> np.ndarray:
        """Logits [n, classes] of the originals."""
        rows = []
        for target in targets:
            key = (judge.name, target.image_id)
            if key not in self._logits:
                assert target.original is not None
                self._logits[key] = labels.logits(judge, [target.original])[0]
            rows.append(self._logits[key])
        return np.stack(rows)

    def label_of_original(self, group: Group, target: Target) -> str | None:
        """What EfficientNet-Lite0 calls an image; None without it."""
        judge = self.of("judge", group)
        if judge is None:
            return None
        (logits,) = self.of_originals(judge, [target])
        return labels.guesses(logits, count=1)[0].name


def _own(group: Group) -> str | None:
    return labels.logits_of(group.name)
