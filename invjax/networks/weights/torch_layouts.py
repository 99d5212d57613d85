"""PyTorch state dicts -> parameters of a layer table.

`torch_names` has the names that are known. PyTorch's kernels are [out, in, h, w], and
[out, in] in dense layers, whose inputs are flattened as [c, h, w]. Kernels of invjax
are [h, w, in, out], and [in, out] in dense layers, whose inputs are flattened as
[h, w, c]. Batch normalisation is folded into the convolution before it, which changes
nothing but rounding, and so is a layer scale into the layer before it, and a class
token into its position; `batch_norm` keeps what normalisation knew about the outputs.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from invjax.networks import layers
from invjax.networks.layers import (
    Attention,
    Conv,
    Dense,
    DepthwiseConv,
    LayerNorm,
    Network,
    Pointwise,
    Tokens,
    Weighted,
)
from invjax.networks.weights import batch_norm, conversion, pickles, state_dicts
from invjax.networks.weights.batch_norm import Moments, Statistics
from invjax.networks.weights.conversion import ConversionError, Params
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.torch_names import Layout, Scope, layouts_of

_NORM = ("weight", "bias", "running_mean", "running_var")


class NoTensors(ConversionError):
    """A file in which no tensor has a name of the network."""


class Fit(NamedTuple):
    """What a state dict has of a network.

    Attributes:
      params: parameters of the layers from the image up to where the file fits.
      notes: what was left out, in words; empty if nothing was.
      statistics: moments of the outputs of convolutions that were normalised.
      preprocessing: the one that is documented for files with these names; None where
        it is that of the network's usual file.
    """

    params: Params
    notes: tuple[str, ...]
    statistics: Statistics
    preprocessing: Preprocessing | None = None


def from_torch(tree: Any, network: Network) -> Params:
    """Parameters from a file of the network's original implementation; see `fit`."""
    return fit(tree, network).params


def fit(tree: Any, network: Network) -> Fit:
    """Parameters from a file of the network's original implementation.

    Containers and prefixes around the tensors are found by `state_dicts.find`.
    `num_batches_tracked`, a counter of training steps, is dropped. Layers at the end
    may be missing, as in a file of the convolutions only, and dense layers at the end
    (or a 1 x 1 convolution to classes) may have other sizes, as a last layer for other
    classes: then the layers below are converted. Anything else that the network does
    not have is refused.

    Args:
      tree: the file's contents: mappings of names to tensors, or to mappings.
      network: the network that it should be.

    Raises:
      conversion.ConversionError: tensors are missing, unexpected or misshapen (all are
        listed) or not floating-point numbers, or several networks are in the file, or
        no layout is known for the network.
      NoTensors: no tensor has a name of the network.
    """
    layouts = layouts_of(network)
    choices = [tensor_shapes(layout, network) for layout in layouts]
    match = state_dicts.find(tree, choices)
    if match is None:
        names = [*map(".".join, pickles.arrays(tree))]
        raise NoTensors(
            f"no tensor has a name of {network.name}, as {next(iter(choices[0]))}; the "
            f"file has {_list(names) if names else 'no tensors with names'}"
        )
    layout, wanted = layouts[match.choice], choices[match.choice]
    beside = [name for name in match.unexpected if name.startswith(layout.beside)]
    unexpected = {n: a for n, a in match.unexpected.items() if n not in beside}
    match = match._replace(unexpected=unexpected, beside=(*match.beside, *beside))
    count, notes = _fitting(match, layout, wanted, network)
    if match.others:
        source, *others = (
            prefix or "the top level" for prefix in (match.prefix, *match.others)
        )
        notes = (*notes, f"read from {source}, not from {_list(others)}")
    if match.beside:
        notes = (*notes, f"without {_list(match.beside)}, no part of the network")
    table = network.layers[:count]
    params, statistics = _convert(match.arrays, layout, table, network)
    return Fit(params, notes, statistics, layout.preprocessing)


