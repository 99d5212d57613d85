"""Small files in PyTorch's formats, written without PyTorch.

`pickled` writes a pickle by hand, since globals of PyTorch cannot be pickled where it
is not installed. The opcodes are those that `torch.save` uses (protocol 2).
"""

import dataclasses
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C


class Tensor(NamedTuple):
    """A tensor as a view of a storage.

    Attributes:
      storage: all numbers of the storage, flat.
      shape: shape of the tensor.
      strides: its strides, in elements.
      offset: the place of its first element.
      kind: PyTorch's name of the storage's dtype, as "Float".
    """

    storage: np.ndarray
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    kind: str = "Float"


class Global(NamedTuple):
    """A function or class, as "torch.device"."""

    module: str
    name: str


@dataclasses.dataclass
class Made:
    """An object: a global that is called, and then given a state."""

    function: Global
    arguments: tuple[Any, ...] = ()
    state: Any = None


class Ordered(NamedTuple):
    """An OrderedDict with an attribute, as state dicts are."""

    items: dict[str, Any]


class Persistent(NamedTuple):
    """What is stored outside of the pickle."""

    pid: Any


def tensor(array: np.ndarray, kind: str = "Float") -> Tensor:
    """A tensor in C order; `array` must have the dtype of its kind, but for floats."""
    array = np.array(array, np.float32 if kind == "Float" else array.dtype, order="C")
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Tensor(array.ravel(), array.shape, strides, 0, kind)


def state_dict(arrays: dict[str, np.ndarray]) -> Ordered:
    """A state dict of float32 tensors."""
    return Ordered({name: tensor(array) for name, array in arrays.items()})


def torch_zip(tree: Any, *, folder: str = "archive", order: str = "little") -> bytes:
    """A file as `torch.save` writes it today."""
    storages: dict[int, tuple[str, Tensor]] = {}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        text = pickled(_with_storages(tree, storages, is_stream=False))
        archive.writestr(f"{folder}/data.pkl", text)
        archive.writestr(f"{folder}/byteorder", order)
        for key, held in storages.values():
            archive.writestr(f"{folder}/data/{key}", _bytes(held, order))
        archive.writestr(f"{folder}/version", "3\n")
    return data.getvalue()


def edited_zip(data: bytes, edit: dict[str, Callable[[bytes], bytes]]) -> bytes:
    """An archive with other contents of some records, and checksums that fit.

    Args:
      data: the archive.
      edit: what is done to a record, by its name without the folder.
    """
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new,
    ):
        for name in old.namelist():
            change = edit.get(name.partition("/")[2], lambda contents: contents)
            new.writestr(name, change(old.read(name)))
    return out.getvalue()


def torch_stream(tree: Any, *, order: str = "little") -> bytes:
    """A file as `torch.save` wrote it before PyTorch 1.6."""
    storages: dict[int, tuple[str, Tensor]] = {}
    system = {"protocol_version": 1001, "little_endian": order == "little"}
    body = pickled(_with_storages(tree, storages, is_stream=True))
    parts = [pickle.dumps(part, 2) for part in (MAGIC, 1001, system)]
    parts += [body, pickle.dumps([key for key, _ in storages.values()], 2)]
    for _, held in storages.values():
        parts.append(
            struct.pack("<q" if order == "little" else ">q", len(held.storage))
        )
        parts.append(_bytes(held, order))
    return b"".join(parts)


def dumped(tree: Any) -> bytes:
    """A file as `pickle.dump` writes tensors: each storage is a stream in itself."""

    def with_streams(node: Any) -> Any:
        if isinstance(node, Tensor):
            stream = torch_stream(_storage("0", node, is_stream=True), order="little")
            keys = pickle.dumps([], 2)
            # The stream's only object is the storage.
            data = stream.removesuffix(keys) + pickle.dumps(["0"], 2)
            data += struct.pack("<q", len(node.storage)) + _bytes(node, "little")
            loader = Global("torch.storage", "_load_from_bytes")
            return _rebuilt(node, Made(loader, (data,)))
        return _mapped(node, with_streams)

    return pickled(with_streams(tree))


def pickled(node: Any) -> bytes:
    """A pickle of protocol 2."""
    return b"\x80\x02" + _opcodes(node) + b"."


def _with_storages(
    node: Any, storages: dict[int, tuple[str, Tensor]], *, is_stream: bool
) -> Any:
    """A tree with every tensor as a call of PyTorch's function that makes it."""
    if isinstance(node, Tensor):
        key, _ = storages.setdefault(id(node.storage), (str(len(storages)), node))
        return _rebuilt(node, _storage(key, node, is_stream=is_stream))
    return _mapped(
        node, lambda inner: _with_storages(inner, storages, is_stream=is_stream)
    )


def _storage(key: str, held: Tensor, *, is_stream: bool) -> Persistent:
    kind = Global("torch", f"{held.kind}Storage")
    pid = ("storage", kind, key, "cpu", len(held.storage))
    return Persistent((*pid, None) if is_stream else pid)


def _rebuilt(node: Tensor, storage: Any) -> Made:
    hooks = Made(Global("collections", "OrderedDict"))
    arguments = (storage, node.offset, node.shape, node.strides, False, hooks)
    return Made(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def _mapped(node: Any, function: Any) -> Any:
    """The same container with `function` applied to what it holds."""
    match node:
        case Ordered(items):
            return Ordered({key: function(item) for key, item in items.items()})
        case Made(called, arguments, state):
            return Made(called, tuple(map(function, arguments)), function(state))
        case Global() | Persistent():
            return node
        case dict():
            return {key: function(item) for key, item in node.items()}
        case list():
            return list(map(function, node))
        case tuple():
            return tuple(map(function, node))
    return node


def _bytes(held: Tensor, order: str) -> bytes:
    dtype = held.storage.dtype.newbyteorder("<" if order == "little" else ">")
    return held.storage.astype(dtype).tobytes()


def _opcodes(node: Any) -> bytes:
    """The opcodes that leave an object on the stack."""
    match node:
        case Global(module, name):
            return b"c" + f"{module}\n{name}\n".encode()
        case Persistent(pid):
            return _opcodes(pid) + b"Q"
        case Made(called, arguments, state):
            made = _opcodes(called) + _opcodes(tuple(arguments)) + b"R"
            return made if state is None else made + _opcodes(state) + b"b"
        case Ordered(items):
            made = _opcodes(Made(Global("collections", "OrderedDict")))
            made += b"(" + b"".join(_opcodes(k) + _opcodes(v) for k, v in items.items())
            return made + b"u" + _opcodes({"_metadata": {"": {"version": 1}}}) + b"b"
        case dict():
            inner = b"".join(_opcodes(k) + _opcodes(v) for k, v in node.items())
            return b"}(" + inner + b"u"
        case list():
            return b"](" + b"".join(map(_opcodes, node)) + b"e"
        case tuple():
            return b"(" + b"".join(map(_opcodes, node)) + b"t"
    # Numbers, text, bytes, None and booleans, without the frame of a pickle.
    return pickle.dumps(node, 2)[2:-1]
