"""What a run of `commands.sample` keeps and writes of its sets."""

from typing import Any

import jax
import numpy as np

from invjax import identity
from invjax.metrics import labels
from invjax.metrics.diversity import Distances
from invjax.metrics.labels import Classifier
from invjax.metrics.lpips import Parameters
from invjax.report import tables
from invjax.runs.folder import RunFolder, write_lines
from invjax.runs.lanes import Target
from invjax.runs.sets import measures, pictures, sensitivity, summary
from invjax.runs.sets.measures import Measured
from invjax.runs.sets.methods import SampleSet
from invjax.runs.sets.options import Options
from invjax.runs.sets.pictures import Portrait
from invjax.runs.sets.sensitivity import Effort, Look
from invjax.runs.settings import Settings

_LOOKS = 2**32 - 2
"""Number of a start that no run has; its key draws what --geometry needs."""


class SetReport:
    """Measures sets as they are drawn; writes sets.jsonl, maps, tables and the figure.

    Args:
      folder: folder of the run.
      settings: settings of the run.
      options: how samples are drawn and measured.
      lpips_parameters: weights of LPIPS; None where they are not at hand.
      classifier: what names samples; None where it is not at hand.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: Settings,
        options: Options,
        lpips_parameters: Parameters | None,
        classifier: Classifier | None,
    ):
        self._folder = folder.path
        self._settings = settings
        self._options = options
        self._lpips_parameters = lpips_parameters
        self._classifier = classifier
        self._null: dict[str, Distances | None] = {}
        self._truth: dict[int, np.ndarray] = {}
        self._looked: set[tuple[str, str]] = set()
        self._measured: list[Measured] = []
        self._matched: dict[tuple[str, str], list[Measured]] = {}
        self._geometry: list[dict[str, Any]] = []
        self._invariances: list[dict[str, Any]] = []
        self._portraits: list[Portrait] = []

    def add(self, found: SampleSet) -> None:
        """Measures a set; writes its maps, and sets.jsonl anew."""
        options = self._options
        if self._classifier is not None:
            logits = labels.logits(self._classifier, found.images)
            found = found._replace(logits=logits)
        self._measured.append(self._measure(found, "all"))
        if options.target_error is not None:
            near = measures.within(found, options.target_error, options.error_band)
            code = (found.lane.target.name, found.lane.group.name)
            matched = self._measure(near, "matched")
            self._matched.setdefault(code, []).append(matched)
        looks = self._look(found) if options.geometry else {}
        self._portraits.append(pictures.write_maps(self._folder, found, looks))
        records = [item.record for item in self._all_measured()]
        write_lines(self._folder / "sets.jsonl", records)

    def finish(self) -> bool:
        """Writes tables and figure of the sets that were added, if there are any."""
        if not self._measured:
            return False
        method = self._options.method
        # Intervals are drawn alike in every cell.
        key = jax.random.key(self._settings.seed)
        rows = summary.rows(key, self._all_measured(), method)
        tables.write(self._folder, summary.header(method), rows)
        pictures.write_figure(self._folder, self._portraits)
        if self._geometry:
            rows = summary.geometry_rows(self._geometry)
            tables.write(self._folder, summary.GEOMETRY_HEADER, rows, name="geometry")
        if self._invariances:
            rows = summary.invariance_rows(self._invariances)
            tables.write(
                self._folder, summary.INVARIANCE_HEADER, rows, name="invariances"
            )
        return True

    def _all_measured(self) -> list[Measured]:
        return self._measured + [
            measures.best_matched(items) for items in self._matched.values()
        ]

    def _measure(self, found: SampleSet, selection: str) -> Measured:
        lane = found.lane
        num_pairs = self._options.num_pairs
        if lane.group.name not in self._null:
            self._null[lane.group.name] = measures.unrelated(
                lane.group, num_pairs, self._settings.seed, self._lpips_parameters
            )
        return measures.measure(
            found,
            self._settings,
            method=self._options.method,
            selection=selection,
            num_pairs=num_pairs,
            null=self._null[lane.group.name],
            lpips_parameters=self._lpips_parameters,
            truth=self._truth_of(lane.target),
        )

    def _truth_of(self, target: Target) -> np.ndarray | None:
        """Logits of the original by the classifier; None where they are not known."""
        if self._classifier is None or target.original is None:
            return None
        if target.image_id not in self._truth:
            (logits,) = labels.logits(self._classifier, [target.original])
            self._truth[target.image_id] = logits
        return self._truth[target.image_id]

    def _look(self, found: SampleSet) -> dict[str, Look]:
        """Measures the Jacobian at the original and at a sample, once per code."""
        group, target = found.lane.group, found.lane.target
        code = (target.name, group.name)
        if code in self._looked:
            return {}
        self._looked.add(code)
        places = {} if target.original is None else {"original": target.original}
        if len(found.images):
            places["sample"] = found.images[0]
        key = identity.lane_key(self._settings.seed, target.image_id, _LOOKS)
        effort = sensitivity.SHORT if self._settings.smoke else Effort()
        looks = {
            at: sensitivity.look(key, group.phi, image, effort=effort)
            for at, image in places.items()
        }
        names = {"image": target.name, "representation": group.name}
        for at, look in looks.items():
            self._geometry.append(names | {"at": at} | look.record)
        write_lines(self._folder / "geometry.jsonl", self._geometry)
        if target.original is not None:
            records = sensitivity.invariances(group.phi, target.original, found.images)
            self._invariances += [names | record for record in records]
            path = self._folder / "invariances.jsonl"
            write_lines(path, self._invariances)
        return looks
