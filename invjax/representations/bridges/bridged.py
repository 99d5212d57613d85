"""A network of another framework, cut at a layer, as a representation."""

import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from invjax.images import pixels
from invjax.networks.layers import Geometry
from invjax.networks.relaxation import Relaxation
from invjax.networks.weights import checkpoints
from invjax.representations.bridges import probing, program
from invjax.representations.bridges.program import Program, Traced
from invjax.types import Code, Scalar

LAYOUTS = ("NCHW", "NHWC", "CHW", "HWC")
"""Orders of axes in which a network takes its image; N is a batch axis of one image."""

Colour: TypeAlias = ArrayLike | Sequence[float] | None
"""A number, one per channel, or an image; None where it is not given."""

_MID_GREY = 128.0

_LARGEST_ERROR = 1e-3
_LARGEST_ERROR_ON_ACCELERATORS = 3e-2
_LARGEST_ERROR_OF_HALVES = 1e-1


class MissingFramework(ImportError):
    """A framework is not installed; the message says which extra has it."""


class Refused(ValueError):
    """What was asked of a bridge cannot be done; the message says why in one line."""


class Parity(NamedTuple):
    """How far a bridged network is from the framework's own computation.

    Both are of one fixed image of random pixels.

    Attributes:
      code: |code - the framework's code| / |the framework's code|.
      gradient: the same of the image's gradient along one fixed direction of the code;
        None where the framework has no gradient of its own.
    """

    code: float
    gradient: float | None


class LayerInfo(NamedTuple):
    """One layer of a network.

    Attributes:
      name: name that the bridge accepts as `layer`.
      kind: name of the layer's class.
      shape: shape of its output for one image, without the batch axis; None for an
        output that is no array.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "mean", "std", "centre", "relaxation"],
    meta_fields=[
        *("name", "program", "image_shape", "geometry", "has_places", "parity"),
        "weights_digest",
    ],
)
# eq=False: hashed by identity, as `cnn.CnnRepresentation` is.
@dataclasses.dataclass(frozen=True, eq=False)
class BridgedRepresentation:
    """Maps an image [h, w, c] in [0, 1] to the output of one layer, float32.

    It is a pytree whose leaves are the weights below the cut and the preprocessing.
    Calling it raises ValueError for an image of another shape than `image_shape`.

    Attributes:
      weights: arrays by the framework's names, those on which the code depends.
      mean: what is subtracted from the image, in units of [0, 1], before the network
        sees it; broadcasts to it.
      std: what the difference is divided by, in the same units; broadcasts to it.
      centre: grey levels, [c] or [h, w, c], around which inversions begin: 255 mean, or
        mid-grey where no mean was given.
      relaxation: how the derivative is relaxed, see `relaxed`; None for the exact
        derivative.
      name: "network/layer".
      program: what is computed.
      image_shape: (h, w, c) of the images.
      geometry: shape of the code, receptive field and stride, as found by
        `probing.probe`.
      has_places: whether the code has parts that look at different parts of the image.
      parity: how far the code is from the framework's own.
      weights_digest: SHA-256 of the weights and their names.
    """

    # Any: JAX puts what is no array into pytrees, while it lowers a program.
    weights: Any
    mean: Any
    std: Any
    centre: Any
    relaxation: Any
    name: str
    program: Program
    image_shape: tuple[int, int, int]
    geometry: Geometry
    has_places: bool
    parity: Parity
    weights_digest: str

    def __call__(self, image: ArrayLike) -> Code:
        pixels.check_type(image, name=self.name)
        image = jnp.asarray(image)
        if image.shape != self.image_shape:
            raise Refused(
                f"{self.name} takes images of {list(self.image_shape)}, not "
                f"{list(image.shape)}; for others, bridge it with their image_shape"
            )
        mean, std = (
            jnp.broadcast_to(value.astype(image.dtype), image.shape)
            for value in (self.mean, self.std)
        )
        code = _evaluate(
            self.program, self.weights, (image - mean) / std, self.relaxation
        )
        return code.astype(image.dtype)

    def relaxed(self, amount: Scalar) -> "BridgedRepresentation":
        """Returns a representation with the same codes and a relaxed derivative.

        Args:
          amount: 0 for the exact derivative, 1 for the fully relaxed one.
        """
        return dataclasses.replace(self, relaxation=Relaxation.of(amount))

    @property
    def depth(self) -> int:
        """The number of layers with weights below the cut, as far as can be told."""
        return sum(weight.ndim > 1 for weight in self.weights.values())

    def __repr__(self) -> str:
        field, stride = self.geometry.receptive_field, self.geometry.stride
        gradient = self.parity.gradient
        return (
            f"<{self.name}: image {list(self.image_shape)} -> code "
            f"{list(self.geometry.shape)}, receptive field {field} px, stride {stride} "
            f"px, {self.parity.code:.0e} from the framework's own code"
            f"{'' if gradient is None else f' and {gradient:.0e} from its gradient'}>"
        )


# Inlined, so that a compiled step holds the equations themselves.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _evaluate(
    equations: Program,
    weights: dict[str, Array],
    x: Array,
    relaxation: Relaxation | None,
) -> Array:
    return program.evaluate(equations, weights, x, relaxation)


# --- what a bridge is given ---


class Preprocessing(NamedTuple):
    """What is done to an image before the network sees it, checked.

    Attributes:
      image_shape: (h, w, c) of the image, in [0, 1].
      mean: subtracted from it; broadcasts to it.
      std: it is divided by that after; broadcasts to it.
      centre: grey levels around which inversions begin.
      layout: one of `LAYOUTS`, in which the network takes it.
    """

    image_shape: tuple[int, int, int]
    mean: np.ndarray
    std: np.ndarray
    centre: np.ndarray
    layout: str

    @classmethod
    def of(
        cls, image_shape: Any, *, mean: Any, std: Any, layout: str
    ) -> "Preprocessing":
        """The preprocessing, from what the caller of a bridge has given.

        Args:
          image_shape: (h, w, c).
          mean: a number, one per channel, or an image; None for 0.
          std: the same; None for 1.
          layout: one of `LAYOUTS`.

        Raises:
          ValueError: one of them is not what is accepted; the message says what is.
        """
        shape = _checked_shape(image_shape)
        if layout not in LAYOUTS:
            raise Refused(
                f"layout is {layout!r}; {', '.join(LAYOUTS)} are accepted, where N is "
                "a batch axis of one image"
            )
        subtracted = _checked_colour("mean", mean, 0.0, shape)
        if np.any(subtracted < 0):
            raise Refused(f"mean is {mean}; numbers from 0 to 1 are accepted")
        divisor = _checked_colour("std", std, 1.0, shape)
        if np.any(divisor <= 0):
            raise Refused(f"std is {std}; numbers above 0, to 1, are accepted")
        grey = np.full(shape[-1:], _MID_GREY, np.float32)
        centre = grey if mean is None else np.float32(255) * subtracted
        return cls(shape, subtracted, divisor, centre, layout)

    def arranged(self, x: Any) -> Any:
        """An image [h, w, c] in the network's layout."""
        x = x.transpose(2, 0, 1) if self.layout in ("NCHW", "CHW") else x
        return x[None] if self.has_batch else x

    @property
    def has_batch(self) -> bool:
        """Whether the network takes a batch."""
        return self.layout.startswith("N")

    def unbatched(self, code: Any) -> Any:
        """A layer's output without the batch axis, if its first axis is one."""
        return code[0] if self.has_batch and tuple(code.shape[:1]) == (1,) else code


