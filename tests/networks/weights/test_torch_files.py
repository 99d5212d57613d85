"""Files of PyTorch are read without it, exactly or not at all, and nothing is run."""

import builtins
import importlib.util
import os
import pathlib
import pickle
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
import pytest

from invjax.networks.weights import (
    checkpoints,
    conversion,
    file_kinds,
    pickles,
    torch_format,
    torch_layouts,
)
from invjax.networks.weights.readers import UnreadableWeights
from invjax.networks.weights.sources import sources
from tests.networks.weights import torch_makers
from tests.networks.weights.torch_makers import Global, Made, Tensor, tensor

Writer: TypeAlias = Callable[..., bytes]

READ = {
    "torch zip": torch_format.read_zip,
    "torch stream": torch_format.read_stream,
    "pickle": torch_format.read_pickle,
}
WRITERS = [torch_makers.torch_zip, torch_makers.torch_stream, torch_makers.dumped]

RANDOM = np.random.RandomState(0)
ARRAYS = {
    "conv.weight": RANDOM.randn(4, 3, 2, 2).astype(np.float32),
    "conv.bias": RANDOM.randn(4).astype(np.float32),
    "empty": np.empty((0, 5), np.float32),
}


def _read(path: pathlib.Path, data: bytes) -> dict[tuple[str, ...], np.ndarray]:
    path.write_bytes(data)
    return pickles.arrays(READ[file_kinds.kind_of(path)](path))


def _refused(path: pathlib.Path, data: bytes) -> str:
    with pytest.raises(UnreadableWeights) as caught:
        _read(path, data)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("write", WRITERS)
def test_tensors_come_back_bit_for_bit(tmp_path: pathlib.Path, write: Writer) -> None:
    found = _read(tmp_path / "net.bin", write(torch_makers.state_dict(ARRAYS)))
    assert list(found) == [(name,) for name in ARRAYS]
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name,], array)
        assert found[name,].dtype == array.dtype


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("Double", np.float64),
        ("Half", np.float16),
        ("BFloat16", jnp.bfloat16),
        ("Long", np.int64),
        ("Char", np.int8),
        ("Bool", np.bool_),
    ],
)
def test_dtypes(tmp_path: pathlib.Path, write: Writer, kind: str, dtype: Any) -> None:
    array = np.array([[1, 0, 3], [0, -2, 1]]).astype(dtype)
    found = _read(tmp_path / "net.pt", write({"a": tensor(array, kind)}))
    assert found["a",].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found["a",], array)


def test_dtypes_without_a_storage_of_their_own(tmp_path: pathlib.Path) -> None:
    """As unsigned integers and 8-bit floats, which are views of bytes."""
    array = np.array([1, 2, 60000], np.uint16)
    held = Tensor(array.view(np.uint8), (6,), (1,), kind="Untyped")
    storage = torch_makers._storage("0", held, is_stream=False)
    call = Made(
        Global("torch._utils", "_rebuild_tensor_v3"),
        (storage, 1, (2,), (1,), False, {}, Global("torch", "uint16")),
    )
    data = torch_makers.torch_zip(
        {"x": tensor(array.view(np.uint8), "Byte"), "a": call}
    )
    np.testing.assert_array_equal(_read(tmp_path / "net.pt", data)["a",], array[1:])


@pytest.mark.parametrize("write", WRITERS)
def test_views_of_one_storage(tmp_path: pathlib.Path, write: Writer) -> None:
    storage = np.arange(24, dtype=np.float32)
    tree = {
        "all": Tensor(storage, (4, 6), (6, 1)),
        "transposed": Tensor(storage, (6, 4), (1, 6)),
        "part": Tensor(storage, (2, 3), (12, 2), offset=1),
        "last": Tensor(storage, (), (), offset=23),
        "repeated": Tensor(storage, (3, 4), (0, 1), offset=20),
        "channels_last": Tensor(storage, (1, 2, 3, 4), (24, 1, 8, 2)),
    }
    found = _read(tmp_path / "net.pt", write(tree))
    grid = storage.reshape(4, 6)
    np.testing.assert_array_equal(found["all",], grid)
    np.testing.assert_array_equal(found["transposed",], grid.T)
    np.testing.assert_array_equal(found["part",], [[1, 3, 5], [13, 15, 17]])
    assert found["last",] == 23
    np.testing.assert_array_equal(found["repeated",], [[20, 21, 22, 23]] * 3)
    expected = storage.reshape(1, 3, 4, 2).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(found["channels_last",], expected)


@pytest.mark.parametrize("write", WRITERS[:2])
def test_files_of_big_endian_machines(tmp_path: pathlib.Path, write: Writer) -> None:
    data = write(torch_makers.state_dict(ARRAYS), order="big")
    found = _read(tmp_path / "net.pt", data)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name,], array)


@pytest.mark.parametrize("folder", ["archive", "alexnet-owt", "a b"])
def test_the_folder_in_the_archive_has_any_name(
    tmp_path: pathlib.Path, folder: str
) -> None:
    data = torch_makers.torch_zip({"a": tensor(np.ones(2))}, folder=folder)
    assert list(_read(tmp_path / "net", data)) == [("a",)]


