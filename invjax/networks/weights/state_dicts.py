"""Finds a network's tensors in whatever a training script has put around them.

Files of all kinds are trees: mappings of names to tensors, or to mappings. A tensor is
found by the end of its path: `state_dict` / `model.features.0.weight` is the tensor
`features.0.weight` under the prefix `state_dict.model`. So a container and a prefix are
one thing, and no list of them is needed. Parts of a name that wrappers add anywhere
(`WRAPPERS`) are dropped first.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from invjax.networks.weights import pickles
from invjax.networks.weights.conversion import ConversionError

WRAPPERS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
)
"""Parts of names added by DataParallel, torch.compile, FSDP and checkpointing."""

CONTAINERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "params_ema",
    "params",
    "ema",
    "model_ema",
    "state_dict_ema",
    "network",
    "weights",
)
"""The order in which prefixes are preferred where the same network is under several."""

# Tensors of a wrapper that stand beside those of the network, by the first part of
# their name: the counter of averaged models, and the modules of a loss.
_BESIDE = ("n_averaged", "criterion", "loss", "loss_fn", "optimizer", "ema")

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The shapes of a network's tensors, by name."""


class Match(NamedTuple):
    """A network's tensors in a file.

    Attributes:
      choice: which of the sets of names fits, as an index.
      arrays: the tensors by the network's names; some may be missing or misshapen.
      prefix: what stands before these names in the file, with dots; "" for nothing.
      others: prefixes under which a network of the kind is, too, with other values.
      unexpected: tensors by name, without the prefix, that stand among them.
      beside: names of tensors that stand beside them and belong to a wrapper; counters
        are not among them.
    """

    choice: int
    arrays: dict[str, np.ndarray]
    prefix: str
    others: tuple[str, ...]
    unexpected: dict[str, np.ndarray]
    beside: tuple[str, ...]


class _Tensor(NamedTuple):
    """A tensor of a file.

    Attributes:
      name: its path, with dots and without wrappers.
      full_name: its path, with dots.
      root: the mapping at the top of the file that holds it; "" for the top itself.
      array: its values.
    """

    name: str
    full_name: str
    root: str
    array: np.ndarray


def find(tree: Any, choices: Sequence[Shapes]) -> Match | None:
    """Finds the tensors of a network.

    The prefix with most tensors of the right name and shape is taken. Where several
    have as many, it does not matter if their tensors are equal; otherwise all parts of
    these prefixes must be in `CONTAINERS`, and the first in that order is taken: plain
    names before those of moving averages, but for `params_ema`.

    Args:
      tree: the file's contents, as `pickles.items` takes them.
      choices: sets of names that the network's tensors may have, with shapes.

    Returns:
      The match; None if no tensor has one of the names.

    Raises:
      conversion.ConversionError: there are several networks, and neither is preferred.
    """
    tensors = _tensors(tree)
    found: dict[tuple[int, str], dict[str, list[_Tensor]]] = defaultdict(dict)
    for choice, shapes in enumerate(choices):
        for tensor in tensors:
            parts = tensor.name.split(".")
            for place in range(len(parts)):
                name = ".".join(parts[place:])
                if name in shapes:
                    same = found[choice, ".".join(parts[:place])].setdefault(name, [])
                    same.append(tensor)
    if not found:
        return None

    def score(key: tuple[int, str]) -> tuple[int, int]:
        shapes = choices[key[0]]
        fitting = [
            name
            for name, same in found[key].items()
            if fits(same[0].array, shapes[name])
        ]
        return len(fitting), len(found[key])

    scores = {key: score(key) for key in found}
    best = max(scores.values())
    key = _preferred([key for key in found if scores[key] == best], found)
    for name, same in found[key].items():
        if not all(_equal(same[0].array, other.array) for other in same[1:]):
            names = " and ".join(tensor.full_name for tensor in same)
            raise ConversionError(f"{names} both stand for {name}; keep one of them")
    # Half of the tensors are more than a block of the same network has in common.
    others = {
        other[1]
        for other, (count, _) in scores.items()
        if other[1] != key[1]
        and 2 * count >= best[0] > 0
        and not _are_same(found[key], found[other])
    }
    alike = {
        tensor.full_name
        for names in found.values()
        for same in names.values()
        for tensor in same
    }
    chosen = {name: same[0] for name, same in found[key].items()}
    return _match(key, tuple(sorted(others)), chosen, tensors, alike)


