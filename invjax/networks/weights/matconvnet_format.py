"""MatConvNet's model files, read without MATLAB.

Both kinds of .mat file are read: those of MATLAB 5 to 7.2 here, since SciPy's reader
can end the process where a byte is damaged, and those of 7.3, which are HDF5, with
h5py. Both give the same values: structs are dicts, struct arrays and cells are lists,
texts are strings, and arrays keep all the dimensions that MATLAB shows. Whatever only
MATLAB can read, such as objects and function handles, is None; so are complex and
sparse arrays.
"""

import math
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from invjax.networks.weights.file_kinds import HDF5
from invjax.networks.weights.readers import (
    MissingReader,
    UnreadableWeights,
    missing,
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
        # MATLAB writes the mark of HDF5 after 512 bytes of text, others at the start.
        if HDF5 in (head[:8], head[512:520]):
            variables = _read_hdf5(path)
        else:
            _check_head(head)
            variables = _read_mat5(path)
        return _model(variables, is_foreign=head.startswith(HDF5))
    except ValueError as error:
        raise UnreadableWeights(f"{path}: not a MatConvNet model: {error}") from None


def _model(variables: dict[str, Any], *, is_foreign: bool) -> dict[str, Any]:
    """The one model among a file's variables.

    Args:
      variables: the file's variables.
      is_foreign: whether another program wrote the file, such as Keras, or Caffe with
        snapshot_format: HDF5.
    """
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
        held = ", ".join(repr(name[:30]) for name in sorted(variables)[:8])
        other = ", and MATLAB did not write it" if is_foreign else ""
        raise ValueError(f"it has no layers but {held or 'no variables'}{other}")
    if len(models) > 1 and name not in ("", "net"):
        raise ValueError(
            f"it has several, {', '.join(map(repr, sorted(models)[:8]))}; one called "
            "net is accepted"
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
    if head.startswith(b"MATLAB 7.3"):
        raise ValueError("it is truncated or damaged")
    if head.startswith(b"MATLAB"):
        return
    # MATLAB 4 writes a type code below 10000 in the first four bytes, 5 writes text.
    code = min(int.from_bytes(head[:4], order) for order in ("little", "big"))
    if len(head) >= 20 and code < 10_000:
        raise ValueError("it is of MATLAB 4, which has no structs; save it with -v7")
    if head[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no .mat file")


def _read_mat5(path: pathlib.Path) -> dict[str, Any]:
    """The variables of a file of MATLAB 5 to 7.2."""
    data = memoryview(path.read_bytes())
    if len(data) < 128:
        raise ValueError("it is truncated or damaged")
    values = _Mat5Values("<" if data[126:128] == b"IM" else ">")
    variables = {}
    for kind, content in values.elements(data[128:]):
        if kind == _COMPRESSED:
            content = values.inflate(content)
        elif kind != _MATRIX:
            raise ValueError("it is truncated or damaged")
        name, value = values.matrix(content)
        if name:  # what belongs to function handles has no name
            variables[name] = value
    return variables


# Types of the elements of a file of MATLAB 5: numbers, by their code, and others.
_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_MATRIX, _COMPRESSED = 14, 15
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}

# Classes of MATLAB's values; those from 6 to 15 are numeric.
_CELL, _STRUCT, _CHAR, _DOUBLE, _UINT64, _OPAQUE = 1, 2, 4, 6, 15, 17
_DTYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
_COMPLEX = 0x0800


class _Mat5Values:
    """Reads the elements of a file of MATLAB 5, as its published format has them.

    An element is a tag, its type and length, and as many bytes. An array or struct is
    an element that has others in it: flags, sides, name, and then its values.
    """

    def __init__(self, order: str) -> None:
        self._order = order
        self._left = _MAX_VALUES

    def elements(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """(type, content) of each element in some bytes."""
        place = 0
        while place < len(data):
            tag = data[place : place + 8]
            if len(tag) < 8:
                raise ValueError("it is truncated or damaged")
            kind, length = struct.unpack(f"{self._order}II", tag)
            start, end = place + 8, place + 8 + length
            if kind > 0xFFFF:  # up to four bytes are inside the tag
                kind, length = kind & 0xFFFF, kind >> 16
                start, end = place + 4, place + 4 + length
                place += 8
            else:
                place = end if kind == _COMPRESSED else start + -(-length // 8) * 8
            if end > len(data) or (start == place - 4 and length > 4):
                raise ValueError("it is truncated or damaged")
            yield kind, data[start:end]

    def inflate(self, data: memoryview) -> memoryview:
        """The content of the one array in a compressed element."""
        inflater = zlib.decompressobj()
        try:
            tag = inflater.decompress(data, 8)
            if len(tag) < 8:
                raise ValueError("it is truncated or damaged")
            kind, length = struct.unpack(f"{self._order}II", tag)
            content = inflater.decompress(inflater.unconsumed_tail, length or 1)
            # One byte more is asked for, so that the checksum is read and compared.
            inflater.decompress(inflater.unconsumed_tail, 1)
        except zlib.error:
            raise ValueError("it is truncated or damaged") from None
        if kind != _MATRIX or len(content) != length or not inflater.eof:
            raise ValueError("it is truncated or damaged")
        return memoryview(content)

    def matrix(self, data: memoryview, depth: int = 0) -> tuple[str, Any]:
        """Name and value of an array, cell or struct."""
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            raise ValueError("it has too many values")
        if not data:
            return "", np.zeros((0, 0))
        parts = self.elements(data)
        flags = self._integers(parts)
        kind = flags[0] & 0xFF
        if kind == _OPAQUE:
            return self._text(parts), None
        sides, name = self._integers(parts), self._text(parts)
        if not sides or min(sides) < 0:
            raise ValueError("it is truncated or damaged")
        count = math.prod(sides)
        if kind == _CELL:
            return name, self._matrices(parts, count, data, depth)
        if kind == _STRUCT:
            return name, self._structs(parts, count, data, depth)
        if kind == _CHAR:
            return name, self._characters(parts, sides)
        if _DOUBLE <= kind <= _UINT64 and not flags[0] & _COMPLEX:
            values = self._numbers(parts)
            if values.size != count:
                raise ValueError("it is truncated or damaged")
            dtype = np.dtype(_DTYPES[kind - _DOUBLE])
            return name, values.astype(dtype, copy=False).reshape(sides, order="F")
        return name, None

    def _matrices(
        self,
        parts: Iterator[tuple[int, memoryview]],
        count: int,
        data: memoryview,
        depth: int,
    ) -> list[Any]:
        """The next `count` arrays."""
        if count * 8 > len(data):
            raise ValueError("it is truncated or damaged")
        found = []
        for _ in range(count):
            kind, content = self._next(parts)
            if kind != _MATRIX:
                raise ValueError("it is truncated or damaged")
            found.append(self.matrix(content, depth + 1)[1])
        return found

    def _structs(
        self,
        parts: Iterator[tuple[int, memoryview]],
        count: int,
        data: memoryview,
        depth: int,
    ) -> Any:
        """A struct as a dict, an array of structs as a list of dicts."""
        (width,) = self._integers(parts)[:1] or (0,)
        _, content = self._next(parts)
        if width < 1:
            raise ValueError("it is truncated or damaged")
        names = [
            bytes(content[place : place + width]).split(b"\0")[0].decode("latin-1")
            for place in range(0, len(content), width)
        ]
        values = self._matrices(parts, count * len(names), data, depth)
        if not names:
            return {}
        structs = [
            dict(zip(names, values[place : place + len(names)], strict=True))
            for place in range(0, len(values), len(names))
        ]
        return structs[0] if count == 1 else structs

    def _characters(
        self, parts: Iterator[tuple[int, memoryview]], sides: Sequence[int]
    ) -> str:
        """The first row of an array of characters."""
        if 0 in sides:
            return ""
        kind, content = self._next(parts)
        encoding = _TEXTS.get(kind)
        if encoding is None:
            raise ValueError("it is truncated or damaged")
        if encoding == "utf-16":
            encoding += "-le" if self._order == "<" else "-be"
        return bytes(content).decode(encoding, errors="replace")[:: sides[0]]

    def _next(self, parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
        """The next element."""
        part = next(parts, None)
        if part is None:
            raise ValueError("it is truncated or damaged")
        return part

    def _numbers(self, parts: Iterator[tuple[int, memoryview]]) -> np.ndarray:
        """The numbers in the next element."""
        kind, content = self._next(parts)
        dtype = np.dtype(self._order + _NUMBERS.get(kind, "V1"))
        if kind not in _NUMBERS or len(content) % dtype.itemsize:
            raise ValueError("it is truncated or damaged")
        return np.frombuffer(content, dtype)

    def _integers(self, parts: Iterator[tuple[int, memoryview]]) -> list[int]:
        """A few whole numbers, as flags and sides are."""
        values = self._numbers(parts)
        if not 0 < values.size <= 64 or values.dtype.kind not in "iu":
            raise ValueError("it is truncated or damaged")
        return [int(value) for value in values]

    def _text(self, parts: Iterator[tuple[int, memoryview]]) -> str:
        """A name."""
        return bytes(self._next(parts)[1]).decode("latin-1")


def _read_hdf5(path: pathlib.Path) -> dict[str, Any]:
    """The variables of a file of MATLAB 7.3."""
    try:
        import h5py
    except ImportError:
        raise MissingReader(
            f"{missing('h5py', path)}; or save the file again in MATLAB with -v7"
        ) from None
    try:
        with h5py.File(path, "r") as file:
            return _Hdf5Values(file).fields(file)
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

    def fields(self, group: Any, depth: int = 0) -> dict[str, Any]:
        """All values of a group by name, but for MATLAB's own, which begin with #."""
        found = {}
        for name in group:
            # A name that is damaged is given as bytes.
            text = name if isinstance(name, str) else name.decode("latin-1")
            if not text.startswith("#"):
                found[text] = self.read(group[name], depth + 1)
        return found

    def _structs(self, group: Any, depth: int) -> Any:
        """A struct as a dict, an array of structs as a list of dicts."""
        fields = self.fields(group, depth)
        # References without a class are the field's values in an array of structs.
        spread = [
            name
            for name in fields
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
