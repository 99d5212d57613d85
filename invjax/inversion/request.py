"""A request for inversion: its keywords, checked and filled in by the presets."""

import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array

from invjax import callables, spelling
from invjax.callables import TracedCallable
from invjax.images import pixels
from invjax.inversion import devices, objective, presets
from invjax.inversion.lane import LaneSettings, Phase, Program
from invjax.inversion.objective import Exponents, IjcvWeights, PerLane, Shared
from invjax.inversion.presets import Preset
from invjax.representations import as_representation, is_registered
from invjax.types import (
    DataTerm,
    Relaxable,
    Representation,
    RepresentationLike,
)

DEAD_RELU = ("restart", "leaky")
"""Ways out of a dead start; see `dead_starts`."""


class Keywords(TypedDict, total=False):
    """The keywords of `prepare`, for the functions that hand them on to it."""

    image_shape: Any
    preset: str
    num_steps: int | None
    learning_rate: ArrayLike | None
    tv_weight: ArrayLike | None
    alpha_weight: ArrayLike | None
    chroma_weight: ArrayLike | None
    data_weight: ArrayLike | None
    data_term: DataTerm
    beta: float
    jitter: int | None
    range_bound: ArrayLike | None
    tolerance: ArrayLike | None
    dead_relu: str | None
    initial_image: Any
    mask: Any
    code_weights: Any
    centre: Any


