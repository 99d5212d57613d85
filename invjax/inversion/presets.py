"""Presets: the solver, step sizes, weights and start of an inversion, by name.

`cvpr2015` is the paper's method as published (with details from its released code);
`fast` finds lower energies in as many steps and is the default; `adam` is plain Adam,
for comparison. These three minimise the same energy with the same weights, so their
energies can be compared. `ijcv2016` is the later paper's method, with an objective of
its own. `natural` is for deep codes, whose images nobody recognises otherwise: it shows
the representation random views of the image (`views`), which fade in the middle of the
descent, counts differences of colour more than those of brightness, and has weights of
its own; experiments/README.md has what each of these does.

The weight lambda_V depends on the depth of the layer:

| layer | lambda_V | source |
|---|---|---|
| AlexNet-like: conv1 to relu2 | 0.5 | CVPR 2015, table 3 and code: layers 1 to 6 |
| AlexNet-like: pool2 to relu4 | 5 | layers 7 to 12 |
| AlexNet-like: conv5 and above | 50 | layers 13 to 20 |
| VGG-16 and -19: blocks 1, 2 / 3, 4 / 5 and above | 0.5 / 5 / 50 | the same by depth |
| any other network: stride up to 4 / up to 16 / above | 0.5 / 5 / 50 | our rule |
| HOG, HOGb, DSIFT | 0.5 | the released code; the paper's text says 5 (see below) |
| any other function | 5 | our choice: the middle |

In both tables, and for jitter, the stride of tokens is that of their patches, and a
code without places (after a dense layer or a global average, or of the class token)
counts as one of stride 32 at least, as classifiers have. So tokens of 16 px have a
lambda_V of 5, and a class token one of 50. Tokens have places: `natural` shows the
network no views of the image for them, as for maps of features, and does for a class
token.

Results for both weights of the shallow representations are in experiments/README.md.
Both invert about equally well, but these codes hardly depend on contrast, so that a
larger weight lowers the energy by greyer images: 0.5 keeps more of the contrast.

C, the weight of the data term under `ijcv2016`, depends on depth, too:

| layer | C | source |
|---|---|---|
| AlexNet-like: conv1 to relu3 | 300 | IJCV 2016, as its readers reimplemented it |
| AlexNet-like: conv4, relu4 / conv5, relu5 | 100 / 20 | the same |
| AlexNet-like: pool5 and above | 1 | the same |
| VGG-16 and -19: blocks 1 to 3 / 4 / 5 but pool5 | 300 / 100 / 20 | the same by depth |
| VGG-16 and -19: pool5 and above | 1 | the same by depth |
| any other network: stride up to 8 / up to 16 / above | 300 / 100 / 1 | our rule |
| HOG, HOGb, DSIFT | 100 | the released code, exp_hog.m |
| any other function | 100 | our choice: as HOG |
| maximisation and caricature, of any layer | 1 | the released code's default |
"""

import dataclasses
import re
from typing import Any, Literal, NamedTuple

import numpy as np

from invjax import spelling
from invjax.inversion import objective
from invjax.inversion.lane import Pace, Phase, Program
from invjax.inversion.objective import IJCV_GRADIENT, IJCV_NORM, SIGMA
from invjax.inversion.solvers import (
    Adam,
    DecayedAdaGrad,
    HeavyBall,
    PyramidAdam,
    Solver,
)
from invjax.inversion.views import Views
from invjax.networks.layers import (
    Attention,
    Conv,
    DepthwiseConv,
    Pointwise,
    weighted,
)
from invjax.representations import joint
from invjax.representations.paper import Dsift, Hog
from invjax.types import DataTerm

ALPHA_WEIGHT = 2.1568e8
"""lambda_alpha of all the paper's inversions: 4e-10 sigma^4."""

NATURAL_RMS = 0.2 * SIGMA / np.sqrt(224 * 224 * 3)
"""Grey levels (13.97): a fifth of the paper's start at 224 px, for every size."""

NATURAL_TV_WEIGHT = 22.6
"""lambda_V of preset `natural`: 2e-3 for squared differences of pixels in [0, 1]."""

