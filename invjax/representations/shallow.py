"""The paper's shallow representations under their registry names.

Functions of one grey image at its native size: [h, w, 1] in [0, 1] in, no weights. The
images they are inverted to are grey too.
"""

import dataclasses
from typing import Literal

import jax
from jax import Array
from jaxtyping import Float

from invjax.networks.layers import Conv, Geometry, Layer
from invjax.networks.receptive_fields import ReceptiveField, Window, receptive_field
from invjax.representations import dsift, published
from invjax.representations.orientation import AnyImage

_LISTED_SIZE = 224


# Pytrees without leaves, so that they can be arguments of compiled functions.
@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Hog:
    """CNN-HOG of the paper; see `published.published_hog`.

    Attributes:
      name: of the registry.
      assignment: of orientations: "hard" is the paper's HOG, "bilinear" its HOGb.
      cell_size: pixels.
    """

    name: str
    assignment: Literal["hard", "bilinear"]
    cell_size: int = 8
    centre: float = 128.0

    def __call__(self, image: AnyImage) -> Float[Array, "rows columns 27"]:
        return published.published_hog(
            image, assignment=self.assignment, cell_size=self.cell_size
        )

    @property
    def geometry(self) -> Geometry:
        """At 224 px. A unit sees 3 x 3 cells, since neighbours normalise it."""
        count = _LISTED_SIZE // self.cell_size
        # Triangles reach a whole cell beyond their own, derivatives one pixel more.
        field = 4 * self.cell_size + 2
        return Geometry(self.name, (count, count, 27), field, self.cell_size)

    def receptive_field(
        self, *, window: Window | None = None, image_shape: tuple[int, ...]
    ) -> ReceptiveField:
        """The pixels that a window of cells sees (None: all of them) in an image.

        Raises: as `receptive_fields.receptive_field`.
        """
        return receptive_field(self._as_network, image_shape, window=window)

    @property
    def _as_network(self) -> tuple[Layer, ...]:
        """The windows that the paper's CNN-HOG slides (CVPR 2015, section 3.1)."""
        cell = self.cell_size
        return (
            Conv("derivatives", 18, kernel=3, padding=1),
            Conv("cells", 18, kernel=2 * cell, stride=cell, padding=cell // 2),
            Conv("blocks", 108, kernel=2),
            Conv("copies", 27, kernel=2, padding=1),
        )

    def smallest_image(self, code_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The smallest image whose code has this shape."""
        return (code_shape[0] * self.cell_size, code_shape[1] * self.cell_size, 1)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Dsift:
    """CNN-DSIFT of the paper; see `published.published_dsift`.

    Attributes:
      name: of the registry.
      bin_size: pixels; 5 in CVPR 2015, 8 in IJCV 2016.
    """

    name: str
    bin_size: int
    centre: float = 128.0

    def __call__(self, image: AnyImage) -> Float[Array, "ny nx 128"]:
        return published.published_dsift(image, bin_size=self.bin_size)

    @property
    def geometry(self) -> Geometry:
        """At 224 px. A descriptor sees its 4 x 4 bins and their triangles' ends."""
        num_bins = (_LISTED_SIZE - 2) // self.bin_size - 1
        step = dsift.NUM_BINS - 1
        count = (num_bins - dsift.NUM_BINS) // step + 1
        field = (dsift.NUM_BINS + 1) * self.bin_size + 2
        stride = step * self.bin_size
        return Geometry(self.name, (count, count, 128), field, stride)

    def receptive_field(
        self, *, window: Window | None = None, image_shape: tuple[int, ...]
    ) -> ReceptiveField:
        """The pixels that a window of descriptors sees (None: all of them).

        Raises: as `receptive_fields.receptive_field`.
        """
        return receptive_field(self._as_network, image_shape, window=window)

    @property
    def _as_network(self) -> tuple[Layer, ...]:
        """The windows that the paper's CNN-DSIFT slides (CVPR 2015, section 3.2)."""
        side, bins = self.bin_size, dsift.NUM_BINS
        return (
            Conv("derivatives", 8, kernel=3),
            Conv("bins", 8, kernel=2 * side, stride=side),
            Conv("blocks", 128, kernel=bins, stride=bins - 1),
        )

    def smallest_image(self, code_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The smallest image whose code has this shape."""
        step = dsift.NUM_BINS - 1
        height, width = (
            (step * (count - 1) + dsift.NUM_BINS + 1) * self.bin_size + 2
            for count in code_shape[:2]
        )
        return (height, width, 1)


SHALLOW: dict[str, Hog | Dsift] = {
    phi.name: phi
    for phi in (
        Hog("hog", "hard"),
        Hog("hogb", "bilinear"),
        Dsift("dsift", bin_size=5),
        Dsift("dsift8", bin_size=8),
    )
}
