"""Whether reconstructions are identified among the photographs of a folder.

The candidates are the images that --identify_among names, and the original if it is not
one of them. The judge is a network other than the inverted one; see
`metrics.identification`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from invjax import representations
from invjax.images import pixels, sources
from invjax.metrics import identification
from invjax.metrics.identification import Identification
from invjax.representations.cnn import CnnRepresentation
from invjax.runs import targets
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Lane
from invjax.runs.settings import Settings
from invjax.runs.skipped import Skipped, summary

COLUMNS = ("identification_rank", "identification_percentile")
"""Columns of a record: as in `metrics.identification.Identification`."""


class Identifier:
    """Ranks the original of a reconstruction among candidates.

    Args:
      spec: files, globs, folders and sample:NAME, comma-separated.
      settings: settings of the run.

    Raises:
      Refusal: there are fewer than two candidates.
      ImageError: an image cannot be found.
    """

    def __init__(self, spec: str, settings: Settings):
        self._spec = spec
        self._settings = settings
        self._listed = sources.find(spec, tell=print)
        if len(self._listed) < 2:
            raise Refusal(
                f"--identify_among={spec}: one image; at least two are accepted"
            )
        self._judges: dict[str, CnnRepresentation] = {}
        self._candidates: dict[str, tuple[np.ndarray, list[int]]] = {}
        self._originals: dict[tuple[str, int], np.ndarray] = {}

    @classmethod
    def of(cls, settings: Settings) -> "Identifier | None":
        """That of --identify_among; None where it is not given. Errors as above."""
        if settings.identify_among is None:
            return None
        return cls(settings.identify_among, settings)

    def measure(self, lane: Lane, picture: np.ndarray | None) -> dict[str, Any]:
        """The columns `COLUMNS` of a lane.

        None where the lane failed, or there is no original.

        Args:
          lane: the lane.
          picture: [h, w, c], the image that was found; None of a failed lane.

        Raises:
          MissingWeights: those of the judge are not at hand.
          ImageError: a candidate cannot be read, with --on_bad_image=refuse.
          Refusal: fewer than two candidates can be read.
        """
        target = lane.target
        if picture is None or target.original is None:
            return dict.fromkeys(COLUMNS)
        name = identification.judge(lane.group.name.partition("/")[0])
        features = self.features([picture], judge=name)
        found = self.identify([lane], features, judge=name)
        values = int(found.rank[0]), float(found.percentile[0])
        return dict(zip(COLUMNS, values, strict=True))

    def features(self, pictures: Sequence[np.ndarray], *, judge: str) -> np.ndarray:
        """What a judge sees in pictures, [n, d].

        Args:
          pictures: [h, w, c] each.
          judge: name of the representation that judges.

        Raises:
          MissingWeights: those of the judge are not at hand.
        """
        return _features(self._judge(judge), list(pictures))

    def identify(
        self,
        members: Sequence[Lane],
        found: np.ndarray,
        *,
        judge: str,
        centred: bool = False,
    ) -> Identification:
        """Ranks the originals of several lanes, as one judge sees them.

        An original that is not among the candidates is added to them for all lanes.

        Args:
          members: the lanes; their targets have originals.
          found: what the judge sees in their pictures, as from `features`.
          judge: name of the representation that judges.
          centred: as in `metrics.identification.identify`.

        Raises:
          MissingWeights: those of the judge are not at hand.
          ValueError: `centred` is asked for lanes of one image.
        """
        phi = self._judge(judge)
        candidates, ids = self._of(judge)
        added: list[np.ndarray] = []
        ids, numbers = list(ids), []
        for lane in members:
            target = lane.target
            if target.image_id not in ids:
                key = (judge, target.image_id)
                if key not in self._originals:
                    assert target.original is not None
                    self._originals[key] = _features(phi, [target.original])
                added.append(self._originals[key])
                ids.append(target.image_id)
            numbers.append(ids.index(target.image_id))
        return identification.identify(
            found,
            np.concatenate([candidates, *added]),
            np.array(numbers),
            centred=centred,
        )

    def _judge(self, name: str) -> CnnRepresentation:
        if name not in self._judges:
            phi = representations.representation(
                name, weights_dir=self._settings.weights_dir
            )
            assert isinstance(phi, CnnRepresentation)
            self._judges[name] = phi
        return self._judges[name]

    def _of(self, name: str) -> tuple[np.ndarray, list[int]]:
        """Features [m, d] and ids of the candidates, as the judge sees them.

        Candidates are read one after another, and only their features are kept.
        """
        if name not in self._candidates:
            judge = self._judge(name)
            settings = dataclasses.replace(
                self._settings, image_size=None, resize="crop"
            )
            rows, ids, left_out = [], [], []
            for _, images in targets.read_images(self._listed, [judge], settings):
                if isinstance(images, Skipped):
                    left_out.append(images)
                    continue
                (cropped,) = images.values()
                ids.append(pixels.image_id(cropped))
                rows.append(_features(judge, [cropped]))
            if left_out:
                print(f"--identify_among: {summary(left_out, len(self._listed))}")
            if len(rows) < 2:
                raise Refusal(
                    f"--identify_among={self._spec}: fewer than two images can be "
                    f"read; {left_out[0].source}: {left_out[0].reason}"
                )
            self._candidates[name] = np.concatenate(rows), ids
        return self._candidates[name]


def _features(judge: CnnRepresentation, images: list[np.ndarray]) -> np.ndarray:
    colours = [
        np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[-1] == 1 else image
        for image in images
    ]
    return identification.features(judge, colours)