NATURAL_LINEAR_SHARE = 1 / 20
"""Factor of the IJCV paper's regularisers in maximisation and caricature by `natural`.

With the paper's own, pictures of EfficientNet-Lite0's classes are hardly darker or
lighter anywhere than grey; with a twentieth they are faint, and clear when stretched.
"""

IJCV_BOUND = 160.0
"""Largest norm of a colour vector, grey levels: 2 B, the released code's x0_max."""

_LIKE_ALEXNET = ("alexnet", "caffenet", "caffe_alexnet", "vgg_m")
_LIKE_VGG = ("vgg16", "vgg19")


class Stage(NamedTuple):
    """A part of a descent with a constant learning rate.

    Attributes:
      steps: number of steps, relative to the other stages.
      rate_scale: factor of the learning rate.
      jitter: whether the image moves on an enlarged canvas.
      restart: whether the solver starts anew, without memory, from the central crop of
        what the stage before found.
    """

    steps: float
    rate_scale: float
    jitter: bool = False
    restart: bool = False


@dataclasses.dataclass(frozen=True)
class Preset:
    """One row of the table `PRESETS`: a solver, its step sizes and its start.

    Attributes:
      name: the name that flags and functions take.
      solver: the solver with its static choices.
      learning_rate: largest step size, in the solver's units.
      num_steps: length of the descent where the caller gives none.
      stages: stages in order; None is a single one whose learning rate decays to zero
        as a cosine.
      start_rms: root mean square of the noise to start from, in grey levels; None
        scales the noise to Euclidean norm sigma.
      start: "gaussian" noise of that size, or "uniform" noise as in IJCV 2016.
      form: the paper whose objective is minimised.
      rate_is_per_pixel: whether the learning rate is multiplied by height times width.
      relaxes: whether the representation's derivative begins relaxed and becomes exact
        in equal steps; see `networks.relaxation`.
      views: how the views are drawn that the representation is given; None for the
        image itself.
      view_fade: fractions of the descent at which the strength of the views begins to
        fall from 1, and is 0.
      tv_weight: lambda_V where the caller gives none; None for that of the table above.
      chroma_weight: how much more differences in colour count in R_TV than those in
        brightness; None where they count alike.
    """

    name: str
    solver: Solver
    learning_rate: float
    num_steps: int
    stages: tuple[Stage, ...] | None
    start_rms: float | None = None
    start: Literal["gaussian", "uniform"] = "gaussian"
    form: Literal["cvpr2015", "ijcv2016"] = "cvpr2015"
    rate_is_per_pixel: bool = False
    relaxes: bool = False
    views: Views | None = None
    view_fade: tuple[float, float] = (0.5, 0.95)
    tv_weight: float | None = None
    chroma_weight: float | None = None

    @property
    def has_jitter(self) -> bool:
        """Whether a stage moves the image on an enlarged canvas."""
        return any(stage.jitter for stage in self.stages or ())

    def rate_scale(self, num_steps: int) -> np.ndarray:
        """Factors of the learning rate at each step, float32 [num_steps]."""
        if self.stages is None:
            phase = np.arange(num_steps) / num_steps
            return (0.5 * (1 + np.cos(np.pi * phase))).astype(np.float32)
        factors = np.array([stage.rate_scale for stage in self.stages])
        return factors[self._stage_of_steps(num_steps)].astype(np.float32)

    def view_strength(self, num_steps: int) -> np.ndarray:
        """Strengths of the views at each step, float32 [num_steps]."""
        begins, ends = self.view_fade
        done = np.arange(num_steps) / num_steps
        return np.clip((ends - done) / (ends - begins), 0, 1).astype(np.float32)

    def phases(
        self, program: Program, num_steps: int, *, jitter: int
    ) -> tuple[Phase, ...]:
        """The stages joined where no restart divides them: a program and its pace each.

        Args:
          program: what is minimised, with the jitter of the phases that have none of
            their own.
          num_steps: length of the descent, to which the stages are stretched. A phase
            that is left without a step is left out.
          jitter: number of places of the image along each axis, for stages with jitter.
        """
        rate_scale = self.rate_scale(num_steps)
        if self.stages is None:
            relaxation = (1 - np.arange(num_steps) / num_steps).astype(np.float32)
            pace = Pace(
                rate_scale,
                relaxation if self.relaxes else None,
                None if self.views is None else self.view_strength(num_steps),
            )
            return (Phase(dataclasses.replace(program, views=self.views), pace),)
        phase_of_stage = np.cumsum([stage.restart for stage in self.stages])
        phase_of_step = phase_of_stage[self._stage_of_steps(num_steps)]
        found = []
        for number in np.unique(phase_of_step):
            first = self.stages[int(np.argmax(phase_of_stage == number))]
            places = jitter if first.jitter else program.jitter
            own = dataclasses.replace(program, jitter=places)
            found.append(Phase(own, Pace(rate_scale[phase_of_step == number])))
        return tuple(found)

    def rate(self, image_shape: tuple[int, ...]) -> float:
        """The learning rate for images of this shape."""
        if self.rate_is_per_pixel:
            return self.learning_rate * image_shape[0] * image_shape[1]
        return self.learning_rate

    def start_scale(self, image_shape: tuple[int, ...]) -> float:
        """Size of the start z in grey levels; see `lane.start`."""
        if self.start == "uniform":
            # For one channel as well, as in the released code.
            return IJCV_NORM / np.sqrt(3)
        if self.start_rms is None:
            return SIGMA
        return self.start_rms * float(np.sqrt(np.prod(image_shape)))

    def _stage_of_steps(self, num_steps: int) -> np.ndarray:
        assert self.stages is not None
        shares = np.array([stage.steps for stage in self.stages])
        ends = np.cumsum(shares) / np.sum(shares)
        return np.searchsorted(ends, (np.arange(num_steps) + 0.5) / num_steps)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            # The released code's experiment_cnn.m: 100, 200 and 100 iterations.
            name="cvpr2015",
            solver=HeavyBall(decay=0.9),
            learning_rate=4e-3,
            num_steps=400,
            stages=(Stage(1, 1.0), Stage(2, 0.1), Stage(1, 0.01)),
        ),
        Preset(
            # Measured on AlexNet and VGG16; see experiments/solvers.md.
            name="fast",
            solver=PyramidAdam(b1=0.93, b2=0.9),
            learning_rate=4.0,
            num_steps=400,
            stages=None,
            start_rms=NATURAL_RMS,
            relaxes=True,
        ),
        Preset(
            # The released code: get_defaults.m (rate 0.05 B^2 / alpha per pixel of the
            # network's input, 300 iterations and 50 at a tenth), get_preimage_opts.m
            # (the 50 without jitter) and nnpreimage.m (solver, start).
            name="ijcv2016",
            solver=DecayedAdaGrad(decay=0.9),
            learning_rate=0.05 * IJCV_NORM**2 / 6,
            num_steps=350,
            stages=(Stage(300, 1.0, jitter=True), Stage(50, 0.1, restart=True)),
            start="uniform",
            form="ijcv2016",
            rate_is_per_pixel=True,
        ),
        Preset(
            # Measured on EfficientNet-Lite0's logits; see experiments/README.md.
            name="natural",
            solver=PyramidAdam(b1=0.93, b2=0.9, colours=True),
            learning_rate=4.0,
            num_steps=300,
            stages=None,
            start_rms=NATURAL_RMS,
            relaxes=True,
            views=Views(),
            view_fade=(0.5, 0.72),
            tv_weight=NATURAL_TV_WEIGHT,
            chroma_weight=8.0,
        ),
        Preset(
            # A reference, no paper's: Adam as one would try it first, with optax's
            # defaults, from the CVPR paper's noise; 8 grey levels measured on AlexNet.
            name="adam",
            solver=Adam(),
            learning_rate=8.0,
            num_steps=400,
            stages=None,
        ),
    )
}