def _checked_shape(given: Any) -> tuple[int, int, int]:
    try:
        shape = tuple(map(operator.index, given))
    except TypeError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise Refused(f"image_shape is {given}; (height, width, channels) is accepted")
    height, width, channels = shape
    if height in (1, 3) and min(width, channels) > 4:
        raise Refused(
            f"image_shape is {shape}, with the channels first; (height, width, "
            f"channels) is accepted, here {(width, channels, height)}"
        )
    return (height, width, channels)


def _checked_colour(
    name: str, given: Any, otherwise: float, shape: tuple[int, int, int]
) -> np.ndarray:
    value = np.asarray(otherwise if given is None else given, np.float32)
    channels = shape[-1]
    if value.shape not in ((), (channels,), shape):
        raise Refused(
            f"{name} has shape {value.shape}; a number, one per channel "
            f"({channels}), or an image of {list(shape)} is accepted"
        )
    if not np.all(np.isfinite(value)):
        raise Refused(f"{name} is {given}; finite numbers are accepted")
    if np.any(value > 1):
        raise Refused(
            f"{name} is {given if value.ndim < 3 else 'above 1'}, which looks like "
            "grey levels; images are in [0, 1] here, and so are their mean and std: "
            "divide it by 255"
        )
    return np.broadcast_to(value, (channels,)) if value.ndim < 2 else value


# --- what a bridge makes ---

Reference = Callable[
    [dict[str, Array], np.ndarray], tuple[np.ndarray, np.ndarray | None]
]
"""(weights, preprocessed image [h, w, c]) -> the framework's own (code, gradient).

The gradient is that of the code's inner product with `direction` of its shape.
"""


