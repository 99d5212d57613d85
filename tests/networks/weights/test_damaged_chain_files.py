"""Whatever is in a file of Caffe or MatConvNet, it is read or refused in one line."""

import pathlib
import string
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest

from invjax.networks.weights import caffe_format, caffe_layouts, matconvnet_format
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.readers import UnreadableWeights
from tests.networks.weights import caffe_makers, mat73_makers
from tests.networks.weights.caffe_makers import CHAIN, WEIGHTS

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Every run draws the same examples, so that a failure is not met by chance.
few = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
many = settings(few, max_examples=200)

ROWS = caffe_makers.matconvnet_layers(WEIGHTS)
LAYERS = ROWS[:3]
TEXTS = (
    caffe_makers.PROTOTXT,
    caffe_makers.OLD_PROTOTXT,
    caffe_makers.TRAINING_PROTOTXT,
    caffe_makers.OLD_TRAINING_PROTOTXT,
)
WORDS = sorted(
    {word for text in TEXTS for word in text.replace('"', ' " ').split()}
    | set("{}<>[]:;,'\"#-")
    | {"0", "-1", "1e99", "inf", "nan", "0x10", "true", "99999999999999999999"}
    | {"pad_h", "kernel_w", "dilation", "mean_value", "scale", "layers", "TEST", "axis"}
)


def _read_mat(path: pathlib.Path) -> None:
    net = matconvnet_format.read_matconvnet(path)
    caffe_layouts.from_matconvnet(net, CHAIN)


def _is_one_line(error: Exception) -> None:
    message = str(error)
    assert message and message.isprintable()
    assert len(message) < 2000