_SHALLOW: dict[str, Preset] = {
    # A view has another code, and lambda_V is that of the table.
    "natural": dataclasses.replace(PRESETS["natural"], views=None, tv_weight=None),
    # The released code's experiment_shallow.m: four stages of 200 iterations.
    "cvpr2015": dataclasses.replace(
        PRESETS["cvpr2015"],
        num_steps=800,
        stages=(Stage(1, 1.0), Stage(1, 0.1), Stage(1, 0.01), Stage(1, 0.001)),
    ),
    # Of 1, 2 and 4, measured on photographs.
    "fast": dataclasses.replace(PRESETS["fast"], learning_rate=2.0),
    # The released code's exp_inversion_hog.m: 300 iterations, no jitter. Its DSIFT has
    # bins of 8 px, which is dsift8 here.
    "ijcv2016": dataclasses.replace(
        PRESETS["ijcv2016"], num_steps=300, stages=(Stage(1, 1.0),)
    ),
}
"""Presets that are different for shallow representations."""

_HARD: dict[str, Preset] = {
    # The energy jumps wherever a pixel's orientation changes its bin, and momentum
    # carries the iterate over many jumps: without it the energy halves.
    "fast": dataclasses.replace(
        PRESETS["fast"],
        solver=PyramidAdam(b1=0.0, b2=0.999),
        learning_rate=2.0,
    )
}
"""Presets that are different again for HOG with hard orientation assignment."""