class Plan(NamedTuple):
    """A request, checked and completed: what the loop carries out.

    Attributes:
      phases: programs and their paces, in order.
      phi: the representation.
      shared: what all lanes have in common, on the device.
      settings: [l], the numbers of each lane: NumPy arrays on the host, so that a set
        of codes may be larger than the device; `of` moves a chunk of them there.
      start_scale: size of the noise to start from; see `lane.start`.
      initial: [l, h, w, c], grey levels minus the centre, to start from in place of
        noise; on the host as `settings`.
      dead_relu: the way out of dead starts; None where the lanes just run.
      mesh: the devices that lanes are spread over; None for JAX's default one.
    """

    phases: tuple[Phase, ...]
    phi: TracedCallable
    shared: Shared
    settings: LaneSettings
    start_scale: Array
    initial: Any = None
    dead_relu: str | None = None
    mesh: Mesh | None = None

    @property
    def num_steps(self) -> int:
        """Number of steps of all phases together."""
        return sum(phase.num_steps for phase in self.phases)

    @property
    def num_lanes(self) -> int:
        """Number of lanes, l."""
        return len(self.settings.learning_rate)

    @property
    def has_tolerance(self) -> bool:
        """Whether lanes can converge before they have taken all steps."""
        return self.settings.tolerance is not None

    def of(self, lanes: np.ndarray) -> "Plan":
        """The plan of the lanes with these numbers, with settings on the device."""

        # Chosen by NumPy: nothing is compiled for every shape of code.
        own = jax.tree.map(
            lambda leaf: np.asarray(leaf)[lanes], (self.settings, self.initial)
        )
        settings, initial = self.place(own)
        return self._replace(settings=settings, initial=initial)

    def place(self, tree: Any) -> Any:
        """Arrays [l, ...] of lanes where this plan has them."""
        return devices.split(tree, self.mesh)

    def spread(self, mesh: Mesh | None) -> "Plan":
        """The plan of lanes on these devices, which get what the lanes share."""
        if mesh is None:
            return self._replace(mesh=None)
        common = devices.replicate((self.phi, self.shared, self.start_scale), mesh)
        phi, shared, start_scale = common
        return self._replace(phi=phi, shared=shared, start_scale=start_scale, mesh=mesh)

    def on_device(self) -> "Plan":
        """The plan of all lanes, with their settings on the device."""
        return self.of(np.arange(self.num_lanes))

    def empty_history(self, num_lanes: int, history_every: int) -> np.ndarray:
        """NaN for every value of `Result.history`, [num_lanes, t]."""
        num_columns = -(-self.num_steps // history_every) + 1
        return np.full((num_lanes, num_columns), np.nan, np.float32)


def prepare(
    codes: Any,
    phi: RepresentationLike,
    num_lanes: int,
    *,
    image_shape: Any = None,
    preset: str = "fast",
    num_steps: int | None = None,
    learning_rate: ArrayLike | None = None,
    tv_weight: ArrayLike | None = None,
    alpha_weight: ArrayLike | None = None,
    chroma_weight: ArrayLike | None = None,
    data_weight: ArrayLike | None = None,
    data_term: DataTerm = objective.squared_error,
    beta: float = 2.0,
    jitter: int | None = None,
    range_bound: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    dead_relu: str | None = None,
    initial_image: Any = None,
    mask: Any = None,
    code_weights: Any = None,
    centre: Any = None,
) -> Plan:
    """Checks a request and completes it by its preset and representation.

    For callers who run the compiled steps by themselves. Arguments and errors are those
    of `api.invert_batch`.
    """
    refuse_transformed((codes, phi, tv_weight, alpha_weight, learning_rate))
    phi = as_representation(phi)
    traced = TracedCallable.of(phi)
    _check_data_term(data_term)
    chosen = presets.find(preset, phi=phi, data_term=data_term)
    num_steps = chosen.num_steps if num_steps is None else num_steps
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be positive")
    if chosen.views is not None and (jitter or 1) > 1:
        raise ValueError(
            f"jitter belongs to presets without views, and {preset} shifts its views"
        )
    shape = _image_shape(phi, image_shape)
    exponents = Exponents(beta=_beta(beta))
    structure = _structure(phi, traced, shape)
    target = _codes(codes, structure)
    _check_code_shape(target, structure, shape)
    weights = _mask(mask, structure, num_lanes)
    _check_targets(target, weights, num_lanes, data_term)
    centre = _centre(phi, centre, shape, chosen)

    def per_lane(name: str, value: Any, default: float) -> Any:
        return _per_lane(name, default if value is None else value, num_lanes)

    tv = _default_tv_weight(phi, chosen, exponents)
    problem = PerLane(
        target=target,
        mask=weights,
        tv_weight=per_lane("tv_weight", tv_weight, tv),
        alpha_weight=per_lane("alpha_weight", alpha_weight, presets.ALPHA_WEIGHT),
        code_weights=_code_weights(code_weights, structure, num_lanes),
    )
    chroma = chosen.chroma_weight if chroma_weight is None else chroma_weight
    if chroma is not None:
        chroma = per_lane("chroma_weight", chroma, 1)
        problem = problem._replace(chroma_weight=chroma)
    if chosen.form == "ijcv2016":
        c = presets.data_weight(phi, data_term=data_term)
        c = per_lane("data_weight", data_weight, c)
        problem = problem._replace(ijcv=_ijcv_weights(problem, c, tv, exponents))
    elif data_weight is not None:
        raise ValueError(
            f"data_weight belongs to preset ijcv2016; in the energy of {preset} the "
            "data term counts once: give tv_weight and alpha_weight"
        )
    settings = LaneSettings(
        problem=problem,
        learning_rate=per_lane("learning_rate", learning_rate, chosen.rate(shape)),
        range_bound=_range_bound(range_bound, chosen, num_lanes),
        tolerance=None if tolerance is None else per_lane("tolerance", tolerance, 0),
    )
    if jitter is not None and jitter < 1:
        raise ValueError(f"jitter is {jitter}; pixels from 1 (none) up are accepted")
    program = Program(
        chosen.solver,
        shape,
        form=chosen.form,
        exponents=exponents,
        data_term=data_term,
        # Where the preset has no jitter, a given one is for the whole descent.
        jitter=1 if jitter is None or chosen.has_jitter else jitter,
        start=chosen.start,
    )
    places = presets.jitter(phi) if jitter is None else jitter
    return Plan(
        phases=chosen.phases(program, num_steps, jitter=places),
        # Weights in the host's memory would go to the device at every step.
        phi=jax.tree.map(jnp.asarray, traced),
        shared=Shared(centre=jnp.asarray(centre)),
        settings=settings,
        start_scale=jnp.float32(chosen.start_scale(shape)),
        initial=_initial(initial_image, centre, shape, num_lanes),
        dead_relu=_dead_relu(dead_relu, phi, initial_image),
    )


def refuse_transformed(arguments: Any) -> None:
    """Refuses to be part of a function that JAX transforms.

    Args:
      arguments: any tree of what an inversion was given.

    Raises:
      TypeError: an array is traced, or jax.jit traces the caller.
    """
    # Within jit, every new array is traced.
    leaves = [*jax.tree.leaves(arguments), jnp.zeros((), jnp.float32)]
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise TypeError(callables.TRANSFORMED)


def refuse_unknown(settings: Mapping[str, Any]) -> None:
    """Refuses keywords that `prepare` does not have, with the one that may be meant.

    Args:
      settings: keywords by name.

    Raises:
      TypeError: there is none of that name.
    """
    known = Keywords.__annotations__
    for name in settings:
        if name not in known:
            meant = spelling.nearest(name, known)
            hint = (
                f"did you mean {meant}?" if meant else f"known are {', '.join(known)}"
            )
            raise TypeError(f"there is no keyword {name!r}; {hint}")


def one_code(code: Any, phi: RepresentationLike, *, image_shape: Any = None) -> Any:
    """Returns a code as the codes of one lane, float32 [1, ...].

    Args:
      code: real numbers of any type, as one array or as nested lists; where phi returns
        a pytree of arrays, the same pytree of them.
      phi: the representation, or its name.
      image_shape: as in `prepare`.

    Raises:
      ValueError: it has other arrays than phi returns, or does not consist of real
        numbers; or phi is refused, as in `prepare`.
    """
    refuse_transformed((code, phi))
    structure = _structure_of(phi, image_shape)
    if _is_one(structure) and _has_parts(code):
        raise ValueError(_differs(code, structure))
    return jax.tree.map(lambda part: part[None], _codes(code, structure))


def lane_codes(codes: Any, phi: RepresentationLike, *, image_shape: Any = None) -> Any:
    """Returns the codes of lanes as float32 [l, ...], l at least 1.

    Args:
      codes: real numbers of any type, an array or a sequence of arrays of one shape;
        float32 is not copied. Where phi returns a pytree of arrays, the same pytree,
        each of whose arrays has a leading [l].
      phi: the representation, or its name.
      image_shape: as in `prepare`.

    Raises:
      ValueError: they are not of one shape, there are none, they have other arrays than
        phi returns, or they do not consist of real numbers; or phi is refused, as in
        `prepare`.
    """
    return _lanes(_codes(codes, _structure_of(phi, image_shape)))


def num_lanes_of(codes: Any) -> int:
    """Number of lanes of what `lane_codes` returns."""
    return len(jax.tree.leaves(codes)[0])


def _lanes(codes: Any) -> Any:
    lengths = {np.shape(part)[:1] for part in jax.tree.leaves(codes)}
    if len(lengths) > 1 or () in lengths or (0,) in lengths:
        raise ValueError(
            f"codes are {callables.describe(codes)}; one for each lane, [l, ...], is "
            "accepted"
        )
    return codes


def _structure_of(phi: RepresentationLike, image_shape: Any) -> Any:
    """What phi returns of an image of this shape; see `callables.code_struct`."""
    phi = as_representation(phi)
    traced = TracedCallable.of(phi)
    return _structure(phi, traced, _image_shape(phi, image_shape))


def _structure(
    phi: RepresentationLike, traced: TracedCallable, shape: tuple[int, int, int]
) -> Any:
    if not is_registered(phi):
        callables.refuse_impure(phi, shape)
    return callables.code_struct(traced, shape)


def _is_one(structure: Any) -> bool:
    """Whether a code is one array."""
    return isinstance(structure, jax.ShapeDtypeStruct)


def _has_parts(code: Any) -> bool:
    """Whether a code that should be one array is several."""
    return isinstance(code, Mapping) or (
        isinstance(code, list | tuple)
        and any(_is_array(part) and len(np.shape(part)) > 0 for part in code)
    )


def _is_array(part: Any) -> bool:
    return hasattr(part, "shape") and hasattr(part, "dtype")


def _codes(codes: Any, structure: Any) -> Any:
    """Codes as float32 arrays of the structure that phi returns."""
    if _is_one(structure):
        return _numbers(codes, structure)
    tree: Any = jax.tree.structure(structure)
    try:
        parts = tree.flatten_up_to(codes)
    except (ValueError, TypeError):
        raise ValueError(_differs(codes, structure)) from None
    return tree.unflatten([_numbers(part, structure) for part in parts])


def _numbers(codes: Any, structure: Any) -> np.ndarray:
    """One array of codes as float32, without a copy of what is float32 already."""
    if isinstance(codes, Mapping):
        raise ValueError(_differs(codes, structure))
    try:
        is_complex = np.iscomplexobj(codes)
        with np.errstate(over="ignore"):
            # NumPy takes None for NaN.
            given = object() if codes is None else codes
            numbers = None if is_complex else np.asarray(given, np.float32)
    except (TypeError, ValueError):
        if isinstance(codes, list | tuple):
            raise ValueError(_differs(codes, structure)) from None
        raise ValueError(
            f"the code is a {type(codes).__name__}; an array of real numbers is "
            "accepted"
        ) from None
    if numbers is None:
        raise ValueError("codes are complex; real ones are accepted")
    return numbers


def _differs(codes: Any, structure: Any) -> str:
    return (
        f"the code is {callables.describe(codes)}, but the representation returns "
        f"{callables.describe(structure)}; codes as it returns them are accepted"
    )


def _check_data_term(data_term: DataTerm) -> None:
    """Refuses what cannot be a static argument of a compiled program."""
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
    phi: Representation, preset: Preset, exponents: Exponents
) -> float:
    """lambda_V by default, in the units of the energy, which depend on beta.

    The energy under ijcv2016 has beta 2 whatever is minimised.
    """
    tv = presets.tv_weight(phi, preset=preset.name)
    if preset.form == "ijcv2016":
        return tv
    return tv * objective.SIGMA ** (exponents.beta - 2)