@pytest.mark.parametrize("write", WRITERS)
def test_parameters_and_tensors_with_attributes(
    tmp_path: pathlib.Path, write: Writer
) -> None:
    utils = "torch._utils"
    inner = tensor(np.ones(2, np.float32))
    tree = {
        "a": Made(Global(utils, "_rebuild_parameter"), (inner, True, {})),
        "b": Made(
            Global(utils, "_rebuild_parameter_with_state"), (inner, True, {}, {"x": 1})
        ),
        "c": Made(
            Global(utils, "_rebuild_parameter"), (inner, True, {}), state={"y": 2}
        ),
    }
    found = _read(tmp_path / "net.pt", write(tree))
    assert [name for (name,) in found] == ["a", "b", "c"]


OTHERS: dict[str, Any] = {
    "args": Made(Global("argparse", "Namespace"), (), {"lr": 0.1, "epochs": 90}),
    "device": Made(Global("torch", "device"), ("cuda", 0)),
    "dtype": Global("torch", "float16"),
    "size": Made(Global("torch", "Size"), ((1, 2),)),
    "path": Made(Global("pathlib", "PosixPath"), ("a", "b")),
    "config": Made(Global("my_project.config", "Config"), ({"a": 1},), {"b": [1, 2]}),
    "function": Global("os", "system"),
    "called": Made(Global("os", "system"), ("touch run",)),
    "twice": Made(Made(Global("functools", "partial"), (1,)), (2,)),  # type: ignore
    "set": Made(Global("builtins", "set"), ([1, 2],)),
    "optimizer": {"state": {0: {"exp_avg": tensor(np.ones(3))}}, "groups": [{"lr": 1}]},
    "epoch": 3,
    "best": None,
}


@pytest.mark.parametrize("write", WRITERS)
def test_what_is_not_a_tensor_does_not_stop_the_reading(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, write: Writer
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(os, "system", calls.append)
    tree = {**OTHERS, "state_dict": torch_makers.state_dict(ARRAYS)}
    found = _read(tmp_path / "net.ckpt", write(tree))
    assert list(found) == [("state_dict", name) for name in ARRAYS]
    assert not calls


@pytest.mark.parametrize("write", WRITERS)
def test_no_module_is_imported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, write: Writer
) -> None:
    data = write({**OTHERS, "a": tensor(np.ones(2))})
    (tmp_path / "net.pt").write_bytes(data)
    imported: list[str] = []
    real = builtins.__import__

    def note(name: str, *arguments: Any) -> Any:
        imported.append(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", note)
    READ[file_kinds.kind_of(tmp_path / "net.pt")](tmp_path / "net.pt")
    assert {"torch", "my_project.config", "argparse"}.isdisjoint(imported)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    "tampered",
    [
        Made(Global("torch", "FloatStorage"), (), {"value": 1}),
        Made(Global("torch._utils", "_rebuild_parameter"), (3,), {"__code__": 1}),
        Made(Global("collections", "OrderedDict"), (), {"items": 1}),
        Made(Global("numpy", "dtype"), ("f4", 0, 1), (3, "<")),
    ],
)
def test_a_pickle_changes_nothing_of_ours(
    tmp_path: pathlib.Path, write: Writer, tampered: Made
) -> None:
    """Also where its state is meant for the function or class itself."""
    itself = Made(tampered.function, (), None)
    data = write({"a": tampered}), write({"a": itself})
    for which in data:
        (tmp_path / "evil.pt").write_bytes(which)
        try:
            READ[file_kinds.kind_of(tmp_path / "evil.pt")](tmp_path / "evil.pt")
        except UnreadableWeights:
            pass
    found = _read(tmp_path / "good.pt", write(torch_makers.state_dict(ARRAYS)))
    assert len(found) == len(ARRAYS)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    "view",
    [
        Tensor(np.zeros(6, np.float32), (2, 4), (4, 1)),
        Tensor(np.zeros(6, np.float32), (6,), (1,), offset=1),
        Tensor(np.zeros(6, np.float32), (2,), (10**12,)),
        Tensor(np.zeros(6, np.float32), (10**9, 10**9), (0, 0)),
        Tensor(np.zeros(6, np.float32), (-1,), (1,)),
        Tensor(np.zeros(6, np.float32), (2,), (-1,), offset=3),
        Tensor(np.zeros(6, np.float32), (2,), (1,), offset=-1),
        Tensor(np.zeros(6, np.float32), (2, 2), (1,)),
        Tensor(np.zeros(6, np.float32), (10**30, 0), (1, 1)),
    ],
)
def test_views_beyond_their_storage_are_refused(
    tmp_path: pathlib.Path, write: Writer, view: Tensor
) -> None:
    assert "damaged" in _refused(tmp_path / "net.pt", write({"a": view}))