def direction(shape: tuple[int, ...]) -> np.ndarray:
    """The fixed direction in which gradients are compared, float32.

    Args:
      shape: shape of the code.
    """
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def build(
    traced: Traced,
    fetch: Callable[[str], Any],
    reference: Reference,
    preprocessing: Preprocessing,
    *,
    name: str,
    framework: str,
) -> BridgedRepresentation:
    """Makes the representation of what a framework's network computes.

    Args:
      traced: the equations.
      fetch: from the name of a weight to its array.
      reference: the framework's own computation.
      preprocessing: what is done to an image before.
      name: "network/layer".
      framework: its name, for messages.

    Raises:
      ValueError: the code does not depend on the image, is not of floating-point
        numbers, or differs from the framework's own.
    """
    equations = traced.program
    if not jnp.issubdtype(equations.code_dtype, jnp.floating):
        raise Refused(
            f"{name} is of {equations.code_dtype}, which has no derivative; a layer of "
            "floating-point numbers is accepted"
        )
    if equations.image is None:
        raise Refused(f"{name} does not depend on the image; choose another layer")
    arrays = {
        key: traced.constants[key] if key in traced.constants else fetch(key)
        for key, _ in equations.weights
    }
    # Of the types that were traced, which have 32 bits.
    weights = {
        key: jnp.asarray(arrays[key], program.dtype_of(variable))
        for key, variable in equations.weights
    }
    image = np.random.default_rng(0).uniform(size=preprocessing.image_shape)
    x = ((image - preprocessing.mean) / preprocessing.std).astype(np.float32)

    def value_and_pull(
        cotangent: np.ndarray, amount: float
    ) -> tuple[np.ndarray, np.ndarray]:
        relaxation = Relaxation(jnp.float32(amount), jnp.float32(amount))
        found = _value_and_pull(equations, weights, x, cotangent, relaxation)
        return jax.device_get(found)

    along = direction(equations.code_shape)
    found = value_and_pull(along, 0.0)
    parity = _compared(
        found, reference(weights, x), equations, name=name, framework=framework
    )
    probed = probing.probe(
        lambda cotangent: value_and_pull(cotangent, 1.0)[1],
        name.partition("/")[2],
        equations.code_shape,
        preprocessing.image_shape,
    )
    return BridgedRepresentation(
        weights=weights,
        mean=jnp.asarray(preprocessing.mean),
        std=jnp.asarray(preprocessing.std),
        centre=jnp.asarray(preprocessing.centre),
        relaxation=None,
        name=name,
        program=equations,
        image_shape=preprocessing.image_shape,
        geometry=probed.geometry,
        has_places=probed.has_places,
        parity=parity,
        weights_digest=_digest(arrays),
    )


# One program for the comparison and for all probes.
@functools.partial(jax.jit, static_argnums=0)
def _value_and_pull(
    equations: Program,
    weights: dict[str, Array],
    x: ArrayLike,
    cotangent: ArrayLike,
    relaxation: Relaxation,
) -> tuple[Array, Array]:
    code, pull = jax.vjp(
        lambda x: program.evaluate(equations, weights, x, relaxation), x
    )
    return code.astype(jnp.float32), pull(jnp.asarray(cotangent, code.dtype))[0]


def _compared(
    found: tuple[np.ndarray, np.ndarray],
    wanted: tuple[np.ndarray, np.ndarray | None],
    equations: Program,
    *,
    name: str,
    framework: str,
) -> Parity:
    if found[0].shape != wanted[0].shape:
        raise Refused(
            f"{name} has shape {list(found[0].shape)} here and {list(wanted[0].shape)} "
            f"in {framework}, so it cannot be bridged"
        )
    gradient = None if wanted[1] is None else _distance(found[1], wanted[1])
    parity = Parity(_distance(found[0], wanted[0]), gradient)
    if not parity.code <= _largest_error(equations):
        raise Refused(
            f"{name} is {parity.code:.1%} from {framework}'s own code of one image, so "
            "it cannot be bridged; a layer below may agree"
        )
    return parity


def _distance(found: np.ndarray, wanted: np.ndarray) -> float:
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    norm = float(np.linalg.norm(wanted)) or 1.0
    return float(np.linalg.norm(found - wanted)) / norm


