"""What a run of `commands.sample` keeps and writes of its sets."""

from typing import Any

import jax
import numpy as np

from invjax import identity
from invjax.metrics import labels
from invjax.metrics.diversity import Distances
from invjax.metrics.lpips import Parameters
from invjax.report import tables
from invjax.runs.classifiers import Classifiers
from invjax.runs.folder import RunFolder, write_lines
from invjax.runs.lanes import Group, Target
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
      classifiers: what names samples.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: Settings,
        options: Options,
        lpips_parameters: Parameters | None,
        classifiers: Classifiers,
    ):
        self._folder = folder.path
        self._settings = settings
        self._options = options
        self._lpips_parameters = lpips_parameters
        self._classifiers = classifiers
        self._null: dict[str, Distances | None] = {}
        self._looked: set[tuple[str, str]] = set()
        self._measured: list[Measured] = []
        self._matched: dict[tuple[str, str], list[Measured]] = {}
        self._geometry: list[dict[str, Any]] = []
        self._invariances: list[dict[str, Any]] = []
        self._portraits: list[Portrait] = []

    def add(self, found: SampleSet) -> None:
        """Measures a set; writes its maps, and sets.jsonl anew."""
        options = self._options
        classifier = self._classifiers.of("classifier", found.lane.group)
        if classifier is not None:
            logits = labels.logits(classifier, found.images)
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
        measured = measures.measure(
            found,
            self._settings,
            method=self._options.method,
            selection=selection,
            num_pairs=num_pairs,
            null=self._null[lane.group.name],
            lpips_parameters=self._lpips_parameters,
            truth=self._truth_of(lane.group, lane.target),
        )
        judge = self._classifiers.judge(lane.group)
        return measured._replace(record=measured.record | {"classifier": judge})

    def _truth_of(self, group: Group, target: Target) -> np.ndarray | None:
        """Logits of the original by the judge; None where they are not known."""
        classifier = self._classifiers.of("classifier", group)
        if classifier is None or target.original is None:
            return None
        (logits,) = self._classifiers.of_originals(classifier, [target])
        return logits

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