@st.composite
def damaged(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """A file some of whose bytes are others, or that is cut off or lengthened."""
    data = bytearray(draw(st.sampled_from(originals)))
    # Most of a file are weights, and its structure is at the beginning.
    place = st.integers(0, 600) | st.integers(0, len(data) - 1)
    for _ in range(draw(st.integers(1, 4))):
        data[min(draw(place), len(data) - 1)] = draw(st.integers(0, 255))
    if draw(st.integers(0, 4)) == 0:
        del data[draw(place) :]
    if draw(st.integers(0, 9)) == 0:
        data += draw(st.binary(max_size=20))
    return bytes(data)


@st.composite
def damaged_text(draw: st.DrawFn) -> str:
    """A .prototxt some of whose words are others, or left out, or repeated."""
    words = draw(st.sampled_from(TEXTS)).split(" ")
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(words) - 1))
        other = draw(st.sampled_from(WORDS) | st.text(max_size=5))
        change = draw(st.sampled_from(["replace", "insert", "drop", "repeat"]))
        match change:
            case "replace":
                words[place] = other
            case "insert":
                words.insert(place, other)
            case "drop":
                del words[place]
            case "repeat":
                words[place:place] = words[place : place + 7]
    return " ".join(words)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A file that every example writes anew."""
    return tmp_path_factory.mktemp("damaged") / "net"


ARRAYS = tuple(
    caffe_format.CaffeLayer(name, "Convolution", arrays)
    for name, arrays in WEIGHTS.items()
)


@many
@given(
    text=damaged_text()
    | st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
    | st.text(alphabet=string.printable + "\u00fc\u4fee\0", max_size=60)
)
def test_prototxts(path: pathlib.Path, text: str) -> None:
    path.write_bytes(text.encode())
    try:
        prototxt = caffe_format.read_prototxt(path)
        caffe_layouts.from_caffe(ARRAYS, prototxt, CHAIN)
    except (UnreadableWeights, ConversionError) as error:
        _is_one_line(error)


@few
@given(data=damaged(tuple(text.encode() for text in TEXTS)) | st.binary(max_size=99))
def test_bytes_of_prototxts(path: pathlib.Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        prototxt = caffe_format.read_prototxt(path)
        caffe_layouts.from_caffe(ARRAYS, prototxt, CHAIN)
    except (UnreadableWeights, ConversionError) as error:
        _is_one_line(error)


SMALL = {"conv1": WEIGHTS["conv1"]}
MODELS = tuple(caffe_makers.caffemodel(SMALL, old=old) for old in (False, True))


FIELDS: dict[str, Any] = {
    "layer": [
        {
            "name": ["conv1"],
            "type": ["Convolution"],
            "convolution_param": [
                {"num_output": [8.0], "kernel_size": [5.0], "stride": [2.0]}
            ],
        }
    ]
}
"""A .prototxt as it is read, of the first layer."""


@many
@given(data=damaged(MODELS) | st.binary(max_size=200))
def test_caffemodels(path: pathlib.Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        caffe_layouts.from_caffe(caffe_format.read_caffemodel(path), FIELDS, CHAIN)
    except (UnreadableWeights, ConversionError) as error:
        _is_one_line(error)


def _mat_files(folder: pathlib.Path, kind: str) -> tuple[bytes, ...]:
    """A SimpleNN and a DagNN of a few layers."""
    found = []
    simple = caffe_makers.simple_model(LAYERS, mean=[[[1.0, 2.0, 3.0]]])
    for model in (simple, caffe_makers.dagnn_model(LAYERS, mean=[[[1.0, 2.0, 3.0]]])):
        path = folder / "original.mat"
        if kind == "7.3":
            mat73_makers.write(path, model)
        else:
            caffe_makers.write_mat5(path, model, compress=kind == "5 compressed")
        found.append(path.read_bytes())
    return tuple(found)


@pytest.mark.parametrize("kind", ["5", "5 compressed", "7.3"])
def test_mat_files(tmp_path: pathlib.Path, kind: str) -> None:
    pytest.importorskip("h5py" if kind == "7.3" else "scipy")
    originals = _mat_files(tmp_path, kind)
    path = tmp_path / "net.mat"

    @(many if kind == "5" else few)
    @given(data=damaged(originals))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            _read_mat(path)
        except (UnreadableWeights, ConversionError) as error:
            _is_one_line(error)

    check()


@few
@given(data=st.binary(max_size=300), head=st.booleans())
def test_bytes_after_the_head_of_a_mat_file(
    path: pathlib.Path, data: bytes, head: bool
) -> None:
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path.write_bytes(start + data if head else data)
    try:
        _read_mat(path)
    except (UnreadableWeights, ConversionError) as error:
        _is_one_line(error)


# Values of any kind, as a .mat file can have them wherever a model has another one.
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.text(max_size=6)
    | st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e300, np.inf, np.nan]).map(
        lambda number: np.array([[number]])
    )
    | st.sampled_from(["f4", "f8", "i1", "u8", "c8", "?"]).flatmap(
        lambda kind: st.sampled_from(
            [(0, 0), (1, 2), (1, 4), (3, 1), (2, 2, 2, 2, 2)]
        ).map(lambda sides: np.ones(sides, kind))
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "type", "pad", "x\ny"]), inner)
    ),
    max_leaves=5,
)
names = st.sampled_from(
    "name type pad stride dilate weights filters opts method pool param leak rate "
    "block inputs outputs params hasBias poolSize xyz".split()
) | st.text(max_size=3)
kinds = st.sampled_from(
    "conv pool relu lrn dropout softmax loss bnorm dagnn.Conv dagnn.ReLU".split()
)


@many
@given(
    changes=st.lists(st.tuples(st.integers(0, 10), names, values | kinds), max_size=4),
    is_dagnn=st.booleans(),
    more=st.dictionaries(
        st.sampled_from(["meta", "params", "normalization", "vars"]), values
    ),
)
def test_models_with_values_of_any_kind(
    changes: list[tuple[int, str, Any]], is_dagnn: bool, more: dict[str, Any]
) -> None:
    make = caffe_makers.dagnn_model if is_dagnn else caffe_makers.simple_model
    model = make(ROWS, mean=[[[1.0, 2.0, 3.0]]])
    layers = [dict(row) for row in model["layers"]]
    for place, name, value in changes:
        block = layers[place].get("block")
        if isinstance(block, dict) and name not in layers[place]:
            layers[place]["block"] = {**block, name: value}
        else:
            layers[place][name] = value
    params = list(model.get("params", []))
    net = {**model, "params": params, **more, "layers": layers}
    try:
        caffe_layouts.from_matconvnet(net, CHAIN)
    except ConversionError as error:
        _is_one_line(error)


def _element(kind: int, data: bytes) -> bytes:
    padding = bytes(-len(data) % 8)
    return struct.pack("<II", kind, len(data)) + data + padding


def _mat5(kind: int, sides: tuple[int, ...], rest: bytes = b"") -> bytes:
    """A file of MATLAB 5 with a variable that claims to have these sides."""
    flags = _element(6, struct.pack("<II", kind, 0))
    claim = _element(5, struct.pack(f"<{len(sides)}i", *sides))
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    return head + _element(14, flags + claim + _element(1, b"layers") + rest)


def _varint(value: int) -> bytes:
    groups = [
        value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)
    ]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _blob(*sides: int) -> bytes:
    """A .caffemodel with one array that claims to have these sides."""
    dims = b"".join(map(_varint, sides))
    shape = b"\x0a" + _varint(len(dims)) + dims
    blob = b"\x2a\x04\0\0\0\0\x3a" + _varint(len(shape)) + shape
    layer = b"\x0a\x05conv1\x3a" + _varint(len(blob)) + blob
    return b"\xa2\x06" + _varint(len(layer)) + layer


FIELD_NAMES = _element(5, struct.pack("<i", 8)) + _element(1, b"type".ljust(8, b"\0"))
NUMBERS = _element(9, bytes(80))
BOMB = struct.pack("<II", 15, 30) + zlib.compress(struct.pack("<II", 14, 2**32 - 8))
CLAIMS = {
    "a cell": _mat5(1, (2**15, 2**16)),
    "an array of structs": _mat5(2, (2**15, 2**16), FIELD_NAMES),
    "a struct of more fields than there are": _mat5(2, (1, 2**30), FIELD_NAMES),
    "an array": _mat5(6, (2**31 - 1, 2**31 - 1), NUMBERS),
    "a text": _mat5(4, (2**31 - 1, 3), _element(4, b"a\0b\0")),
    "a compressed array": _mat5(6, (1, 1), NUMBERS)[:128] + BOMB,
    "an array of weights": _blob(2**40),
    "an empty array of weights": _blob(0, 2**62),
    "an array of negative sides": _blob(2**64 - 1, 2**64 - 1),
    "a field": b"\xa2\x06" + _varint(2**60) + b"\x0a\x05conv1",
    "an array in a file of MATLAB 7.3": b"",
    "a circle of references": b"",
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_no_memory_is_taken_for_what_a_file_only_claims_to_hold(
    tmp_path: pathlib.Path, claim: str
) -> None:
    path = tmp_path / "net.mat"
    path.write_bytes(CLAIMS[claim])
    if not CLAIMS[claim]:
        h5py = pytest.importorskip("h5py")
        mat73_makers.write(path, {"layers": [{"type": "relu"}]})
        with h5py.File(path, "r+") as file:
            if claim.startswith("a circle"):
                file["layers"][0, 0] = file["layers"].ref
            else:
                shape = (50_000, 50_000)
                file.create_dataset("more", shape, "f4", chunks=(100, 100))
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableWeights) as caught:
            if path.read_bytes()[:1] == b"\xa2":
                caffe_format.read_caffemodel(path)
            else:
                matconvnet_format.read_matconvnet(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    _is_one_line(caught.value)
    assert peak < 20e6
