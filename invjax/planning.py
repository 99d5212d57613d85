"""A request for inversion: its keywords, checked and filled in by the presets."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from invjax import engine, objective, presets, programs
from invjax.presets import Preset
from invjax.representations import tracing
from invjax.types import DataTerm, Relaxable, Representation

DEAD_RELU = ("restart", "leaky")
"""Ways out of a dead start; see `starting`."""


class Settings(TypedDict, total=False):
    """The keywords of `prepare`, for the functions that hand them on to it."""

    image_shape: Sequence[int] | None
    preset: str
    num_steps: int | None
    learning_rate: ArrayLike | None
    tv_weight: ArrayLike | None
    alpha_weight: ArrayLike | None
    data_weight: ArrayLike | None
    data_term: DataTerm
    beta: float
    jitter: int | None
    range_bound: ArrayLike | None
    tolerance: ArrayLike | None
    dead_relu: str | None
    initial_image: Any
    mask: Any
    centre: Any


class Plan(NamedTuple):
    """Everything that was asked for, checked and filled in.

    Attributes:
      phases: programs and schedules, in order.
      phi: the representation.
      problems: of all lanes.
      start_scale: of the noise to start from; see `engine.start`.
      initial: [l, h, w, c], grey levels minus the centre, if not from noise.
      dead_relu: the way out of dead starts, if one is wanted.
    """

    phases: tuple[programs.Phase, ...]
    phi: tracing.Argument
    problems: objective.Problem
    start_scale: Array
    initial: Array | None
    dead_relu: str | None = None

    @property
    def num_steps(self) -> int:
        """Of all phases."""
        return sum(len(phase.schedule) for phase in self.phases)

    def of(self, lanes: np.ndarray) -> "Plan":
        """The same for some of its lanes, by number."""
        initial = None if self.initial is None else self.initial[lanes]
        return self._replace(problems=take(self.problems, lanes), initial=initial)

    def empty_history(self, history_every: int) -> np.ndarray:
        """NaN for every value of `Result.history`, [l, t]."""
        num_columns = -(-self.num_steps // history_every) + 1
        shape = (len(self.problems.tv_weight), num_columns)
        return np.full(shape, np.nan, np.float32)


def prepare(
    codes: Any,
    phi: Representation,
    num_lanes: int,
    *,
    image_shape: Sequence[int] | None = None,
    preset: str = "fast",
    num_steps: int | None = None,
    learning_rate: ArrayLike | None = None,
    tv_weight: ArrayLike | None = None,
    alpha_weight: ArrayLike | None = None,
    data_weight: ArrayLike | None = None,
    data_term: DataTerm = objective.squared_error,
    beta: float = 2.0,
    jitter: int | None = None,
    range_bound: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    dead_relu: str | None = None,
    initial_image: Any = None,
    mask: Any = None,
    centre: Any = None,
) -> Plan:
    """Checks a request and fills in what its preset and representation say.

    For those who run the engine's steps by themselves; arguments as `invert_batch`.
    """
    _check_data_term(data_term)
    chosen = presets.find(preset, phi=phi, data_term=data_term)
    num_steps = chosen.num_steps if num_steps is None else num_steps
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be positive")
    shape = _image_shape(phi, image_shape)
    exponents = objective.Exponents(beta=_beta(beta))
    target, weights = _targets(codes, mask, num_lanes, data_term)

    def per_lane(name: str, value: Any, default: float) -> Array:
        return _per_lane(name, default if value is None else value, num_lanes)

    tv = _default_tv_weight(phi, chosen, exponents)
    problems = objective.Problem(
        target=target,
        mask=weights,
        tv_weight=per_lane("tv_weight", tv_weight, tv),
        alpha_weight=per_lane("alpha_weight", alpha_weight, presets.ALPHA_WEIGHT),
        centre=_centre(phi, centre, shape, chosen),
        learning_rate=per_lane("learning_rate", learning_rate, chosen.rate(shape)),
        range_bound=_range_bound(range_bound, chosen, num_lanes),
        tolerance=None if tolerance is None else per_lane("tolerance", tolerance, 0),
    )
    if chosen.form == "ijcv2016":
        c = presets.data_weight(phi, data_term=data_term)
        problems = problems._replace(
            ijcv=_ijcv_weights(
                problems, per_lane("data_weight", data_weight, c), tv, exponents
            )
        )
    elif data_weight is not None:
        raise ValueError(
            f"data_weight is of preset ijcv2016; in the energy of {preset} the data "
            "term counts once: give tv_weight and alpha_weight"
        )
    argument = tracing.Argument.of(phi)
    _check_code_shape(argument, target.shape[1:], shape)
    return Plan(
        phases=tuple(
            programs.Phase(
                programs.Program(
                    chosen.solver,
                    shape,
                    form=chosen.form,
                    exponents=exponents,
                    data_term=data_term,
                    jitter=places,
                    start=chosen.start,
                ),
                phase.schedule,
                phase.relaxation,
            )
            for places, phase in _phases(phi, chosen, num_steps, jitter)
        ),
        phi=argument,
        problems=problems,
        start_scale=jnp.float32(chosen.start_scale(shape)),
        initial=_initial(initial_image, problems.centre, shape, num_lanes),
        dead_relu=_dead_relu(dead_relu, phi, initial_image),
    )


def take(problems: objective.Problem, lanes: np.ndarray | int) -> objective.Problem:
    """The problems of some lanes, or of one, without the axis of lanes."""
    axes = engine.LANE_AXES._asdict()
    counted = {name for name, axis in axes.items() if axis is not None}
    parts = {name: getattr(problems, name) for name in counted}

    def rows(leaf: Array) -> Array:
        # Chosen by NumPy: nothing is compiled for every shape of code.
        return jnp.asarray(np.asarray(leaf)[lanes])

    return problems._replace(**jax.tree.map(rows, parts))


def _phases(
    phi: Representation, preset: Preset, num_steps: int, jitter: int | None
) -> list[tuple[int, presets.Phase]]:
    """The phases, each with the places of its image along an axis of the canvas.

    A given jitter takes the place of the preset's; where a preset has none, it is of
    the whole descent.
    """
    if jitter is not None and jitter < 1:
        raise ValueError(f"jitter is {jitter}; pixels from 1 (none) up are accepted")
    phases = preset.phases(num_steps)
    has_jitter = any(stage.jitter for stage in preset.stages or ())
    if jitter is None:
        jitter = presets.jitter(phi)
    elif not has_jitter:
        phases = [phase._replace(jitter=True) for phase in phases]
    return [(jitter if phase.jitter else 1, phase) for phase in phases]


def _check_data_term(data_term: DataTerm) -> None:
    """It is compiled in, so it has to be told from others."""
    try:
        hash(data_term)
    except TypeError:
        raise ValueError(
            f"data_term is {data_term!r:.80}, which has no hash; a function "
            "(code, target, mask) -> scalar without arrays of its own is accepted"
        ) from None


def _dead_relu(
    given: str | None, phi: Representation, initial_image: Any
) -> str | None:
    if given is not None and given not in DEAD_RELU:
        raise ValueError(
            f"dead_relu is {given!r}; restart, leaky and None are accepted"
        )
    if given == "restart" and initial_image is not None:
        raise ValueError(
            "dead_relu is restart, which draws noise anew, but initial_image is given; "
            "leave out one of them"
        )
    if given == "leaky" and not isinstance(phi, Relaxable):
        raise ValueError(
            "dead_relu is leaky, but the representation has no method relaxed(amount); "
            "restart or None is accepted"
        )
    return given


def _beta(beta: float) -> float:
    if not (np.isfinite(beta) and beta > 0):
        raise ValueError(f"beta is {beta}; a positive number is accepted")
    return float(beta)


def _default_tv_weight(
    phi: Representation, preset: Preset, exponents: objective.Exponents
) -> float:
    """lambda_V; the released code's in its own units, which depend on beta.

    The energy under ijcv2016 has beta 2 whatever is minimised.
    """
    tv = presets.tv_weight(phi)
    if preset.form == "ijcv2016":
        return tv
    return tv * objective.SIGMA ** (exponents.beta - 2)


def _ijcv_weights(
    problems: objective.Problem,
    data_weight: Array,
    layers_tv_weight: float,
    exponents: objective.Exponents,
) -> objective.IjcvWeights:
    """The paper's weights, times what share of the layer's lambdas was asked for."""
    alpha = np.float32(objective.IJCV_NORM**-exponents.alpha)
    tv = np.float32(objective.IJCV_GRADIENT**-exponents.beta)
    return objective.IjcvWeights(
        data=data_weight,
        alpha=problems.alpha_weight / np.float32(presets.ALPHA_WEIGHT) * alpha,
        tv=problems.tv_weight / np.float32(layers_tv_weight) * tv,
    )


def _range_bound(given: Any, preset: Preset, num_lanes: int) -> Array | None:
    if given is None:
        if preset.form != "ijcv2016":
            return None
        given = presets.IJCV_BOUND
    bound = np.asarray(given, np.float32)
    # Infinite is no bound.
    if np.any(np.isnan(bound)) or np.any(bound <= 0):
        raise ValueError(f"range_bound is {given}; positive grey levels are accepted")
    _per_lane("range_bound", np.where(np.isinf(bound), 0, bound), num_lanes)
    return jnp.broadcast_to(bound, (num_lanes,))


def _initial(
    given: Any, centre: Array, shape: tuple[int, int, int], num_lanes: int
) -> Array | None:
    if given is None:
        return None
    images = np.asarray(given, np.float32)
    if images.shape not in (shape, (num_lanes, *shape)):
        raise ValueError(
            f"initial_image has shape {images.shape}; {shape}, or one per lane, "
            f"{(num_lanes, *shape)}, is accepted"
        )
    if not np.all(np.isfinite(images)):
        raise ValueError("initial_image is not finite; values in [0, 1] are accepted")
    lanes = jnp.broadcast_to(images, (num_lanes, *shape))
    return jnp.stack([objective.to_variable(image, centre) for image in lanes])


def _image_shape(
    phi: Representation, given: Sequence[int] | None
) -> tuple[int, int, int]:
    shape = given if given is not None else getattr(phi, "image_shape", None)
    if shape is None or len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"image_shape is {shape}; (height, width, channels) is accepted, and a "
            "representation without an image_shape of its own needs it"
        )
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def _per_lane(name: str, value: Any, num_lanes: int) -> Array:
    array = np.asarray(value, np.float32)
    if array.shape not in ((), (num_lanes,)):
        raise ValueError(
            f"{name} has shape {array.shape}; a number or one per lane, "
            f"({num_lanes},), is accepted"
        )
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        raise ValueError(f"{name} is {value}; finite numbers from 0 up are accepted")
    return jnp.broadcast_to(array, (num_lanes,))


def _centre(
    phi: Representation, given: Any, shape: tuple[int, ...], preset: Preset
) -> Array:
    """Grey levels at z = 0, of a shape that broadcasts to the image.

    Of a network's mean image the IJCV paper takes the mean colour.
    """
    centre = given if given is not None else getattr(phi, "centre", 128.0)
    array = np.asarray(centre, np.float32)
    if not np.all(np.isfinite(array)):
        raise ValueError("centre is not finite; grey levels are accepted")
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"centre has shape {array.shape}, which does not fit an image of {shape}"
        ) from None
    if given is None and preset.form == "ijcv2016" and array.ndim == 3:
        array = np.mean(array, axis=(0, 1))
    return jnp.asarray(array)


def _targets(
    codes: Any, mask: Any, num_lanes: int, data_term: DataTerm
) -> tuple[Array, Array]:
    """Targets and mask, checked: a target of norm zero asks for nothing."""
    if np.iscomplexobj(codes):
        raise ValueError("codes are complex; real ones are accepted")
    with np.errstate(over="ignore"):
        target = np.asarray(codes, np.float32)
    if num_lanes < 1 or target.shape[:1] != (num_lanes,):
        raise ValueError(
            f"{num_lanes} keys and codes of shape {target.shape}; at least one lane, "
            "and as many codes as keys, are accepted"
        )
    weights = np.asarray(1.0 if mask is None else mask, np.float32)
    try:
        masked = target * np.broadcast_to(weights, target.shape[1:])
    except ValueError:
        raise ValueError(
            f"mask has shape {weights.shape}, codes have {target.shape[1:]}"
        ) from None
    masked = masked.reshape(num_lanes, -1)
    if not np.all(np.isfinite(np.sum(np.square(masked), axis=1))):
        raise ValueError("a target code is not finite")
    what, sizes = "target code", None
    # Squares in float32, as the data terms divide by them: what vanishes there is zero.
    if data_term is objective.squared_error:
        sizes = np.sum(np.square(masked), axis=1)
    elif data_term is objective.caricature:
        what = "positive part of the target code"
        sizes = np.sum(np.square(np.maximum(masked, 0)), axis=1)
    elif data_term is objective.activation_maximisation:
        what = "direction to maximise"
        sizes = np.max(np.abs(masked), axis=1, initial=0)
    if sizes is not None and np.any(sizes == 0):
        lanes = ", ".join(map(str, np.flatnonzero(sizes == 0)))
        raise ValueError(f"{what} is zero under the mask in lane {lanes}")
    return jnp.asarray(target), jnp.asarray(weights)


def _check_code_shape(
    phi: tracing.Argument, code_shape: tuple[int, ...], image_shape: tuple[int, ...]
) -> None:
    expected = tracing.code_shape(phi, image_shape)
    if expected != code_shape:
        raise ValueError(
            f"codes have shape {code_shape}, but the representation of an image of "
            f"{image_shape} has {expected}"
        )
