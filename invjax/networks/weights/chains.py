"""Chains of layers in the files of Caffe and MatConvNet, compared with a layer table.

Their files say the kind, stride, padding and normalisation constants of every layer.
These are compared with the layer table as strictly as the tensors are, since CaffeNet
and Caffe's AlexNet have tensors of the same shapes. A pool's padding at the bottom and
right and its rounding are compared by their effect, the size of its output: Caffe
rounds sizes up, and MatConvNet's files have padding for that.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from invjax.networks.layers import (
    Conv,
    Dense,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Network,
    Relu,
    geometry,
    sides,
    weighted,
)
from invjax.networks.weights import conversion
from invjax.networks.weights.conversion import ConversionError, Params
from invjax.networks.weights.torch_layouts import dense

Option: TypeAlias = str | bool | float | tuple[int, ...]
"""The value of an option; a pair is (vertical, horizontal)."""

# Kinds of layers in a chain, as they are called in messages. Any other kind is called
# by the file's name for it.
CONVOLUTION, DENSE, RELU = "convolution", "dense layer", "ReLU"
POOL, NORM = "pool", "local response normalisation"

_KNOWN = {CONVOLUTION, DENSE, RELU, POOL, NORM}

# Names of two options.
OUTPUTS, _SIZE = "outputs", "output size"

# Layers of both formats, in small letters without underlines. The first do nothing to
# an activation when a network is evaluated; what the others compute is no part of the
# code, and no layer of the table may come after them.
IDLE = {"dropout", "split", "silence"}
INPUTS = {
    "annotateddata",
    "data",
    "dummydata",
    "hdf5data",
    "imagedata",
    "input",
    "memorydata",
    "windowdata",
}
_ENDS = {"accuracy", "argmax", "error", "hdf5output", "softmax"}


def has_no_part(kind: str) -> bool:
    """Whether a layer of a kind reads images, or computes a loss or something like it.

    Args:
      kind: the kind, in small letters without underlines.

    Examples:
      >>> has_no_part("hdf5data"), has_no_part("softmaxwithloss"), has_no_part("relu")
      (True, True, False)
    """
    return kind in INPUTS or _is_end(kind)


def _is_end(kind: str) -> bool:
    """Whether a layer of a kind computes a loss, or what comes after the code."""
    return kind in _ENDS or kind.endswith("loss")


# More numbers than any option has.
_MOST = 16


class Link(NamedTuple):
    """A layer of a chain.

    Attributes:
      name: name of the layer in the file.
      kind: what it is, as "convolution".
      options: all that the file says about what it does, by the option's name.
      kernel: [h, w, in, out], or [out, in] for a dense layer of Caffe; None without.
      bias: [out]; None without.
      inputs: names of the activations that it takes; empty where the file has none.
      outputs: names of the activations that it gives.
      pads: rows and columns that a pool adds: top, bottom, left, right.
      rounding: whether a pool's sizes are rounded "up" or "down".
    """

    name: str
    kind: str
    options: Mapping[str, Option] = {}
    kernel: np.ndarray | None = None
    bias: np.ndarray | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    pads: tuple[int, ...] = (0, 0, 0, 0)
    rounding: str = "down"


def follow(links: Sequence[Link]) -> list[Link]:
    """The layers that compute the code, each from the one before it.

    Inputs, losses, dropout and other layers that have no part in the function are left
    out. A layer of an unknown kind that takes nothing and gives something is an input.

    Args:
      links: the file's layers, in the order in which they are computed.

    Raises:
      conversion.ConversionError: a layer takes more than one activation or another one
        than the layer before it gives, or comes after a softmax or a loss.
    """
    chain: list[Link] = []
    current: set[str] = set()  # names of the last activation; empty: not known
    ended: Link | None = None
    for link in links:
        is_source = bool(link.outputs) and not link.inputs
        if link.kind in INPUTS or (is_source and link.kind not in _KNOWN):
            continue
        if _is_end(link.kind):
            ended = ended or link
            if current & set(link.outputs):
                current = set()  # it replaces the activation
            continue
        takes = set(link.inputs)
        if link.kind in IDLE:
            if takes & current:
                current = current.union(link.outputs)
            continue
        if len(takes) > 1:
            raise ConversionError(
                f"layer {link.name}: takes {len(takes)} inputs; a chain of layers, "
                "each with one input, is accepted"
            )
        if current and takes and not takes & current:
            raise ConversionError(
                f"layer {link.name}: takes {say(link.inputs[0])}, but the layer before "
                f"it, {chain[-1].name}, gives {say(chain[-1].outputs[0])}"
            )
        if ended is not None and not (current and takes):
            raise ConversionError(
                f"layer {link.name}: comes after {ended.name}, a {ended.kind} layer"
            )
        chain.append(link)
        current = set(link.outputs)
    return chain


def in_order(links: Sequence[Link]) -> list[Link]:
    """Layers in an order in which each comes after those whose outputs it takes.

    Args:
      links: the layers; they have `inputs` and `outputs`.

    Raises:
      conversion.ConversionError: layers take each other's outputs in a circle.
    """
    waiting, ordered = list(links), []
    while waiting:
        pending = {name for link in waiting for name in link.outputs}
        for link in waiting:
            if not pending & set(link.inputs):
                break
        else:
            raise ConversionError(
                f"layer {waiting[0].name}: takes what only later layers give"
            )
        waiting.remove(link)
        ordered.append(link)
    return ordered


def fit(chain: Sequence[Link], network: Network) -> Params:
    """The parameters in a chain, after comparing it with the table layer by layer.

    Args:
      chain: the file's layers, as `follow` returns them.
      network: the network that they should be.

    Returns:
      Parameters of all layers, or of those that the chain has if it ends early, or of
      all but the last if that one has another number of outputs.

    Raises:
      conversion.ConversionError: a layer is of another kind, or an option or tensor has
        another value than the table's; the message has the layer's name in the file,
        the option, and both values, of up to eight differences.
    """
    rows = geometry(network.layers, network.image_shape)
    shapes = [network.image_shape, *(row.shape for row in rows)]
    problems: list[str] = []
    kept = min(len(chain), len(network.layers))
    for place, (layer, link) in enumerate(zip(network.layers, chain, strict=False)):
        kind, options = _of_table(layer, shapes[place], shapes[place + 1])
        if link.kind != kind and (link.kind, kind) != (CONVOLUTION, DENSE):
            problems.append(
                f"layer {link.name}: {with_article(link.kind)}, but invjax's "
                f"{network.name} has {with_article(kind)} there, {layer.name}"
            )
            if len(chain) != len(network.layers):
                break  # what follows is compared with the wrong layers
            continue
        if kind == POOL:
            size = _pooled(link, shapes[place])
            link = link._replace(options={**link.options, _SIZE: size})
        found = list(_differences(link, options))
        is_last = place == len(network.layers) - 1 and len(chain) == place + 1
        if is_last and isinstance(layer, Dense) and found == [OUTPUTS]:
            kept -= 1  # trained for another number of classes
            continue
        problems += [
            f"layer {link.name}: {option} {say(link.options[option])}"
            f"{_rounding(option, link)}, but invjax's {network.name} has "
            f"{say(options[option])}"
            for option in found
        ]
    if not problems and len(chain) > len(network.layers):
        extra = chain[len(network.layers)]
        problems.append(
            f"layer {extra.name}: {with_article(extra.kind)}, but invjax's "
            f"{network.name} ends with {network.layer_names[-1]}"
        )
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ConversionError("; ".join(problems[:8]) + more)
    return _tensors(chain[:kept], network)


def _tensors(chain: Sequence[Link], network: Network) -> Params:
    """The parameters in the layers of a chain, which are the table's first ones."""
    flat = {}
    for layer, link in zip(network.layers, chain, strict=False):
        if link.kernel is not None and link.bias is not None:
            flat[f"{layer.name}/kernel"] = link.kernel
            flat[f"{layer.name}/bias"] = link.bias
    names = {layer.name for layer in network.layers[: len(chain)]}
    expected = {
        name: shape
        for name, shape in conversion.all_shapes(network).items()
        if name.split("/")[0] in names
    }
    if not expected:
        raise ConversionError("the file has no layer with weights")
    for name, layer, row in weighted(network.layers, network.image_shape):
        kernel = flat.get(f"{name}/kernel")
        if not isinstance(layer, Dense) or kernel is None:
            continue
        # A dense layer is a convolution over all of its input in MatConvNet, and a
        # matrix for an input flattened as [c, h, w] in Caffe.
        if kernel.ndim == 4 and kernel.shape[:3] == (*row.shape, 1, 1)[:3]:
            flat[f"{name}/kernel"] = kernel.reshape(-1, kernel.shape[-1])
        elif kernel.ndim == 4 and kernel.shape[:3] == (1, 1, *row.shape):
            flat[f"{name}/kernel"] = kernel.reshape(-1, kernel.shape[-1])
        elif kernel.ndim == 2 and kernel.shape == expected[f"{name}/kernel"][::-1]:
            flat[f"{name}/kernel"] = dense(kernel, row.shape)
    return conversion.nest(conversion.strict(flat, expected))


