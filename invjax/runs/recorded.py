"""Arrays that a person recorded, from .npy and .npz files.

Objects are never unpickled, so that a file from elsewhere can do no harm. Whatever is
wrong with a file is said in one line.
"""

import warnings
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy

from invjax import files
from invjax.runs.errors import Refusal

_CODE = "code"
"""Name of the array that holds the code where --save_arrays writes one."""


def named(code: Any) -> dict[str, Any]:
    """The arrays of a code by the names under which `read` finds them in an .npz.

    Args:
      code: one array, or a dict of arrays by name of the representation.
    """
    if isinstance(code, dict):
        return {name.replace("/", "_"): part for name, part in code.items()}
    return {_CODE: code}


_NPY, _ZIP = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06")
_ACCEPTED = ".npy and .npz files of numpy.save and numpy.savez are accepted"
_MOST_BYTES = 2**34
"""A compressed file of a few megabytes may claim to hold any number of zeros."""


def read(path: str, name: str, *, alone: bool) -> np.ndarray:
    """Reads the array recorded for a representation, of any real type.

    Of an .npz, it is the array called `name` (or `name` with _ for /). Where `alone`,
    it may also be the one called "code", as --save_arrays writes it, or the only one.
    A .npy is taken where `alone`.

    Args:
      path: the file.
      name: name of the representation.
      alone: whether the file is for this representation alone.

    Raises:
      Refusal: the file cannot be read, no array or more than one could be meant, or the
        array is not numeric.
    """
    try:
        # NumPy warns of odd headers; what is read is checked anyway.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = _array(path, name, alone)
    except Refusal:
        raise
    # Damaged files make NumPy and zipfile raise exceptions of many types; a header
    # that claims more than there is, MemoryError.
    except (Exception, MemoryError) as error:
        raise Refusal(f"--code={path}: {_reason(error)}; {_ACCEPTED}") from None
    if array.dtype.kind not in "fiu":
        is_bfloat16 = array.dtype.kind == "V" and array.dtype.itemsize == 2
        hint = " (save bfloat16 as float32)" if is_bfloat16 else ""
        raise Refusal(
            f"--code={path}: {array.dtype} is not numeric; float and int are "
            f"accepted{hint}"
        )
    return array


def _array(path: str, name: str, alone: bool) -> np.ndarray:
    with files.open_regular(path) as file:
        start = file.read(len(_NPY))
    if start[:4] in _ZIP:
        with zipfile.ZipFile(path) as archive:
            return _chosen(path, name, archive, alone)
    if start != _NPY:
        found = "is neither .npy nor .npz" if start else "is empty"
        raise Refusal(f"--code={path}: {found}; {_ACCEPTED}")
    if not alone:
        raise Refusal(
            f"--code={path}: holds one array without a name; for several "
            f"representations give an .npz with an array for each, such as {name}"
        )
    # It is mapped, which reads nothing, and fails where the file is too short.
    return npy.open_memmap(path, mode="r")


def _chosen(path: str, name: str, archive: zipfile.ZipFile, alone: bool) -> np.ndarray:
    """The array that is meant; the others are not read."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    names = [name, name.replace("/", "_")]
    if alone:
        names += [_CODE, *members] if len(members) == 1 else [_CODE]
    for known in names:
        if known in members:
            return _member(path, archive, members[known])
    accepted = f"{name} or {_CODE}" if alone else name
    there = ", ".join(_described(archive, *member) for member in members.items())
    raise Refusal(
        f"--code={path}: no array is called {accepted}; it has {there or 'none'}"
    )


def _member(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.file_size > _MOST_BYTES:
        raise Refusal(
            f"--code={path}: holds an array of {info.file_size / 2**30:.3g} GiB, or "
            f"claims to; up to {_MOST_BYTES / 2**30:g} GiB are read"
        )
    with archive.open(info) as stream:
        return npy.read_array(stream, allow_pickle=False)


def _described(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> str:
    """Name and shape of an array, of which only the header is read."""
    name = " ".join(name.splitlines())
    try:
        with archive.open(info) as stream:
            is_first = npy.read_magic(stream) == (1, 0)
            read = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
            shape, _, dtype = read(stream)
    except ValueError:
        return f"{name} (no array)"
    return f"{name} {shape}" if not dtype.hasobject else f"{name} (Python objects)"


def _reason(error: BaseException) -> str:
    """What is wrong with the file, in our words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, zipfile.BadZipFile | EOFError):
        return "damaged or not whole"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "pickle" in str(error) or "Python objects" in str(error):
        return "holds Python objects, which are never unpickled"
    return "damaged, not whole, or not of plain arrays"