def _convert(
    arrays: Mapping[str, np.ndarray],
    layout: Layout,
    table: tuple[layers.Layer, ...],
    network: Network,
) -> tuple[Params, Statistics]:
    """Parameters and statistics of the layers in `table`, from tensors that fit."""
    flat: dict[str, np.ndarray] = {}
    moments: dict[str, Moments] = {}
    for name, layer, row in layers.weighted(table, network.image_shape):
        scope = layout.scopes[name]
        shapes = dict(_tensors(scope, layer, row.shape))
        found = {n: _floats(arrays, n).reshape(shape) for n, shape in shapes.items()}
        norm = {leaf: found[f"{scope.norm}.{leaf}"] for leaf in _NORM if scope.norm}
        if norm:
            moments[name] = batch_norm.moments_of(norm, layout.epsilon)
        leaves = _leaves(scope, layer, found, norm, row.shape, layout.epsilon)
        flat |= {f"{name}/{leaf}": array for leaf, array in leaves.items()}
    expected = layers.parameter_shapes(table, network.image_shape)
    params = conversion.nest(conversion.strict(flat, expected))
    return params, Statistics(moments)


def _leaves(
    scope: Scope,
    layer: Weighted,
    found: Mapping[str, np.ndarray],
    norm: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    epsilon: float,
) -> dict[str, np.ndarray]:
    """The parameters of a layer.

    Args:
      scope: where they are.
      layer: the layer.
      found: its tensors by name.
      norm: those of the batch normalisation after it, by leaf; empty without.
      shape: shape of its input.
      epsilon: constant of the batch normalisation.
    """
    if isinstance(layer, Tokens):
        positions, token = (found[name] for name in scope.weight)
        return {"positions": np.concatenate([positions[:1] + token, positions[1:]])}
    weight = np.concatenate([found[name] for name in scope.weight])
    if norm:
        weight, bias = fold(weight, norm, epsilon)
    elif scope.bias:
        bias = np.concatenate([found[name] for name in scope.bias])
    else:
        bias = np.zeros(len(weight), np.float32)
    if scope.gain is not None:
        gain = found[scope.gain]
        weight, bias = weight * gain.reshape(-1, *[1] * (weight.ndim - 1)), bias * gain
    match layer:
        case LayerNorm():
            return {"scale": weight, "bias": bias}
        case Conv() | DepthwiseConv():
            return {"kernel": convolution(weight), "bias": bias}
        case Dense():
            return {"kernel": dense(weight, shape), "bias": bias}
    return {"kernel": np.ascontiguousarray(weight.T), "bias": bias}


