"""Foreign weight files -> nested dicts of numpy arrays. Nothing in a file is run."""

import os
import pathlib
import pickle
from typing import Any

import numpy as np


class UnreadableWeights(ValueError):
    """A weight file that is damaged, or holds what it should not."""


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays in plain containers, and refuses every other global."""

    # ndarray.__reduce__ names its private rebuilding function for us; pickles spell
    # its module differently before and after numpy 2.
    _RECONSTRUCT = np.empty(0).__reduce__()[0]
    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"asks for {module}.{name}") from None


def read_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a pickle of nested dicts of numeric numpy arrays.

    Raises:
      UnreadableWeights: the file is truncated or not a pickle, asks for anything but
        numpy arrays, or holds something else than nested dicts of numeric arrays.
    """
    try:
        with open(path, "rb") as stream:
            tree = _ArrayUnpickler(stream).load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UnreadableWeights(
            f"{path}: not a pickle of numpy arrays: {str(error) or repr(error)}"
        ) from None
    _check_arrays(tree, pathlib.Path(path), "")
    return tree


def _check_arrays(tree: Any, path: pathlib.Path, where: str) -> None:
    if isinstance(tree, dict):
        for name, item in tree.items():
            _check_arrays(item, path, f"{where}/{name}")
    elif not isinstance(tree, np.ndarray) or tree.dtype.kind not in "fiu":
        raise UnreadableWeights(
            f"{path}: {where or 'the top level'} is no numeric array "
            f"but {type(tree).__name__}; only nested dicts of arrays are accepted"
        )