def fits(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a tensor has a shape.

    Axes of length one do not count, and a dense layer may be a convolution over its
    input.

    Args:
      array: the tensor.
      shape: the shape that it should have; [out, in] for a dense layer.

    Examples:
      >>> fits(np.ones((5, 2, 3, 3)), (5, 18)), fits(np.ones((5, 9)), (5, 18))
      (True, False)
      >>> fits(np.ones((5, 1, 1)), (5,))
      True
    """
    if len(shape) == 2 and array.ndim == 4 and len(array):
        array = array.reshape(len(array), -1)
    return _without_ones(array.shape) == _without_ones(shape)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def _tensors(tree: Any) -> list[_Tensor]:
    """All tensors of a file that have names."""
    tensors = []
    for path, array in pickles.arrays(tree).items():
        full_name = ".".join(path).replace("/", ".")
        parts = [part for part in full_name.split(".") if part not in WRAPPERS]
        root = path[0] if len(path) > 1 else ""
        tensors.append(_Tensor(".".join(parts), full_name, root, array))
    return tensors


def _preferred(
    keys: list[tuple[int, str]],
    found: Mapping[tuple[int, str], Mapping[str, Sequence[_Tensor]]],
) -> tuple[int, str]:
    """The one of several equally good (set of names, prefix) that is taken."""
    first = keys[0]
    if all(_are_same(found[first], found[key]) for key in keys[1:]):
        return first
    ranks = {}
    for key in keys:
        parts = key[1].split(".") if key[1] else []
        if not set(parts) <= set(CONTAINERS):
            prefixes = ", ".join(sorted(prefix or "no prefix" for _, prefix in keys))
            raise ConversionError(
                f"several networks fit, under {prefixes}; save one of them by itself"
            )
        ranks[key] = [CONTAINERS.index(part) for part in parts]
    return min(keys, key=lambda key: ranks[key])


def _are_same(
    first: Mapping[str, Sequence[_Tensor]], second: Mapping[str, Sequence[_Tensor]]
) -> bool:
    """Whether two networks have the same tensors with the same values.

    They may have them by other names, if one set of names has a prefix that the other
    lacks.
    """
    if _full_names(first) == _full_names(second):
        return True
    return first.keys() == second.keys() and all(
        _equal(same[0].array, second[name][0].array) for name, same in first.items()
    )


def _full_names(network: Mapping[str, Sequence[_Tensor]]) -> set[str]:
    """Names in the file of all tensors of a network."""
    return {tensor.full_name for same in network.values() for tensor in same}


def _match(
    key: tuple[int, str],
    others: tuple[str, ...],
    chosen: Mapping[str, _Tensor],
    tensors: Sequence[_Tensor],
    alike: Set[str],
) -> Match:
    """The match, with what else is among and beside the tensors.

    Args:
      key: set of names, and prefix.
      others: as in `Match`.
      chosen: the tensors by the network's names.
      tensors: all tensors of the file.
      alike: full names of those that some network of the kind has.
    """
    choice, prefix = key
    start = f"{prefix}." if prefix else ""
    roots = {tensor.root for tensor in chosen.values()}
    unexpected, beside = {}, []
    for tensor in tensors:
        if tensor.root not in roots or tensor.name.endswith("num_batches_tracked"):
            continue
        name = tensor.name.removeprefix(start)
        if not tensor.name.startswith(start) or name.split(".")[0] in _BESIDE:
            if tensor.array.ndim and tensor.full_name not in alike:
                beside.append(tensor.full_name)
        elif name not in chosen:
            unexpected[name] = tensor.array
    arrays = {name: tensor.array for name, tensor in chosen.items()}
    return Match(choice, arrays, prefix, others, unexpected, tuple(beside))


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return first is second or np.array_equal(first, second)