def _floats(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A tensor as float32, from floating-point numbers of any size."""
    array = arrays[name]
    if not jnp.issubdtype(array.dtype, np.floating):
        raise ConversionError(
            f"{name} is {array.dtype}; floating-point numbers are accepted"
        )
    return array.astype(np.float32)


def tensor_shapes(layout: Layout, network: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a state dict."""
    return {
        tensor: shape
        for name, layer, row in layers.weighted(network.layers, network.image_shape)
        for tensor, shape in _tensors(layout.scopes[name], layer, row.shape)
    }


def _tensors(
    scope: Scope, layer: Weighted, shape: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors of a layer whose input has shape `shape`."""
    if isinstance(layer, Tokens):
        positions, token = scope.weight
        yield positions, (1 + math.prod(shape[:-1]), shape[-1])
        yield token, shape[-1:]
        return
    features, *rest = _weight_shape(layer, shape)
    for name in scope.weight:
        yield name, (features // len(scope.weight), *rest)
    for name in scope.bias:
        yield name, (features // len(scope.bias),)
    if scope.norm is not None:
        for leaf in _NORM:
            yield f"{scope.norm}.{leaf}", (features,)
    if scope.gain is not None:
        yield scope.gain, (features,)


def _fitting(
    match: state_dicts.Match,
    layout: Layout,
    wanted: Mapping[str, tuple[int, ...]],
    network: Network,
) -> tuple[int, tuple[str, ...]]:
    """The number of layers of the table that a file has, and what it lacks in words.

    Raises:
      conversion.ConversionError: the file has another network.
    """
    arrays = match.arrays
    names: dict[str, list[str]] = {}
    for name, part, row in layers.weighted(network.layers, network.image_shape):
        tensors = [n for n, _ in _tensors(layout.scopes[name], part, row.shape)]
        names.setdefault(name.split("/")[0], []).extend(tensors)
    is_whole = {
        layer: all(
            name in arrays and state_dicts.fits(arrays[name], wanted[name])
            for name in tensors
        )
        for layer, tensors in names.items()
    }
    order = list(names)
    kept = list(itertools.takewhile(is_whole.__getitem__, order))
    rest = order[len(kept) :]
    absent = [layer for layer in rest if not any(n in arrays for n in names[layer])]
    others = [layer for layer in rest if layer not in absent]
    heads = {part.name for part in network.layers if _is_head(part)}
    # What is left out must lie above all that is kept, or it could belong below.
    below = {name.split(".")[0] for layer in kept for name in names[layer]}
    above = [f"{n.rpartition('.')[0]}." for layer in rest for n in names[layer]]
    above += [
        f"{start.split('.')[0]}." for start in above if start.split(".")[0] not in below
    ]
    if (
        not kept
        or any(map(is_whole.__getitem__, rest))
        or not all(
            layer in heads and all(n in arrays for n in names[layer])
            for layer in others
        )
        or not all(name.startswith(tuple(above)) for name in match.unexpected)
    ):
        shaped = {
            name: array.reshape(wanted[name])
            if name in wanted and state_dicts.fits(array, wanted[name])
            else array
            for name, array in (arrays | match.unexpected).items()
        }
        conversion.strict(shaped, wanted)
    notes = []
    for layer in others:
        name = names[layer][0]
        shape, given = wanted[name], arrays[name].shape
        if layer == order[-1] and given[1:] == shape[1:]:
            what = f"has {given[0]} classes, not {shape[0]}"
        else:
            what = f"is {given}, not {shape}"
        notes.append(f"{layer} {what}, and was left out")
    if absent:
        notes.append(f"the file has no {_list(absent)}")
    if match.unexpected:
        notes.append(f"without {_list(list(match.unexpected))} of the file")
    if not rest:
        return len(network.layers), tuple(notes)
    count = [layer.name for layer in network.layers].index(rest[0])
    return count, tuple(notes)


def _list(names: Sequence[str]) -> str:
    """Up to three names, and the number of the others.

    Examples:
      >>> _list(["fc8"]), _list(["fc6", "fc7"]), _list(["a", "b", "c", "d"])
      ('fc8', 'fc6 and fc7', 'a, b, c and 1 more')
    """
    *first, last = names if len(names) < 4 else [*names[:3], f"{len(names) - 3} more"]
    return f"{', '.join(first)} and {last}" if first else last


def _is_head(layer: layers.Layer) -> bool:
    """Whether a layer may have another number of classes in a file."""
    return isinstance(layer, Dense) or (isinstance(layer, Conv) and layer.kernel == 1)


def is_normalised(network: Network) -> bool:
    """Whether a network was trained with batch normalisation, which is folded here.

    Examples:
      >>> from invjax.networks import NETWORKS
      >>> is_normalised(NETWORKS["resnet50"]), is_normalised(NETWORKS["vgg16"])
      (True, False)
    """
    try:
        layouts = layouts_of(network)
    except ConversionError:
        return False
    return any(scope.norm for layout in layouts for scope in layout.scopes.values())


def fold(
    weight: np.ndarray, norm: Mapping[str, np.ndarray], epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Folds batch normalisation into the convolution before it, in float64.

    Args:
      weight: kernel of the convolution, [out, ...].
      norm: "weight", "bias", "running_mean" and "running_var" of the normalisation,
        [out] each.
      epsilon: constant added to the variance.

    Returns:
      Kernel [out, ...] and bias [out], float32.
    """
    leaves = {name: array.astype(np.float64) for name, array in norm.items()}
    gain = leaves["weight"] / np.sqrt(leaves["running_var"] + epsilon)
    bias = leaves["bias"] - leaves["running_mean"] * gain
    folded = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    return folded.astype(np.float32), bias.astype(np.float32)


def convolution(weight: np.ndarray) -> np.ndarray:
    """A convolution's kernel [out, in, h, w] as [h, w, in, out]."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def dense(weight: np.ndarray, input_shape: tuple[int, ...]) -> np.ndarray:
    """A dense layer's kernel [out, in] as [in, out].

    Args:
      weight: the kernel; its inputs were flattened as [c, h, w].
      input_shape: shape of the layer's input; if it is (h, w, c), inputs are reordered
        to that order.
    """
    if len(input_shape) == 3:
        height, width, channels = input_shape
        weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(weight.reshape(weight.shape[0], -1).T)


def _weight_shape(layer: Weighted, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of PyTorch's weight of a layer whose input has shape `shape`."""
    match layer:
        case Conv(kernel=size, groups=groups, features=features):
            return (features, shape[-1] // groups, size, size)
        case DepthwiseConv(kernel=size):
            return (shape[-1], 1, size, size)
        case Dense(features=features):
            return (features, math.prod(shape))
        case Pointwise(features=features):
            return (features, shape[-1])
        case Attention():
            return (3 * shape[-1], shape[-1])
    return shape[-1:]