_DEEP: dict[str, Preset] = {
    # Of 1 to 6, measured on VGG16: the deeper, the rougher the energy.
    "fast": dataclasses.replace(PRESETS["fast"], learning_rate=2.0)
}
"""Presets that are different for more than 8 convolutions and unknown functions."""

_WITH_PLACES: dict[str, Preset] = {
    # Where features have places, an image that is moved has another code: the error
    # grows by a half or more with shifts of 4 px. Colours and weight alone help.
    "natural": dataclasses.replace(
        PRESETS["natural"], views=None, tv_weight=NATURAL_TV_WEIGHT / 2
    )
}
"""Presets that are different for codes that are an array of features by place."""

_LINEAR: dict[str, Preset] = {
    # exp_maximization.m and exp_enhance.m: 300 iterations, all with jitter.
    "ijcv2016": dataclasses.replace(
        PRESETS["ijcv2016"], num_steps=300, stages=(Stage(1, 1.0, jitter=True),)
    )
}
"""Presets that are different for maximisation and caricature of networks."""


def find(
    name: str, *, phi: Any = None, data_term: DataTerm = objective.squared_error
) -> Preset:
    """The preset of a name, as it is for a representation and a data term.

    Args:
      name: name of the preset.
      phi: the representation; None for the table's own row.
      data_term: the data term that is minimised.

    Raises:
      ValueError: there is no preset of that name.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        meant = spelling.hint(name, PRESETS)
        raise ValueError(f"unknown preset {name!r}; known are {known}{meant}")
    members = joint.members(phi)
    if joint.is_shallow(phi):
        row = _SHALLOW.get(name, PRESETS[name])
        if any(isinstance(one, Hog) and one.assignment == "hard" for one in members):
            row = _HARD.get(name, row)
        return row
    is_deep = any(map(_is_deep, members))
    row = _DEEP.get(name, PRESETS[name]) if is_deep else PRESETS[name]
    if any(map(_has_places, members)) and data_term not in objective.LINEAR_TERMS:
        row = _WITH_PLACES.get(name, row)
    if data_term in objective.LINEAR_TERMS:
        row = _LINEAR.get(name, row)
    return row


def tv_weight(phi: Any, *, preset: str | None = None) -> float:
    """lambda_V for a representation: a preset's own, or by the table above.

    For several representations together it is the smallest of theirs.

    Args:
      phi: any function; its attributes `name` ("network/layer") and `geometry` are used
        where it has them.
      preset: name of the preset; None for the table.

    Examples:
      >>> from invjax.representations.paper import SHALLOW
      >>> tv_weight(SHALLOW["hogb"]), tv_weight(lambda image: image)
      (0.5, 5.0)
    """
    own = None if preset is None else find(preset, phi=phi).tv_weight
    if own is not None:
        return own
    return min(map(_tv_weight, joint.members(phi)))


def _tv_weight(phi: Any) -> float:
    if isinstance(phi, Hog | Dsift):
        return 0.5
    if (place := _depth(phi)) is not None:
        network, kind, depth = place
        if network in _LIKE_VGG:
            return 0.5 if depth <= 2 else 5.0 if depth <= 4 else 50.0
        if depth == 1 or (depth == 2 and kind in ("conv", "relu")):
            return 0.5
        return 5.0 if depth <= 4 else 50.0
    if (stride := _stride(phi)) is not None:
        return 0.5 if stride <= 4 else 5.0 if stride <= 16 else 50.0
    return 5.0


def data_weight(phi: Any, *, data_term: DataTerm = objective.squared_error) -> float:
    """C, the weight of the IJCV objective's data term, by the table above.

    For several representations together it is the largest of theirs.

    Args:
      phi: as for `tv_weight`.
      data_term: the data term that is minimised.
    """
    if data_term in objective.LINEAR_TERMS:
        return 1.0
    return max(map(_data_weight, joint.members(phi)))


def _data_weight(phi: Any) -> float:
    if (place := _depth(phi)) is not None:
        _, kind, depth = place
        if depth == 5 and kind not in ("conv", "relu"):
            return 1.0
        return 300.0 if depth <= 3 else {4: 100.0, 5: 20.0}.get(depth, 1.0)
    if isinstance(phi, Hog | Dsift):
        return 100.0
    if (stride := _stride(phi)) is not None:
        return 300.0 if stride <= 8 else 100.0 if stride <= 16 else 1.0
    return 100.0


def linear_term_weights(
    preset: str, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Keywords of `invert` for maximisation and caricature (IJCV 2016).

    `ijcv2016` has the paper's weights. The energy of the other presets is made equal to
    the paper's objective at this image size, except that R_alpha takes every channel by
    itself there; the data term has weight 1 in both, and the bound on the range is the
    same. Under `natural` the regularisers have `NATURAL_LINEAR_SHARE` of these weights.

    Args:
      preset: name of the preset.
      image_shape: (h, w, c) of the image to be found.
    """
    if PRESETS[preset].form == "ijcv2016":
        return {}
    num_pixels = image_shape[0] * image_shape[1]
    share = NATURAL_LINEAR_SHARE if preset == "natural" else 1.0
    return {
        "tv_weight": share * (SIGMA / IJCV_GRADIENT) ** 2 / num_pixels,
        "alpha_weight": share * (SIGMA / IJCV_NORM) ** 6 / num_pixels,
        "range_bound": IJCV_BOUND,
    }