def _ijcv_weights(
    problem: PerLane, data_weight: Any, layers_tv_weight: float, exponents: Exponents
) -> IjcvWeights:
    """The paper's weights, scaled as the lambdas asked for to the layer's own."""
    alpha = np.float32(objective.IJCV_NORM**-exponents.alpha)
    tv = np.float32(objective.IJCV_GRADIENT**-exponents.beta)
    # A weight that float32 cannot hold is infinite, and its lane fails.
    with np.errstate(over="ignore"):
        return IjcvWeights(
            data=data_weight,
            alpha=problem.alpha_weight / np.float32(presets.ALPHA_WEIGHT) * alpha,
            tv=problem.tv_weight / np.float32(layers_tv_weight) * tv,
        )


def _range_bound(given: Any, preset: Preset, num_lanes: int) -> Any:
    if given is None:
        if preset.form != "ijcv2016":
            return None
        given = presets.IJCV_BOUND
    bound = np.asarray(given, np.float32)
    # Infinite is no bound.
    if np.any(np.isnan(bound)) or np.any(bound <= 0):
        raise ValueError(f"range_bound is {given}; positive grey levels are accepted")
    _per_lane("range_bound", np.where(np.isinf(bound), 0, bound), num_lanes)
    return np.broadcast_to(bound, (num_lanes,))