def test_a_storage_that_is_shorter_than_it_says(tmp_path: pathlib.Path) -> None:
    whole = Tensor(np.zeros(9, np.float32), (9,), (1,))
    longer = {"data.pkl": lambda data: data.replace(b"K\x09", b"K\x0a")}
    data = torch_makers.edited_zip(torch_makers.torch_zip({"a": whole}), longer)
    assert "too short" in _refused(tmp_path / "net.pt", data)
    stream = torch_makers.torch_stream({"a": whole})
    huge = stream.replace(struct.pack("<q", 9), struct.pack("<q", 2**62))
    assert "length" in _refused(tmp_path / "net.pt", huge)
    assert "cut off" in _refused(tmp_path / "net.pt", stream[:-1])


def test_a_flipped_byte_in_the_data_is_noticed(tmp_path: pathlib.Path) -> None:
    array = np.full(99, 7.0, np.float32)
    data = bytearray(torch_makers.torch_zip({"a": tensor(array)}))
    place = data.index(array.tobytes()) + 50
    data[place] ^= 1
    assert "checksum" in _refused(tmp_path / "net.pt", bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02r\xff\xff\xff\x7fN.",  # a memo of 2^31 entries
        b"\x80\x02Nr\xff\xff\xff\xff.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0fa.",  # bytes of 2^60
        b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00a.",  # a bytearray of a terabyte
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x0fN.",  # a frame of 2^60
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x02N",
        b"\x80\x02.",
        b"\x80\x02" + b"(" * 99 + b".",
    ],
)
def test_pickles_that_would_fill_the_memory_are_refused(
    tmp_path: pathlib.Path, data: bytes
) -> None:
    assert _refused(tmp_path / "bomb.pkl", data)


def test_names_that_hold_each_other(tmp_path: pathlib.Path) -> None:
    """Doubled at each of 60 levels, they would be 2^60 names; one is its own parent."""
    deep: Any = {"a": np.ones(2, np.float32)}
    for _ in range(60):
        deep = {"b": deep, "c": deep}
    own: dict[str, Any] = {"w": np.ones(2)}
    own["own"] = own
    found = _read(tmp_path / "net.pkl", pickle.dumps({"deep": deep, "own": own}))
    assert ("own", "w") in found


def test_a_state_dict_of_a_class_of_its_own(tmp_path: pathlib.Path) -> None:
    """Its items are read, as of the ordered dictionaries of some libraries."""
    data = torch_makers.pickled(Made(Global("my", "Dict")))[:-1]
    data += b"(" + torch_makers._opcodes("w")
    data += pickle.dumps(np.ones(2), 2)[2:-1] + b"u."
    assert list(_read(tmp_path / "net.pkl", data)) == [("w",)]


STREAMS = (
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "mobilenet_v2",
)


@pytest.mark.parametrize("name", STREAMS)
def test_the_installed_weights_are_read_as_pinned(name: str) -> None:
    (source,) = (s for s in sources() if s.network == name)
    path = source.find()
    if path is None:
        pytest.skip(f"{source.package} is not installed")
    from invjax.networks import NETWORKS

    tree = torch_format.read_stream(path)
    fit = torch_layouts.fit(tree, NETWORKS[name])
    tensors = conversion.flatten(fit.params) | fit.statistics.tensors()
    digests = {n: checkpoints.tensor_digest(array) for n, array in tensors.items()}
    assert digests == source.tensors


@pytest.mark.parametrize("name", STREAMS)
def test_the_installed_weights_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    (source,) = (s for s in sources() if s.network == name)
    path = source.find()
    if path is None:
        pytest.skip(f"{source.package} is not installed")
    found = pickles.arrays(torch_format.read_stream(path))
    state = torch.load(path, weights_only=True)
    assert [name for (name,) in found] == list(state)
    for name, expected in state.items():
        np.testing.assert_array_equal(found[name,], expected.numpy())


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
@pytest.mark.filterwarnings("ignore")  # PyTorch's own
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False])
def test_what_torch_writes_is_read(
    tmp_path: pathlib.Path, is_zip: bool, protocol: int
) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model[0].to(memory_format=torch.channels_last)
    big = torch.randn(6, 5)
    tree = {
        "plain": model.state_dict(),
        # As nn.DataParallel names them; that class itself would move the model to the
        # device that torchax, once another test has imported it, registers.
        "parallel": nn.ModuleDict({"module": model}).state_dict(),
        "compiled": torch.compile(model).state_dict(),
        "parameters": dict(model.named_parameters()),
        "averaged": torch.optim.swa_utils.AveragedModel(model).state_dict(),
        "views": {"a": big[1:3, 2:], "b": big.t(), "c": big[0].expand(6, 5)},
        "small": {"h": big.half(), "b": big.bfloat16(), "u": big.to(torch.uint16)},
        "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
        "others": [torch.Size([1]), torch.device("cpu"), torch.float16, np.float64(3)],
    }
    path = tmp_path / "net.pt"
    torch.save(
        tree, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol
    )
    found = pickles.arrays(READ[file_kinds.kind_of(path)](path))
    for group in tree:
        if group in ("optimizer", "others"):
            continue
        for name, value in tree[group].items():
            array = found[group, name]
            if value.dtype == torch.bfloat16:
                value, array = value.float(), array.astype(np.float32)
            np.testing.assert_array_equal(array, value.detach().numpy())
