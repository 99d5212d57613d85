"""Settings by name: solver, step sizes, weights and start of an inversion, one table.

`cvpr2015` is the paper's method to the letter (its released code where that says more);
`fast` reaches lower energies in as many steps and is the default. Both minimise the
same energy with the same weights, so their energies can be compared.

The weight lambda_V depends on the depth of the layer:

| layer | lambda_V | source |
|---|---|---|
| AlexNet-like: conv1 to relu2 | 0.5 | CVPR 2015, table 3 and code: layers 1 to 6 |
| AlexNet-like: pool2 to relu4 | 5 | layers 7 to 12 |
| AlexNet-like: conv5 and above | 50 | layers 13 to 20 |
| VGG-16 and -19: blocks 1, 2 / 3, 4 / 5 and above | 0.5 / 5 / 50 | the same by depth |
| any other table: stride up to 4 / up to 16 / above | 0.5 / 5 / 50 | our rule |
| HOG, HOGb, DSIFT | 0.5 | the released code; the paper's text says 5 (see below) |
| any other function | 5 | our choice: the middle |

Both weights of the shallow representations are in experiments/README.md. They invert
about equally well, but their codes hardly depend on contrast, so that a larger weight
buys a lower energy by greyer images: 0.5 keeps more of it.
"""

import dataclasses
import re
from typing import Any

import numpy as np

from invjax import solvers
from invjax.objective import SIGMA
from invjax.representations import shallow

ALPHA_WEIGHT = 2.1568e8
"""lambda_alpha of all the paper's inversions: 4e-10 sigma^4."""

NATURAL_RMS = 0.2 * SIGMA / np.sqrt(224 * 224 * 3)
"""Grey levels (13.97): a fifth of the paper's start at 224 px, for every size."""

_LIKE_ALEXNET = ("alexnet", "caffenet", "caffe_alexnet", "vgg_m")
_LIKE_VGG = ("vgg16", "vgg19")


@dataclasses.dataclass(frozen=True)
class Preset:
    """One row of the table.

    Attributes:
      name: as flags and functions take it.
      solver: which, with its choices.
      learning_rate: the largest, in the solver's units.
      num_steps: unless the caller says otherwise.
      stages: (share of the steps, share of the rate) in order; None is a cosine that
        falls from the rate to zero.
      start_rms: grey levels of the noise to start from; None scales it to norm sigma.
    """

    name: str
    solver: solvers.Solver
    learning_rate: float
    num_steps: int
    stages: tuple[tuple[float, float], ...] | None
    start_rms: float | None

    def schedule(self, num_steps: int) -> np.ndarray:
        """Shares of the learning rate, float32 [num_steps]."""
        if self.stages is None:
            phase = np.arange(num_steps) / num_steps
            return (0.5 * (1 + np.cos(np.pi * phase))).astype(np.float32)
        shares, factors = np.array(self.stages).T
        ends = np.cumsum(shares) / np.sum(shares)
        stage = np.searchsorted(ends, (np.arange(num_steps) + 0.5) / num_steps)
        return factors[stage].astype(np.float32)

    def start_norm(self, image_shape: tuple[int, ...]) -> float:
        """Euclidean norm of the start z, grey levels."""
        if self.start_rms is None:
            return SIGMA
        return self.start_rms * float(np.sqrt(np.prod(image_shape)))


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            # The released code's experiment_cnn.m: 100, 200 and 100 iterations.
            name="cvpr2015",
            solver=solvers.HeavyBall(decay=0.9),
            learning_rate=4e-3,
            num_steps=400,
            stages=((1, 1.0), (2, 0.1), (1, 0.01)),
            start_rms=None,
        ),
        Preset(
            # Measured on AlexNet; see "Solvers" in the README.
            name="fast",
            solver=solvers.FourierAdam(),
            learning_rate=10.0,
            num_steps=400,
            stages=None,
            start_rms=NATURAL_RMS,
        ),
    )
}


_SHALLOW: dict[str, Preset] = {
    # The released code's experiment_shallow.m: four stages of 200 iterations.
    "cvpr2015": dataclasses.replace(
        PRESETS["cvpr2015"],
        num_steps=800,
        stages=((1, 1.0), (1, 0.1), (1, 0.01), (1, 0.001)),
    ),
    # Of 2 to 30, measured on four photographs; 10 ends about twice as high.
    "fast": dataclasses.replace(PRESETS["fast"], learning_rate=4.0),
}
"""Where a preset treats the shallow representations differently."""

_HARD: dict[str, Preset] = {
    # The energy jumps wherever a pixel's orientation changes its bin, and momentum
    # carries the iterate over many jumps: without it the energy halves.
    "fast": dataclasses.replace(
        PRESETS["fast"],
        solver=solvers.FourierAdam(decay=0.0, squares_decay=0.999),
        learning_rate=2.0,
    )
}
"""And hard orientation assignment differently again."""


def find(name: str, *, phi: Any = None) -> Preset:
    """The preset of that name, as it is for a representation.

    Args:
      name: of the table.
      phi: the representation, if any.

    Raises:
      ValueError: there is none.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ValueError(f"unknown preset {name!r}; known are {known}")
    if not isinstance(phi, shallow.Hog | shallow.Dsift):
        return PRESETS[name]
    if isinstance(phi, shallow.Hog) and phi.assignment == "hard":
        return _HARD.get(name, _SHALLOW[name])
    return _SHALLOW[name]


def tv_weight(phi: Any) -> float:
    """lambda_V for a representation, by the table above.

    Args:
      phi: anything; `name` ("network/layer") and `geometry` are used where present.
    """
    if isinstance(phi, shallow.Hog | shallow.Dsift):
        return 0.5
    network, _, layer = str(getattr(phi, "name", "")).partition("/")
    if network in _LIKE_ALEXNET and (found := re.fullmatch(r"([a-z]+)(\d)", layer)):
        kind, depth = found[1], int(found[2])
        if depth == 1 or (depth == 2 and kind in ("conv", "relu")):
            return 0.5
        return 5.0 if depth <= 4 else 50.0
    if network in _LIKE_VGG and (found := re.fullmatch(r"[a-z]+(\d)(_\d)?", layer)):
        block = int(found[1])
        return 0.5 if block <= 2 else 5.0 if block <= 4 else 50.0
    if (geometry := getattr(phi, "geometry", None)) is not None:
        return 0.5 if geometry.stride <= 4 else 5.0 if geometry.stride <= 16 else 50.0
    return 5.0
