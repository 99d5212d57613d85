"""Caffe's model files, read without Caffe.

A .caffemodel is a protobuf message. Only the few fields that hold names, kinds, shapes
and weights are read, by their numbers in Caffe's published schema. A .prototxt is the
text form of the same message.
"""

import math
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from invjax.networks.weights.readers import UnreadableWeights

V1_KINDS = {
    0: "NONE",
    1: "ACCURACY",
    2: "BNLL",
    3: "CONCAT",
    4: "CONVOLUTION",
    5: "DATA",
    6: "DROPOUT",
    7: "EUCLIDEAN_LOSS",
    8: "FLATTEN",
    9: "HDF5_DATA",
    10: "HDF5_OUTPUT",
    11: "IM2COL",
    12: "IMAGE_DATA",
    13: "INFOGAIN_LOSS",
    14: "INNER_PRODUCT",
    15: "LRN",
    16: "MULTINOMIAL_LOGISTIC_LOSS",
    17: "POOLING",
    18: "RELU",
    19: "SIGMOID",
    20: "SOFTMAX",
    21: "SOFTMAX_LOSS",
    22: "SPLIT",
    23: "TANH",
    24: "WINDOW_DATA",
    25: "ELTWISE",
    26: "POWER",
    27: "SIGMOID_CROSS_ENTROPY_LOSS",
    28: "HINGE_LOSS",
    29: "MEMORY_DATA",
    30: "ARGMAX",
    31: "THRESHOLD",
    32: "DUMMY_DATA",
    33: "SLICE",
    34: "MVN",
    35: "ABSVAL",
    36: "SILENCE",
    37: "CONTRASTIVE_LOSS",
    38: "EXP",
    39: "DECONVOLUTION",
}
"""Kinds of layers before October 2014 (V1), by their numbers in the files."""

# Protobuf's wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Protobuf's own limit is one hundred messages inside each other.
_MAX_DEPTH = 100