def jitter(phi: Any) -> int:
    """T = max(round(stride / 4), 1), the places of an image along each axis.

    As in the released code of IJCV 2016, halves rounded up: 1, 2, 4 and 8 for strides
    of 4, 8, 16 and 32; 1, which is none, for functions without a `geometry`. For
    several representations together it is the smallest of theirs.
    """
    return min(map(_jitter, joint.members(phi)))


def _jitter(phi: Any) -> int:
    stride = _stride(phi)
    return 1 if stride is None else max(int(stride / 4 + 0.5), 1)


def _stride(phi: Any) -> int | None:
    """The stride, at least 32 of a code without places; None where it is not known."""
    if (geometry := getattr(phi, "geometry", None)) is None:
        return None
    return geometry.stride if _has_places(phi) else max(geometry.stride, 32)


def _is_deep(phi: Any) -> bool:
    """Whether a representation has more than 8 convolutions, or who knows how many.

    Dense layers at every place or token, and attentions, count as convolutions.
    """
    layers = getattr(phi, "layers", None)
    if layers is None:
        # Bridged networks have a depth: their number of layers with weights.
        return phi is not None and getattr(phi, "depth", 9) > 8
    rows = weighted(layers, phi.image_shape)
    kinds = Conv | DepthwiseConv | Pointwise | Attention
    return sum(isinstance(layer, kinds) for _, layer, _ in rows) > 8


def _has_places(phi: Any) -> bool:
    """Whether a representation is known to have features by place."""
    geometry = getattr(phi, "geometry", None)
    # (h, w, c), or (tokens, c).
    has_axes = geometry is not None and len(geometry.shape) > 1
    return getattr(phi, "has_places", has_axes)


def _depth(phi: Any) -> tuple[str, str, int] | None:
    """("alexnet", "pool", 2) of alexnet/pool2, ("vgg16", "relu", 3) of its relu3_1."""
    network, _, layer = str(getattr(phi, "name", "")).partition("/")
    if network not in _LIKE_ALEXNET + _LIKE_VGG:
        return None
    found = re.fullmatch(r"([a-z]+)(\d)(?:_\d)?", layer)
    return found and (network, found[1], int(found[2]))
