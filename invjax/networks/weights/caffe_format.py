"""Caffe's model files, read without Caffe.

A .caffemodel is a protobuf message. Only the few fields that hold names, kinds, shapes
and weights are read, by their numbers in Caffe's published schema. A .prototxt is the
text form of the same message.
"""

import os
import pathlib
import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from invjax.networks.weights.readers import UnreadableWeights

# Numbers of the kinds of layers in V1 files.
_V1_KINDS = {4: "Convolution", 14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU"}

# Protobuf's wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class CaffeLayer(NamedTuple):
    """A layer of a .caffemodel.

    Attributes:
      name: name of the layer.
      kind: type of the layer, as "Convolution" or "InnerProduct".
      blobs: its arrays: a kernel [out, in, h, w] or [out, in] and a bias [out].
    """

    name: str
    kind: str
    blobs: tuple[np.ndarray, ...]


def read_caffemodel(path: str | os.PathLike[str]) -> tuple[CaffeLayer, ...]:
    """The layers of a .caffemodel that have weights, in the file's order.

    Both generations of the format are read: `layers` (V1, before October 2014) and
    `layer`.

    Raises:
      UnreadableWeights: the file is truncated, or it is not a .caffemodel.
    """
    data = pathlib.Path(path).read_bytes()
    try:
        found = []
        for number, value in _fields(memoryview(data)):
            if number == 2 and isinstance(value, memoryview):
                found.append(_layer(value, name=4, kind=5, blobs=6))
            elif number == 100 and isinstance(value, memoryview):
                found.append(_layer(value, name=1, kind=2, blobs=7))
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise UnreadableWeights(f"{path}: not a caffemodel: {error}") from None
    layers = tuple(layer for layer in found if layer.blobs)
    if not layers:
        raise UnreadableWeights(f"{path}: not a caffemodel: no layer has weights")
    return layers


def read_prototxt(path: str | os.PathLike[str]) -> dict[str, list[Any]]:
    """Reads a .prototxt.

    Returns:
      Nested dicts: field -> list of its values, since any field may be repeated.
      Numbers are floats.

    Raises:
      UnreadableWeights: the file is not protobuf text.
    """
    try:
        text = pathlib.Path(path).read_text()
        tokens = re.findall(
            r'#[^\n]*|"[^"\n]*"|\'[^\'\n]*\'|[{}:;,]|[^\s{}:;,#"\']+', text
        )
        words = iter([token for token in tokens if token[0] not in "#;,"])
        return _message(words, is_nested=False)
    except (ValueError, StopIteration) as error:
        reason = str(error) or "it ends inside a field"
        raise UnreadableWeights(f"{path}: not a prototxt: {reason}") from None


def _message(tokens: Iterator[str], *, is_nested: bool) -> dict[str, list[Any]]:
    """Fields of a message, up to its closing brace or the end of the text."""
    fields: dict[str, list[Any]] = {}
    for name in tokens:
        if name == "}":
            if not is_nested:
                raise ValueError("it has a closing brace too many")
            return fields
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ValueError(f"{name!r} is not a field name")
        token = next(tokens)
        if token == ":":
            token = next(tokens)
        if token == "{":
            value: Any = _message(tokens, is_nested=True)
        else:
            value = _scalar(token)
        fields.setdefault(name, []).append(value)
    if is_nested:
        raise ValueError("it lacks a closing brace")
    return fields


def _scalar(token: str) -> Any:
    """A token's value: a string without its quotes, a float, or a bare word."""
    if token[0] in "\"'":
        return token[1:-1]
    try:
        return float(token)
    except ValueError:
        return token


def _layer(data: memoryview, *, name: int, kind: int, blobs: int) -> CaffeLayer:
    """A layer's message, whose fields have these numbers."""
    found_name, found_kind, arrays = "", "", []
    for number, value in _fields(data):
        if number == name and isinstance(value, memoryview):
            found_name = bytes(value).decode()
        elif number == kind:
            found_kind = (
                bytes(value).decode()
                if isinstance(value, memoryview)
                else _V1_KINDS.get(value, f"kind {value}")
            )
        elif number == blobs and isinstance(value, memoryview):
            arrays.append(_blob(value))
    return CaffeLayer(found_name, found_kind, tuple(arrays))


def _blob(data: memoryview) -> np.ndarray:
    """The array in a BlobProto: old files have four sides (1 to 4), new ones a list."""
    old: dict[int, int] = {}
    shape: tuple[int, ...] | None = None
    parts: list[np.ndarray] = []
    for number, value in _fields(data):
        if number in (1, 2, 3, 4) and isinstance(value, int):
            old[number] = value
        elif number == 5:  # floats, packed or one at a time
            parts.append(np.frombuffer(_as_bytes(value), "<f4"))
        elif number == 8:  # the same in double precision
            parts.append(np.frombuffer(_as_bytes(value), "<f8").astype(np.float32))
        elif number == 7 and isinstance(value, memoryview):
            shape = tuple(_shape(value))
    if shape is None:
        shape = tuple(old.get(side, 1) for side in (1, 2, 3, 4))
    values = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return values.reshape(shape)


def _shape(data: memoryview) -> Iterator[int]:
    """The sides of a BlobShape, packed or one at a time."""
    for number, value in _fields(data):
        if number != 1:
            continue
        if isinstance(value, int):
            yield value
            continue
        place = 0
        while place < len(value):
            side, place = _varint(value, place)
            yield side


def _as_bytes(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ValueError("its weights are not floats")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(field number, value) of each field of a message.

    A varint is an int; values of any other wire type are given as their bytes.
    """
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == _BYTES:
            length, place = _varint(data, place)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")
        if number == 0 or place + length > len(data):
            raise ValueError("it is truncated or damaged")
        yield number, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """The varint that begins at `place`, and the place after it."""
    value, shift = 0, 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("it is truncated or damaged")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
