"""Weight files of other projects -> nested dicts of NumPy arrays.

Reading a file never runs code that is in it.
"""

import os
import pathlib
import pickle
from typing import Any

import numpy as np


class UnreadableWeights(ValueError):
    """A weight file that is damaged, of another format, or holds more than arrays."""


class MissingReader(ImportError):
    """A package that reads a format is not installed; the message says which."""


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays in plain containers, and refuses every other global."""

    # The private function that rebuilds an array; its module has another name in
    # pickles from before NumPy 2.
    _RECONSTRUCT = np.empty(0).__reduce__()[0]
    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The global that a pickle asks for, if it belongs to a NumPy array."""
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"asks for {module}.{name}") from None


def read_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a pickle of nested dicts of numeric NumPy arrays.

    Raises:
      UnreadableWeights: the file is truncated or not a pickle, asks for anything but
        NumPy arrays, or holds anything but nested dicts of numeric arrays.
    """
    try:
        with open(path, "rb") as file:
            tree = _ArrayUnpickler(file).load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UnreadableWeights(
            f"{path}: not a pickle of numpy arrays: {str(error) or repr(error)}"
        ) from None
    _check_arrays(tree, pathlib.Path(path), "")
    return tree


def _check_arrays(tree: Any, path: pathlib.Path, where: str) -> None:
    """Raises UnreadableWeights unless all leaves are numeric arrays."""
    if isinstance(tree, dict):
        for name, item in tree.items():
            _check_arrays(item, path, f"{where}/{name}")
    elif not isinstance(tree, np.ndarray) or tree.dtype.kind not in "fiu":
        raise UnreadableWeights(
            f"{path}: {where or 'the top level'} is no numeric array "
            f"but {type(tree).__name__}; nested dicts of numeric arrays are accepted"
        )


def read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a PyTorch state dict, bare or under "state_dict" or "model".

    Only tensors and plain containers are unpickled (`weights_only=True`). The prefix
    "module.", which a data-parallel wrapper adds, is removed.

    Returns:
      Arrays by name; those of floating point are float32.

    Raises:
      MissingReader: PyTorch is not installed.
      UnreadableWeights: the file is truncated, or it is not a state dict.
    """
    try:
        import torch
    except ImportError:
        raise missing("torch", path) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for wrapper in ("state_dict", "model"):
            if isinstance(state.get(wrapper), dict):
                state = state[wrapper]
        return {
            str(name).removeprefix("module."): _as_numpy(tensor)
            for name, tensor in state.items()
        }
    except Exception as error:  # torch.load can raise nearly anything, too
        reason = (str(error) or repr(error)).splitlines()[0][:200]
        raise UnreadableWeights(f"{path}: not a PyTorch state dict: {reason}") from None


def _as_numpy(tensor: Any) -> np.ndarray:
    """A tensor as an array; floats are float32, since NumPy has no bfloat16."""
    return tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a .safetensors file: arrays by name.

    Raises:
      MissingReader: the safetensors package is not installed.
      UnreadableWeights: the file is truncated, or of another format.
    """
    try:
        import safetensors.numpy
    except ImportError:
        raise missing("safetensors", path) from None
    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:
        raise UnreadableWeights(f"{path}: not a safetensors file: {error}") from None


def missing(package: str, path: str | os.PathLike[str]) -> MissingReader:
    """The error for a file whose reading needs a package that is not installed."""
    return MissingReader(
        f"{path}: reading this file needs {package}, which is not installed; run: "
        f"pip install {package}"
    )