def _initial(
    given: Any, centre: np.ndarray, shape: tuple[int, int, int], num_lanes: int
) -> np.ndarray | None:
    if given is None:
        return None
    images = np.asarray(
        pixels.checked(given, name="initial_image", values="clipped"), np.float32
    )
    if images.shape not in (shape, (num_lanes, *shape)):
        raise ValueError(
            f"initial_image has shape {images.shape}; {shape}, or one per lane, "
            f"{(num_lanes, *shape)}, is accepted"
        )
    lowest, highest = np.min(images), np.max(images)
    if not pixels.is_in_range(images):
        warnings.warn(
            f"initial_image has values from {lowest:.3g} to {highest:.3g}, beyond "
            "[0, 1]; the descent begins there",
            stacklevel=2,
        )
    variables = np.float32(255) * images - np.broadcast_to(centre, shape)
    return np.broadcast_to(variables, (num_lanes, *shape))


def _image_shape(phi: Representation, given: Any) -> tuple[int, int, int]:
    shape = given if given is not None else getattr(phi, "image_shape", None)
    try:
        sides = tuple(map(operator.index, () if shape is None else shape))
    except TypeError:
        sides = ()
    if len(sides) != 3 or min(sides) < 1:
        raise ValueError(
            f"image_shape is {shape}; (height, width, channels) is accepted, and a "
            "representation without an image_shape of its own needs it"
        )
    height, width, channels = sides
    if height in (1, 3) and min(width, channels) > _MOST_CHANNELS:
        raise ValueError(
            f"image_shape is {shape}, with the channels first; (height, width, "
            f"channels) is accepted, here {(width, channels, height)}"
        )
    return (height, width, channels)


_MOST_CHANNELS = 4
"""Three numbers of which the last two are larger have their channels first."""


def _per_lane(name: str, value: Any, num_lanes: int) -> np.ndarray:
    array = np.asarray(value, np.float32)
    if array.shape not in ((), (num_lanes,)):
        raise ValueError(
            f"{name} has shape {array.shape}; a number or one per lane, "
            f"({num_lanes},), is accepted"
        )
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        raise ValueError(f"{name} is {value}; finite numbers from 0 up are accepted")
    return np.broadcast_to(array, (num_lanes,))


def _centre(
    phi: Representation, given: Any, shape: tuple[int, ...], preset: Preset
) -> np.ndarray:
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
    return array


