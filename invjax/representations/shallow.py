"""The paper's shallow representations under their registry names.

Functions of one grey image at its native size: [h, w, 1] in [0, 1] in, no weights. The
images they are inverted to are grey too.
"""

import dataclasses
from typing import Literal

import jax
from jax import Array
from jaxtyping import Float

from invjax.networks.layers import Geometry
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