def _largest_error(equations: Program) -> float:
    kinds: list[Any] = [equations.code_dtype]
    kinds += [program.dtype_of(variable) for _, variable in equations.weights]
    if any(jnp.issubdtype(kind, jnp.floating) and kind.itemsize < 4 for kind in kinds):
        return _LARGEST_ERROR_OF_HALVES
    if jax.default_backend() == "cpu":
        return _LARGEST_ERROR
    # Matrix products of float32 are rounded to fewer bits there.
    return _LARGEST_ERROR_ON_ACCELERATORS


def _digest(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        array = np.asarray(array)
        line = f"{name} {array.dtype} {array.shape} {checkpoints.tensor_digest(array)}"
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


# --- what bridges say ---


def require(package: str, *, extra: str, caller: str) -> None:
    """Raises an error that says how to install a package, unless it is installed.

    Args:
      package: name of the package.
      extra: the extra of invjax that has it.
      caller: the function that needs it.

    Raises:
      MissingFramework: it is not installed.

    Examples:
      >>> require("jax", extra="test", caller="from_jax")
    """
    if importlib.util.find_spec(package) is None:
        raise MissingFramework(
            f"{caller} needs {package}, which is not installed; the extra has it: "
            f"pip install 'invjax[{extra}]'"
        )


def check_layer(layer: Any, names: Iterable[str], *, network: str, lister: str) -> None:
    """Raises an error with close names, unless a network has a layer.

    Args:
      layer: what the caller asked for.
      names: the layers' names.
      network: name of the network.
      lister: the function that lists its layers.

    Raises:
      ValueError: it has no such layer.

    Examples:
      >>> check_layer("convl", ["conv1", "fc2"], network="net", lister="layers")
      Traceback (most recent call last):
      ...
      invjax...Refused: net has no layer 'convl'; close are conv1; layers lists all 2
    """
    known = list(names)
    if layer in known:
        return
    close = difflib.get_close_matches(str(layer), known, n=4, cutoff=0.4)
    # Names are paths, and what people forget is their beginning.
    close += [name for name in known if name.endswith((f".{layer}", f"/{layer}"))][:4]
    found = f"; close are {', '.join(dict.fromkeys(close))}" if close else ""
    raise Refused(
        f"{network} has no layer {layer!r}{found}; {lister} lists all {len(known)}"
    )


def chosen(output: Any, part: int | str | None, *, layer: str, kind: type) -> Any:
    """The array among what a layer returns.

    Args:
      output: what it returns.
      part: position or name of the array; None for the only one, alone or beside what
        is none, such as a state.
      layer: name of the layer.
      kind: the framework's type of arrays.

    Raises:
      Refused: that is no array, or there are several.

    Examples:
      >>> chosen((1.0, "state"), None, layer="cell", kind=float)
      1.0
      >>> chosen((1.0, 2.0), None, layer="cell", kind=float)
      Traceback (most recent call last):
      ...
      invjax...Refused: layer 'cell' returns a tuple and not one array; output=0 or 1
      chooses one
    """
    if isinstance(output, kind):
        return output
    parts: dict[Any, Any] = {}
    if isinstance(output, Mapping):
        parts = dict(output.items())
    elif isinstance(output, tuple | list):
        parts = dict(enumerate(output))
    arrays = {key: value for key, value in parts.items() if isinstance(value, kind)}
    if part in arrays:
        return arrays[part]
    if part is None and len(arrays) == 1:
        return next(iter(arrays.values()))
    choices = " or ".join(map(repr, arrays))
    told = f"output={choices} chooses one" if arrays else "choose another layer"
    article = "an" if type(output).__name__[0] in "AEIOaeio" else "a"
    missing = "" if part is None else f", and has no array {part!r}"
    raise Refused(
        f"layer {layer!r} returns {article} {type(output).__name__} and not one array"
        f"{missing}; {told}"
    )


def not_computed(
    name: str,
    preprocessing: Preprocessing,
    error: Exception,
    *,
    computes: Callable[[Preprocessing], bool],
) -> Refused:
    """The error to be raised where a network fails on an image.

    Args:
      name: name of the network, or of its layer.
      preprocessing: what the network was given.
      error: what it raised.
      computes: whether it can be computed with another preprocessing.
    """
    others = [
        layout
        for layout in LAYOUTS
        if layout != preprocessing.layout
        and computes(preprocessing._replace(layout=layout))
    ]
    hint = f"; with layout={others[0]!r} it can" if others else ""
    return Refused(
        f"{name} cannot be computed for image_shape {preprocessing.image_shape} and "
        f"layout {preprocessing.layout!r} ({first_line(error)}){hint}"
    )


def first_line(error: Exception) -> str:
    """What an error says, in one line without a full stop.

    Examples:
      >>> first_line(ValueError("no such place.\\nMore is said here."))
      'no such place'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
