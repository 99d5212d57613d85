"""Weight files of other projects -> nested dicts of NumPy arrays.

Reading a file never runs code that is in it.
"""

import math
import mmap
import os
import pathlib
from typing import Any, BinaryIO, cast

import jax.numpy as jnp
import numpy as np

from invjax.networks.weights import pickles

# Names of dtypes in .safetensors files; tensors of others are left out.
_SAFETENSORS: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

# The most by which deflate can shrink data.
_MOST_DEFLATED = 1032


class UnreadableWeights(ValueError):
    """A weight file that is damaged, of another format, or holds more than arrays."""


class MissingReader(ImportError):
    """A package that reads a format is not installed; the message says which."""


class Map(mmap.mmap):
    """A file mapped into memory, which zipfile can read.

    Of an open file, zipfile and pickle allocate what a length in the file claims; of a
    map, they get what there is. Before Python 3.13, mmap lacks the method below.
    """

    def seekable(self) -> bool:
        """Always."""
        return True


def open_map(path: str | os.PathLike[str]) -> Map:
    """Maps a file for reading; arrays over it keep it open.

    Args:
      path: the file, which must not be empty.
    """
    with open(path, "rb") as file:
        return Map(file.fileno(), 0, access=mmap.ACCESS_READ)


def read_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a pickle of nested dicts of numeric NumPy arrays.

    Raises:
      UnreadableWeights: the file is truncated or not a pickle, asks for anything but
        NumPy arrays, or holds anything but nested dicts of numeric arrays.
    """
    try:
        tree = pickles.load(open_map(path))
    except (OSError, MemoryError):
        raise
    except Exception:  # a damaged pickle can raise nearly anything
        raise UnreadableWeights(
            f"{path}: not a pickle of numpy arrays, or cut off"
        ) from None
    return _only_arrays(tree, path, "")


def _only_arrays(tree: Any, path: str | os.PathLike[str], where: str) -> Any:
    """A tree with its arrays; raises UnreadableWeights if a leaf is anything else."""
    if asked := pickles.wanted(tree):
        raise UnreadableWeights(
            f"{path}: {where or 'the top level'} asks for {asked}; nested dicts of "
            "numeric arrays are accepted"
        )
    match tree:
        case dict():
            return {
                name: _only_arrays(item, path, f"{where}/{name}")
                for name, item in tree.items()
            }
        case pickles.Array(array=np.ndarray() as array) if array.dtype.kind in "fiu":
            return array
    raise UnreadableWeights(
        f"{path}: {where or 'the top level'} is no numeric array but "
        f"{type(tree).__name__}; nested dicts of numeric arrays are accepted"
    )


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a .safetensors file: arrays by name.

    Tensors of less than a byte per element are left out.

    Raises:
      MissingReader: the safetensors package is not installed.
      UnreadableWeights: the file is truncated, or of another format.
    """
    try:
        import safetensors
    except ImportError:
        raise missing("safetensors", path) from None
    data = pathlib.Path(path).read_bytes()
    try:
        return {
            name: np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]]).reshape(
                entry["shape"]
            )
            for name, entry in safetensors.deserialize(data)
            if entry["dtype"] in _SAFETENSORS
        }
    except MemoryError:
        raise
    except Exception:
        raise UnreadableWeights(
            f"{path}: a safetensors file that is damaged or cut off"
        ) from None


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads an .npz file: arrays by name.

    Raises:
      UnreadableWeights: the file is truncated, or holds more than arrays of numbers.
    """
    try:
        with np.load(cast(BinaryIO, open_map(path)), allow_pickle=False) as archive:
            for info in archive.zip.infolist():
                # The sizes of arrays are compared before any memory is taken.
                with archive.zip.open(info) as file:
                    header = _npy_header(file)
                    claimed = math.prod(header[0]) * header[2].itemsize
                    if info.file_size != file.tell() + claimed:
                        raise ValueError("it is damaged")
                if info.file_size > _MOST_DEFLATED * max(info.compress_size, 1):
                    raise ValueError("it is damaged")
            return {name: archive[name] for name in archive}
    except (OSError, MemoryError):
        raise
    except Exception:  # a damaged archive can raise nearly anything
        raise UnreadableWeights(
            f"{path}: an .npz file that is damaged, cut off or holds more than arrays "
            "of numbers"
        ) from None


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the order is Fortran's, and dtype of an array in an .npz file."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def missing(package: str, path: str | os.PathLike[str]) -> MissingReader:
    """The error for a file whose reading needs a package that is not installed."""
    return MissingReader(
        f"{path}: reading this file needs {package}, which is not installed; run: "
        f"pip install {package}"
    )
