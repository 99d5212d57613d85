"""MatConvNet's model files, read without MATLAB.

Both kinds of .mat file are read: MATLAB 5 to 7.2 with SciPy, and 7.3, which is HDF5,
with h5py. Both give the same values: structs are dicts, struct arrays and cells are
lists, texts are strings, and arrays keep all the dimensions that MATLAB shows. What
MATLAB alone can read, such as objects and function handles, is None.
"""

import mmap
import os
import pathlib
import warnings
from typing import Any

import numpy as np

from invjax.networks.weights.readers import (
    MissingReader,
    UnreadableWeights,
    missing,
)

# Marks of HDF5, which MATLAB writes after 512 bytes of text, and others at the start.
_HDF5 = b"\x89HDF\r\n\x1a\n"

# First bytes of files that people take for a .mat file, and what they are.
_OTHERS = (
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x80\x02", "a pickle"),
)

# No model has as many values, or values as deep inside each other. A damaged file can
# have references that go round in circles.
_MAX_VALUES, _MAX_DEPTH = 100_000, 30

# Deflate makes data at most 1032 times smaller, so a longer array is not in the file.
_MAX_DEFLATION = 1100


def read_matconvnet(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a MatConvNet model, a SimpleNN or a DagNN.

    The model is the file's variables, or one variable that has layers, as `net`.

    Returns:
      {"layers": [dict, ...]} and the model's other fields. In a DagNN, each layer has a
      `block`, and `params` is a list of dicts with `name` and `value`.

    Raises:
      MissingReader: the package that reads this kind of file is not installed.
      UnreadableWeights: the file is truncated, not a .mat file, or has no layers.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
        if _HDF5 in (head[:8], head[512:520]):
            variables = _read_hdf5(path)
        else:
            _check_head(head)
            variables = _read_mat5(path)
        return _model(variables)
    except ValueError as error:
        raise UnreadableWeights(f"{path}: not a MatConvNet model: {error}") from None


def _model(variables: dict[str, Any]) -> dict[str, Any]:
    """The one model among a file's variables."""
    models = {
        name: value
        for name, value in [("", variables), *variables.items()]
        if isinstance(value, dict) and value.get("layers") is not None
    }
    name = "net" if "net" in models else next(iter(models), None)
    if name is None:
        if any(value is None for value in variables.values()):
            raise ValueError(
                "it has a MATLAB object; save it again with: net = net.saveobj(); "
                "save('net.mat', '-struct', 'net')"
            )
        held = ", ".join(sorted(variables)[:8]) or "no variables"
        raise ValueError(f"it has no layers but {held}")
    if len(models) > 1 and name not in ("", "net"):
        raise ValueError(
            f"it has several, {', '.join(sorted(models))}; one called net is accepted"
        )
    model = models[name]
    layers = model["layers"]
    layers = [layers] if isinstance(layers, dict) else layers
    if not isinstance(layers, list) or not all(isinstance(row, dict) for row in layers):
        raise ValueError("its layers are not structs")
    return {**model, "layers": layers}


def _check_head(head: bytes) -> None:
    """Raises ValueError if a file that begins so is certainly no MATLAB 5 file."""
    if not head:
        raise ValueError("it is empty")
    for beginning, what in _OTHERS:
        if head.startswith(beginning):
            raise ValueError(f"it is {what}")
    if head.startswith(b"MATLAB 7.3"):
        raise ValueError("it is truncated or damaged")
    if head.startswith(b"MATLAB"):
        return
    beginning = head.lstrip().lower()
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError("it is a web page; download the file itself")
    if beginning.startswith(b"version https://git-lfs"):
        raise ValueError("it is a pointer of Git LFS; run: git lfs pull")
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        raise ValueError("it is text; save it in MATLAB with -v7")
    # MATLAB 4 writes a type code below 10000 in the first four bytes, 5 writes text.
    code = min(int.from_bytes(head[:4], order) for order in ("little", "big"))
    if len(head) >= 20 and code < 10_000:
        raise ValueError("it is of MATLAB 4, which has no structs; save it with -v7")
    if head[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no .mat file")


def _read_mat5(path: pathlib.Path) -> dict[str, Any]:
    """The variables of a file of MATLAB 5 to 7.2."""
    try:
        import scipy.io  # type: ignore[import-untyped]
        import scipy.io.matlab  # type: ignore[import-untyped]
    except ImportError:
        raise missing("scipy", path) from None
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # SciPy warns of what it cannot represent
        try:
            raw = scipy.io.loadmat(data, struct_as_record=True, squeeze_me=False)
        except Exception:  # a damaged file can raise nearly anything
            raise ValueError("it is truncated or damaged") from None
    opaque = (
        scipy.io.matlab.MatlabFunction,
        scipy.io.matlab.MatlabObject,
        scipy.io.matlab.MatlabOpaque,
    )
    return {
        key: _plain(value, opaque)
        for key, value in raw.items()
        if not key.startswith("__")
    }


def _plain(value: Any, opaque: tuple[type, ...]) -> Any:
    """A MATLAB value in SciPy's form as a dict, list, string, array or None."""
    if not isinstance(value, np.ndarray) or isinstance(value, opaque):
        return None
    if value.dtype.names:
        structs = [
            {name: _plain(item[name], opaque) for name in value.dtype.names}
            for item in value.ravel()
        ]
        return structs[0] if len(structs) == 1 else structs
    if value.dtype.kind == "O":
        return [_plain(item, opaque) for item in value.ravel()]
    if value.dtype.kind in "US":
        return str(value.ravel()[0]) if value.size else ""
    return value


def _read_hdf5(path: pathlib.Path) -> dict[str, Any]:
    """The variables of a file of MATLAB 7.3."""
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError:
        raise MissingReader(
            f"{missing('h5py', path)}; or save the file again in MATLAB with -v7"
        ) from None
    try:
        with h5py.File(path, "r") as file:
            values = _Hdf5Values(file)
            return {name: values.read(file[name]) for name in file if name[0] != "#"}
    except Exception:  # a damaged file can raise nearly anything
        raise ValueError("it is truncated or damaged") from None


class _Hdf5Values:
    """Reads the values of an HDF5 file as MATLAB 7.3 arranges them.

    A struct is a group; in an array of structs, each field is a data set of references.
    So is a cell. The axes of arrays are in reverse order.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _MAX_VALUES

    def read(self, item: Any, depth: int = 0) -> Any:
        """A group or data set as a dict, list, string, array or None."""
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            raise ValueError("it has too many values")
        kind = item.attrs.get("MATLAB_class", b"")
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        if hasattr(item, "keys"):
            return self._structs(item, depth) if kind in ("", "struct") else None
        if item.nbytes > _MAX_DEFLATION * max(item.id.get_storage_size(), 64):
            raise ValueError("it has an array that is larger than the file")
        if item.attrs.get("MATLAB_empty", 0):
            empty: dict[str, Any] = {"char": "", "cell": [], "struct": []}
            return empty.get(kind, np.zeros((0, 0)))
        value = np.asarray(item[()])
        if value.dtype.kind == "O":
            return [self.read(self._file[one], depth + 1) for one in value.T.ravel()]
        if kind == "char":
            row = np.atleast_2d(value.T)[0].astype("<u2")
            return row.tobytes().decode("utf-16-le", errors="replace")
        return value.T if value.dtype.kind in "fiub" else None

    def _structs(self, group: Any, depth: int) -> Any:
        """A struct as a dict, an array of structs as a list of dicts."""
        fields = {name: self.read(group[name], depth + 1) for name in group}
        # References without a class are the field's values in an array of structs.
        spread = [
            name
            for name in group
            if not hasattr(group[name], "keys")
            and group[name].dtype.kind == "O"
            and not {"MATLAB_class", "MATLAB_empty"} & group[name].attrs.keys()
        ]
        if not spread:
            return fields
        return [
            {name: fields[name][place] for name in spread}
            for place in range(len(fields[spread[0]]))
        ]