def _mask(mask: Any, structure: Any, num_lanes: int) -> Any:
    """The masks of lanes, for each array of the code [l, ...], which broadcasts to it.

    A mask with more axes than the code has one for each lane.
    """
    masks = _for_each_part("mask", 1.0 if mask is None else mask, structure)

    def checked(given: Any, part: jax.ShapeDtypeStruct) -> np.ndarray:
        weights = np.asarray(1.0 if given is None else given, np.float32)
        own = weights.shape
        if weights.ndim > len(part.shape) and own[0] == num_lanes:
            own = own[1:]
        try:
            np.broadcast_to(np.empty(own, np.bool_), part.shape)
        except ValueError:
            raise ValueError(
                f"mask has shape {weights.shape}, codes have {part.shape}; a mask that "
                f"broadcasts to it, or one for each of {num_lanes} lanes, is accepted"
            ) from None
        return np.broadcast_to(weights, (num_lanes, *own))

    tree: Any = jax.tree.structure(structure)
    parts = [*map(checked, masks, jax.tree.leaves(structure))]
    return tree.unflatten(parts)


def _code_weights(given: Any, structure: Any, num_lanes: int) -> Any:
    """Weight of each array of a code, [l] each; None for a code of one array."""
    if _is_one(structure):
        if given is not None:
            raise ValueError(
                "code_weights are for codes of several arrays, but the representation "
                f"returns {callables.describe(structure)}"
            )
        return None
    tree: Any = jax.tree.structure(structure)
    equal = 1 / tree.num_leaves
    values = _for_each_part(
        "code_weights", equal if given is None else given, structure
    )
    parts = [_per_lane("code_weights", value, num_lanes) for value in values]
    if not np.all(np.sum(parts, axis=0) > 0):
        raise ValueError("code_weights are all zero; one of them must be positive")
    return tree.unflatten(parts)


def _for_each_part(name: str, given: Any, structure: Any) -> list[Any]:
    """A value for each array of a code, of one value for all or of a tree of them."""
    if _is_one(structure):
        return [given]
    tree: Any = jax.tree.structure(structure)
    if np.isscalar(given) or _is_array(given):
        return [given] * tree.num_leaves
    try:
        return tree.flatten_up_to(given)
    except (ValueError, TypeError):
        raise ValueError(
            f"{name} are not of the structure of the codes, "
            f"{callables.describe(structure)}; one value for all of these arrays, or "
            "a tree with one for each, is accepted"
        ) from None


def _check_targets(
    target: Any, masks: Any, num_lanes: int, data_term: DataTerm
) -> None:
    """Refuses targets that are not finite, or of norm zero, which ask for nothing."""
    if num_lanes < 1 or num_lanes_of(target) != num_lanes:
        raise ValueError(
            f"{num_lanes} keys, and codes that are {callables.describe(target)}; at "
            "least one lane, and as many codes as keys, are accepted"
        )
    what, size = _SIZES.get(data_term, (None, None))
    weights = jax.tree.leaves(masks)
    for (path, part), weight in zip(
        jax.tree.leaves_with_path(target), weights, strict=True
    ):
        zeros = []
        # Code by code, since all of them together may be larger than the memory.
        for number, code in enumerate(part):
            masked = (code * np.broadcast_to(weight[number], code.shape)).ravel()
            if not np.isfinite(np.sum(np.square(masked))):
                raise ValueError(
                    "a target code is not finite; numbers that are finite are accepted"
                )
            if size is not None and size(masked) == 0:
                zeros.append(number)
        if zeros:
            lanes = ", ".join(map(str, zeros))
            where = callables.place(path)
            raise ValueError(f"{what}{where} is zero under the mask in lane {lanes}")


_SIZES: dict[Any, tuple[str, Callable[[np.ndarray], np.floating]]] = {
    # Squares in float32, as the data terms divide by them: what vanishes there is zero.
    objective.squared_error: ("target code", lambda code: np.sum(np.square(code))),
    objective.caricature: (
        "positive part of the target code",
        lambda code: np.sum(np.square(np.maximum(code, 0))),
    ),
    objective.activation_maximisation: (
        "direction to maximise",
        lambda code: np.max(np.abs(code), initial=0),
    ),
}
"""What a data term needs of a masked target: in words, and its size."""


def _check_code_shape(codes: Any, structure: Any, image_shape: tuple[int, ...]) -> None:
    for (path, part), expected in zip(
        jax.tree.leaves_with_path(_lanes(codes)),
        jax.tree.leaves(structure),
        strict=True,
    ):
        shape = part.shape[1:]
        if shape == expected.shape:
            continue
        where = callables.place(path)
        hint = ""
        if shape[1:] == expected.shape:
            hint = "; invert_batch takes several codes"
        elif len(shape) == 3 and (*shape[1:], shape[0]) == expected.shape:
            hint = "; channels are the last axis: numpy.moveaxis(code, -3, -1)"
        raise ValueError(
            f"codes have shape {shape}{where}, but the representation of an image of "
            f"{image_shape} has {expected.shape}, which is accepted{hint}"
        )
