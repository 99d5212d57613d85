"""Files of MATLAB 7.3, written with h5py as MATLAB arranges them."""

import itertools
import pathlib
from typing import Any

import numpy as np

_NUMBERS = itertools.count()


def write(path: pathlib.Path, variables: dict[str, Any]) -> pathlib.Path:
    """Writes dicts as structs, lists as cells, strings as char, and arrays.

    A tuple of dicts is an array of structs. Axes are in reverse order; what a cell or
    an array of structs holds is in the group #refs#.
    """
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        references = file.create_group("#refs#")
        for name, value in variables.items():
            _put(file, name, value, references)
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  2 2017"
    with open(path, "r+b") as raw:
        raw.write(text.ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


def _put(group: Any, name: str, value: Any, references: Any) -> Any:
    if isinstance(value, dict):
        item = group.create_group(name)
        for key, inner in value.items():
            _put(item, key, inner, references)
        return _classed(item, "struct")
    if isinstance(value, tuple):
        item = group.create_group(name)
        for key in value[0]:
            inner = [_refer(struct[key], references) for struct in value]
            item.create_dataset(key, data=_column(inner))
        return _classed(item, "struct")
    if isinstance(value, list):
        if not value:
            return _empty(group, name, "cell")
        inner = [_refer(one, references) for one in value]
        return _classed(group.create_dataset(name, data=_column(inner)), "cell")
    if isinstance(value, str):
        if not value:
            return _empty(group, name, "char")
        codes = np.frombuffer(value.encode("utf-16-le"), "<u2").reshape(-1, 1)
        item = _classed(group.create_dataset(name, data=codes), "char")
        item.attrs["MATLAB_int_decode"] = np.int32(2)
        return item
    array = np.atleast_2d(np.asarray(value))
    if array.size == 0:
        return _empty(group, name, "double")
    names = {"float32": "single", "float64": "double", "bool": "logical"}
    kind = names.get(array.dtype.name, array.dtype.name)
    array = array.astype(np.uint8) if kind == "logical" else array
    # MATLAB compresses arrays of more than a few numbers.
    options = {"compression": "gzip"} if array.size > 100 else {}
    return _classed(group.create_dataset(name, data=array.T, **options), kind)


def _refer(value: Any, references: Any) -> Any:
    return _put(references, f"r{next(_NUMBERS)}", value, references).ref


def _column(references: list[Any]) -> np.ndarray:
    import h5py

    column = np.empty((len(references), 1), h5py.ref_dtype)
    column[:, 0] = references
    return column


def _empty(group: Any, name: str, kind: str) -> Any:
    item = _classed(group.create_dataset(name, data=np.zeros(2, np.uint64)), kind)
    item.attrs["MATLAB_empty"] = np.uint8(1)
    return item


def _classed(item: Any, kind: str) -> Any:
    item.attrs["MATLAB_class"] = np.bytes_(kind)
    return item