# Sides that arrays of weights never have; larger ones mean a damaged file.
_MAX_SIDE = 2**31

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<mark>[{}<>\[\]:;,])
    |(?P<word>[^\s{}<>\[\]:;,\#"']+)""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?[fF]?")
_HEXADECIMAL = re.compile(r"[-+]?0[xX][0-9a-fA-F]+")
_ESCAPE = re.compile(r"\\([\\'\"nrt])")


class CaffeLayer(NamedTuple):
    """A layer of a .caffemodel.

    Attributes:
      name: name of the layer.
      kind: type of the layer, as "Convolution", or "CONVOLUTION" in V1 files.
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
      UnreadableWeights: the file is truncated or damaged, or it is another protobuf
        message, which the message of the error names where it is a usual one.
    """
    data = pathlib.Path(path).read_bytes()
    try:
        fields = list(_fields(memoryview(data)))
        kinds = {number: type(value) for number, value in fields}
        if kinds.get(1) is int:  # a network's name is a string
            raise ValueError(_without_layers(kinds))
        found = []
        for number, value in fields:
            if number == 2 and isinstance(value, memoryview):
                found.append(_layer(value, name=4, kind=5, blobs=6))
            elif number == 100 and isinstance(value, memoryview):
                found.append(_layer(value, name=1, kind=2, blobs=7))
        layers = tuple(layer for layer in found if layer.blobs)
        if not layers:
            raise ValueError(_without_layers(kinds))
    except ValueError as error:
        raise UnreadableWeights(f"{path}: not a caffemodel: {error}") from None
    return layers


def read_prototxt(path: str | os.PathLike[str]) -> dict[str, list[Any]]:
    """Reads a .prototxt that describes a network.

    The text may be UTF-8, UTF-16 with its mark, or Latin-1, with the line ends of any
    system.

    Returns:
      Nested dicts: field -> list of its values, since any field may be repeated.
      Numbers are floats; names of enumerations, true and false are strings.

    Raises:
      UnreadableWeights: the file is not protobuf text, or does not describe a network;
        the message has the line.
    """
    try:
        fields = _parse(_text(pathlib.Path(path).read_bytes()))
        if "layer" not in fields and "layers" not in fields:
            if {"net", "train_net", "base_lr", "lr_policy"} & fields.keys():
                raise ValueError(
                    "it is a solver's; the file that its field `net` names is needed"
                )
            raise ValueError("it has no layers")
        for layer in [*fields.get("layers", []), *fields.get("layer", [])]:
            if not isinstance(layer, dict):
                raise ValueError(f"it has a layer {layer!r:.40} without braces")
            if "layer" in layer:
                raise ValueError(
                    "it is of Caffe's first generation (V0, 2013); upgrade it with "
                    "Caffe's upgrade_net_proto_text"
                )
    except ValueError as error:
        raise UnreadableWeights(f"{path}: not a prototxt: {error}") from None
    return fields


def _text(data: bytes) -> str:
    """The text of a .prototxt in any of the encodings that editors write."""
    for mark in (b"\xff\xfe", b"\xfe\xff"):
        if data.startswith(mark):
            try:
                return data.decode("utf-16")
            except UnicodeDecodeError:
                raise ValueError("its UTF-16 text is damaged") from None
    if b"\0" in data:
        raise ValueError("it is not text; the .caffemodel is given with --file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    beginning = text[:200].lstrip().lower()
    if beginning.startswith(("<!doctype", "<html", "<?xml")):
        raise ValueError("it is a web page; download the file itself")
    if beginning.startswith("version https://git-lfs"):
        raise ValueError("it is a pointer of Git LFS; run: git lfs pull")
    return text


class _Token(NamedTuple):
    """A token of protobuf text: its kind, its text, and where it begins."""

    kind: str
    text: str
    place: int


class _Tokens:
    """The tokens of a text, read one after the other.

    Attributes:
      place: where the last token that was read begins.
    """

    def __init__(self, text: str) -> None:
        self._tokens = self._scan(text)
        self._next = next(self._tokens, None)
        self.place = 0

    @staticmethod
    def _scan(text: str) -> Iterator[_Token]:
        place = 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                yield _Token("unclosed", text[place], place)
                return
            if found.lastgroup != "space":
                yield _Token(str(found.lastgroup), found[0], place)
            place = found.end()

    def peek(self) -> str:
        """The text of the next token; "" at the end."""
        return self._next.text if self._next else ""

    def read(self) -> _Token:
        """The next token, which is passed."""
        if self._next is None:
            raise ValueError("it ends inside a field")
        token, self._next = self._next, next(self._tokens, None)
        self.place = token.place
        return token

    def skip(self, marks: str) -> bool:
        """Passes the next token if it is one of some marks; says whether it was."""
        if self._next and self._next.kind == "mark" and self._next.text in marks:
            self.read()
            return True
        return False

    def next_is(self, kind: str) -> bool:
        """Whether the next token is of a kind."""
        return self._next is not None and self._next.kind == kind

    def is_over(self) -> bool:
        """Whether all tokens were read."""
        return self._next is None


def _parse(text: str) -> dict[str, list[Any]]:
    """The fields of a text; errors have the line."""
    tokens = _Tokens(text)
    try:
        return _message(tokens, "", 0)
    except ValueError as error:
        line = text.count("\n", 0, tokens.place) + 1
        raise ValueError(f"line {line}: {error}") from None


def _message(tokens: _Tokens, closing: str, depth: int) -> dict[str, list[Any]]:
    """Fields of a message, up to its closing mark or ("") the end of the text."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"it has more than {_MAX_DEPTH} messages inside each other")
    fields: dict[str, list[Any]] = {}
    while not tokens.is_over():
        if closing and tokens.skip(closing):
            return fields
        name = tokens.read()
        if name.text in ("}", ">"):
            raise ValueError("it has a closing brace too many")
        if not re.fullmatch(r"[A-Za-z_]\w*", name.text, re.ASCII):
            raise ValueError(f"{name.text[:40]!r} is not a field name")
        has_colon = tokens.skip(":")
        values = []
        if tokens.skip("["):
            while not tokens.skip("]"):
                values.append(_value(tokens, True, depth))
                tokens.skip(",")
        else:
            values.append(_value(tokens, has_colon, depth))
        if values:
            fields.setdefault(name.text, []).extend(values)
        tokens.skip(";,")
    if closing:
        raise ValueError("it lacks a closing brace")
    return fields


def _value(tokens: _Tokens, has_colon: bool, depth: int) -> Any:
    """A field's value: a message, a string without its quotes, a float, or a word."""
    if tokens.skip("{"):
        return _message(tokens, "}", depth + 1)
    if tokens.skip("<"):
        return _message(tokens, ">", depth + 1)
    token = tokens.read()
    if token.kind == "unclosed":
        raise ValueError("it has a string without its closing quote")
    if token.kind == "mark" or not has_colon:
        raise ValueError(f"{token.text[:40]!r} stands where a value should be")
    if token.kind == "string":
        parts = [token.text[1:-1]]
        while tokens.next_is("string"):  # strings side by side are one string
            parts.append(tokens.read().text[1:-1])
        return _ESCAPE.sub(_unescaped, "".join(parts))
    if _NUMBER.fullmatch(token.text):
        return float(token.text.rstrip("fF"))
    if _HEXADECIMAL.fullmatch(token.text):
        return float(int(token.text, 16)) if len(token.text) < 20 else math.inf
    return token.text


def _unescaped(found: re.Match[str]) -> str:
    """The character that an escape sequence stands for."""
    return {"n": "\n", "r": "\r", "t": "\t"}.get(found[1], found[1])


def _without_layers(kinds: dict[int, type]) -> str:
    """What a protobuf message without layers is.

    Args:
      kinds: type of the last value of each field, by its number: int for a varint.
    """
    if kinds.get(1) is int and kinds.get(7) is memoryview:
        return "it is an ONNX model"
    if kinds.get(1) is int and kinds.get(3) is memoryview:
        return "it is a solver's state; the .caffemodel beside it has the weights"
    if kinds.get(5) is memoryview and kinds.keys() <= {1, 2, 3, 4, 5, 6, 7}:
        return "it is one array, such as a mean image (.binaryproto)"
    return "no layer has weights"


def _layer(data: memoryview, *, name: int, kind: int, blobs: int) -> CaffeLayer:
    """A layer's message, whose fields have these numbers."""
    found_name, found_kind, arrays = "", "", []
    for number, value in _fields(data):
        if number == name and isinstance(value, memoryview):
            found_name = _string(value)
        elif number == kind:
            found_kind = (
                _string(value)
                if isinstance(value, memoryview)
                else V1_KINDS.get(value, f"kind {value}")
            )
        elif number == blobs and isinstance(value, memoryview):
            arrays.append(_blob(value))
        elif number == 1 and name == 4:
            raise ValueError(
                "it is of Caffe's first generation (V0, 2013); upgrade it with "
                "Caffe's upgrade_net_proto_binary"
            )
    return CaffeLayer(found_name, found_kind, tuple(arrays))


def _string(value: memoryview) -> str:
    """A name in a message; bytes that are not UTF-8 are marked."""
    return bytes(value).decode(errors="replace")


def _blob(data: memoryview) -> np.ndarray:
    """The array in a BlobProto: old files have four sides (1 to 4), new ones a list."""
    old: dict[int, int] = {}
    shape: tuple[int, ...] | None = None
    singles: list[memoryview] = []
    doubles: list[memoryview] = []
    for number, value in _fields(data):
        if number in (1, 2, 3, 4) and isinstance(value, int):
            old[number] = value
        elif number == 5:  # floats, packed or one at a time
            singles.append(_as_bytes(value, 4))
        elif number == 8:  # the same in double precision
            doubles.append(_as_bytes(value, 8))
        elif number == 7 and isinstance(value, memoryview):
            shape = tuple(_shape(value))
    # One packed field, as Caffe writes, is not copied.
    packed = singles[0] if len(singles) == 1 else b"".join(singles)
    values = np.frombuffer(packed, "<f4")
    if doubles:
        with np.errstate(over="ignore"):
            values = np.frombuffer(b"".join(doubles), "<f8").astype(np.float32)
    if shape is None:
        shape = tuple(old.get(side, 1) for side in (1, 2, 3, 4))
    if max(shape, default=1) >= _MAX_SIDE or math.prod(shape) != values.size:
        sides = " x ".join(map(str, shape[:6]))
        raise ValueError(
            f"it is truncated or damaged: an array of {sides} has {values.size} values"
        )
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


def _as_bytes(value: memoryview | int, size: int) -> memoryview:
    """The bytes of one or more numbers of `size` bytes each."""
    if isinstance(value, int) or len(value) % size:
        raise ValueError("it is truncated or damaged: its weights are not floats")
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
            raise ValueError("it is truncated or damaged")
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