def _rounding(option: str, link: Link) -> str:
    """How a pool's output size comes about, where the message is about that."""
    return f", rounded {link.rounding}" if option == _SIZE else ""


def _of_table(
    layer: Layer, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[str, dict[str, Option]]:
    """Kind and options of a table's layer, with all names that files have for them.

    Args:
      layer: the layer.
      before: shape of its input.
      after: shape of its output.
    """
    match layer:
        case Conv(kernel=size, stride=stride, padding=padding, groups=groups):
            return CONVOLUTION, {
                "kernel": (size, size),
                "stride": (stride, stride),
                "padding": (*sides(padding), *sides(padding)),
                "dilation": (1, 1),
                "group": groups,
                "filter depth": before[-1] // groups,
                OUTPUTS: layer.features,
                "bias": True,
                "axis": 1,
            }
        case Dense():
            return DENSE, {
                "kernel": before[:2] if len(before) == 3 else (1, 1),
                "stride": (1, 1),
                "padding": (0, 0, 0, 0),
                "dilation": (1, 1),
                "group": 1,
                "filter depth": before[-1],
                OUTPUTS: layer.features,
                "bias": True,
                "axis": 1,
                "transpose": False,
            }
        case MaxPool(window=window, stride=stride, padding=padding):
            return POOL, {
                "method": "max",
                "kernel": (window, window),
                "stride": (stride, stride),
                "padding": (sides(padding)[0],) * 2,
                "dilation": (1, 1),
                _SIZE: after[:2],
                "global_pooling": False,
                "axis": 1,
            }
        case LocalResponseNorm(size=size, kappa=kappa, alpha=alpha, beta=beta):
            return NORM, {
                "size": size,
                "kappa": kappa,
                "alpha": alpha,
                "alpha / size": alpha,
                "beta": beta,
                "norm_region": "ACROSS_CHANNELS",
            }
        case Relu(ceiling=None):
            return RELU, {"negative_slope": 0.0, "leak": 0.0}
    return type(layer).__name__, {}


def _pooled(link: Link, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of a file's pool whose input has shape (h, w, c).

    Padding at the bottom and right changes no value, only the size.
    """
    window, stride = link.options["kernel"], link.options["stride"]
    if not (isinstance(window, tuple) and isinstance(stride, tuple)):
        return ()
    found = []
    for axis in (0, 1):
        before, after = link.pads[2 * axis : 2 * axis + 2]
        steps = shape[axis] + before + after - window[axis]
        if link.rounding == "up":
            size = -(-steps // stride[axis]) + 1
            # Caffe drops a last window that would begin in the padding.
            if (before or after) and (size - 1) * stride[axis] >= shape[axis] + before:
                size -= 1
        else:
            size = steps // stride[axis] + 1
        found.append(size)
    return tuple(found)


def _differences(link: Link, ours: Mapping[str, Option]) -> Iterator[str]:
    """Names of the options of a file's layer that are not those of the table's."""
    for name, theirs in link.options.items():
        mine = ours[name]
        if isinstance(theirs, float) and isinstance(mine, int | float):
            if not math.isclose(theirs, mine, rel_tol=1e-4):
                yield name
        elif theirs != mine:
            yield name


def say(value: Any) -> str:
    """A value in one short line; equal numbers of a tuple as one, others joined.

    Examples:
      >>> say((3, 3)), say((3, 2)), say(True), say("MAX")
      ('3', '3x2', 'true', 'MAX')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, tuple) and value:
        parts = [say(part) for part in value]
        return parts[0] if len(set(parts)) == 1 else "x".join(parts)
    letters = (letter if letter.isprintable() else "?" for letter in str(value)[:60])
    return "".join(letters)


def with_article(kind: str) -> str:
    """A kind of layer with its article.

    Examples:
      >>> with_article("pool"), with_article("ELU")
      ('a pool', 'an ELU layer')
    """
    own = kind in (CONVOLUTION, DENSE, POOL, NORM)
    noun = kind if own else f"{say(kind)} layer".strip()
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def unknown(names: Sequence[str]) -> str:
    """Names of unknown options, as the middle of a sentence.

    Examples:
      >>> f"layer relu1: has {unknown(['leek'])} not known"
      'layer relu1: has an option leek that is not known'
    """
    some = ", ".join(map(say, names[:6]))
    return (
        f"an option {some} that is" if len(names) == 1 else f"options {some} that are"
    )


class Options:
    """The options of a layer's record, each of which must be read or be ignored.

    The values are as the files have them: lists in a .prototxt, arrays in a .mat file.
    Methods that read an option raise ConversionError if it has no sense.

    Attributes:
      layer: name of the layer, for messages.
    """

    def __init__(
        self,
        layer: str,
        values: Mapping[str, Any],
        ignored: frozenset[str] = frozenset(),
    ) -> None:
        self.layer = layer
        self._left = {
            name: value for name, value in values.items() if name not in ignored
        }

    def take(self, name: str, default: Any = None) -> Any:
        """The value of an option as the file has it, or the default."""
        return self._left.pop(name, default)

    def give(self, name: str, value: Any) -> None:
        """Adds an option that the file keeps elsewhere."""
        self._left[name] = value

    def has(self, name: str) -> bool:
        """Whether the option is there and was not read yet."""
        return name in self._left

    def reals(
        self, name: str, default: tuple[float, ...], count: int | None = None
    ) -> tuple[float, ...]:
        """The numbers of an option; `count` is how many there must be."""
        value = self.take(name)
        if value is None:
            return default
        numbers: list[float] = []
        for item in as_list(value)[: _MOST + 1]:
            if not isinstance(item, int | float) or item != item:
                raise ConversionError(
                    f"layer {self.layer}: {name} is {say(item)!r}, not a number"
                )
            numbers.append(float(item))
        if not 0 < len(numbers) <= _MOST or count not in (None, len(numbers)):
            raise ConversionError(
                f"layer {self.layer}: {name} has {len(numbers)} values, not "
                f"{count or 'one'}"
            )
        return tuple(numbers)

    def wholes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """The whole numbers of an option."""
        numbers = self.reals(name, default)
        for number in numbers:
            if abs(number) > 2**31 or number != int(number):
                raise ConversionError(
                    f"layer {self.layer}: {name} is {number:g}; whole numbers are "
                    "accepted"
                )
        return tuple(int(number) for number in numbers)

    def pair(self, name: str, default: int) -> tuple[int, int]:
        """One whole number for both directions, or one each."""
        numbers = self.wholes(name, (default,))
        if len(numbers) > 2:
            raise ConversionError(
                f"layer {self.layer}: {name} has {len(numbers)} values; one or two "
                "are accepted"
            )
        return numbers[0], numbers[-1]

    def both(self, base: str, short: str, default: int) -> tuple[int, int]:
        """Caffe's option for both directions, or the ones for each (`pad_h`, ...)."""
        if not (self.has(f"{short}_h") or self.has(f"{short}_w")):
            return self.pair(base, default)
        if self.has(base):
            raise ConversionError(
                f"layer {self.layer}: has both {base} and {short}_h or {short}_w"
            )
        height, width = (
            self.pair(f"{short}_h", default),
            self.pair(f"{short}_w", default),
        )
        return height[0], width[0]

    def word(self, name: str, names: Mapping[str, str]) -> str:
        """The value of an enumeration in our words, which `names` has.

        The first of them is the default; a value that is not among them stays.
        """
        value = self.take(name)
        if value is None:
            return next(iter(names.values()))
        said = say(tuple(as_list(value)[-1:]))
        return names.get(said, said)

    def flag(self, name: str, default: bool) -> bool:
        """An option that is true or false."""
        value = self.take(name)
        if value is None:
            return default
        said = say(tuple(as_list(value)[-1:]))
        if said.lower() not in ("true", "false", "t", "f", "0", "1"):
            raise ConversionError(
                f"layer {self.layer}: {name} is {said!r}; true and false are accepted"
            )
        return said.lower() in ("true", "t", "1")

    def finish(self) -> None:
        """Raises ConversionError if an option was neither read nor ignored."""
        if self._left:
            raise ConversionError(
                f"layer {self.layer}: has {unknown(sorted(self._left))} not known"
            )


def as_list(value: Any) -> list[Any]:
    """The values in a list or array, or a value as a list."""
    if isinstance(value, np.ndarray):
        return list(value.ravel()[: _MOST + 1].tolist())
    return list(value) if isinstance(value, list | tuple) else [value]


def positive(layer: str, stride: tuple[int, ...]) -> tuple[int, ...]:
    """A stride; raises ConversionError if a part of it is not positive."""
    if min(stride) < 1:
        raise ConversionError(f"layer {layer}: stride is {say(stride)}; 1 is the least")
    return stride
