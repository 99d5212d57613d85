"""Weights that depend on a tensor's name and shape alone, as random as trained ones.

So a script with the libraries that have a network, and a test without them, make the
same file.
"""

import zlib
from collections.abc import Mapping

import numpy as np


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of a state dict: float32, or int64 for a counter or an index.

    Activations are of order one, and all of batch normalisation, layer scales and
    positions is far from trivial, so that a wrong name shows.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    leaf = name.rpartition(".")[2]
    if leaf in ("num_batches_tracked", "position_ids"):
        return np.zeros(shape, np.int64)
    if leaf == "running_var":
        array = random.uniform(0.5, 2, shape)
    elif sum(side > 1 for side in shape) > 1:
        array = random.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
    elif leaf in ("weight", "gamma", "layer_scale"):
        array = random.uniform(0.5, 1, shape)
    else:
        array = random.standard_normal(shape) * 0.1
    return np.asarray(array, np.float32)


def state_dict(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All tensors of a state dict."""
    return {name: draw(name, shape) for name, shape in shapes.items()}


def image(side: int) -> np.ndarray:
    """A network's input, float32 [side, side, 3]."""
    return np.random.RandomState(2).standard_normal((side, side, 3)).astype(np.float32)
