"""PyTorch's weight files, read without PyTorch.

`torch.save` has written two formats: since version 1.6 a zip archive with a pickle and
one record per storage, before that a stream of pickles with the storages behind them.
A tensor is a view of a storage in both: an offset, a shape and strides, in elements.
`pickle.dump` of a state dict is read, too; it has such a stream in it for each storage.

Files are mapped into memory, and tensors are views of the map. Offsets and sizes are
compared with the bytes that there are, so that a damaged file is refused before any
memory is taken for what it claims to hold; today's format has checksums, too.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import jax.numpy as jnp
import numpy as np

from invjax.networks.weights import pickles
from invjax.networks.weights.pickles import Array, Constant, Damaged, Rebuilder, Stream
from invjax.networks.weights.readers import Map, UnreadableWeights, open_map

# The first two pickles of a stream.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

_DTYPES: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": jnp.bfloat16,
    "float8_e4m3fn": jnp.float8_e4m3fn,
    "float8_e5m2": jnp.float8_e5m2,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint64": np.uint64,
    "uint32": np.uint32,
    "uint16": np.uint16,
    "uint8": np.uint8,
    "bool": np.bool_,
    "complex128": np.complex128,
    "complex64": np.complex64,
}

_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "Untyped": "uint8",
    "QInt8": "int8",
    "QUInt8": "uint8",
    "QInt32": "int32",
}


class _Storage:
    """A row of numbers that tensors share.

    Attributes:
      dtype: its dtype, of bytes where the tensors have one of their own.
      count: its number of elements, as the pickle says.
      data: its bytes, which come after the pickle in a stream.
      is_swapped: whether they are big-endian.
    """

    __slots__ = ("count", "data", "dtype", "is_swapped")

    def __init__(self, dtype: Any, count: Any):
        if not isinstance(dtype, Constant):
            raise Damaged(f"its {pickles.wanted(dtype) or 'storage'} is not read")
        if not _is_count(count):
            raise Damaged("a storage has no length")
        self.dtype: np.dtype[Any] = dtype.value
        self.count: int = count
        self.data: np.ndarray | None = None
        self.is_swapped = False

    def __setstate__(self, state: Any) -> None:
        raise Damaged("it changes a storage")

    @property
    def size(self) -> int:
        """Its number of bytes."""
        return self.count * self.dtype.itemsize

    def numbers(self, dtype: np.dtype[Any]) -> np.ndarray:
        """Its bytes as numbers."""
        if self.data is None:
            raise Damaged("the data of a storage are missing")
        if self.is_swapped:
            dtype = dtype.newbyteorder(">")
        return self.data[: self.size // dtype.itemsize * dtype.itemsize].view(dtype)


class _Tensor(Array):
    """A view of a storage, whose bytes may come later in the file."""

    def __init__(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        dtype: Constant | None = None,
    ):
        sides = (*shape, *strides, offset)
        if (
            not isinstance(storage, _Storage)
            or len(shape) != len(strides)
            or not all(map(_is_count, sides))
        ):
            raise Damaged("a tensor is no view of a storage")
        self._storage, self._offset = storage, offset
        self._shape, self._strides = tuple(shape), tuple(strides)
        self._dtype = storage.dtype if dtype is None else dtype.value

    def __setstate__(self, state: Any) -> None:
        """Attributes of a tensor are dropped."""

    @property
    def array(self) -> np.ndarray:  # type: ignore[override]
        """The view, which cannot be written to."""
        numbers = self._storage.numbers(self._dtype)
        if 0 in self._shape:
            return np.empty(0, self._dtype).reshape(self._shape)
        last = self._offset + sum(
            (side - 1) * stride
            for side, stride in zip(self._shape, self._strides, strict=True)
        )
        if last >= numbers.size:
            raise Damaged("a tensor is larger than its storage")
        # Strides of zero repeat elements, which must not fill the memory later.
        if math.prod(self._shape) > numbers.size:
            raise Damaged("a tensor has more elements than its storage")
        return np.lib.stride_tricks.as_strided(
            numbers[self._offset :],
            self._shape,
            [stride * self._dtype.itemsize for stride in self._strides],
            writeable=False,
        )


def _is_count(number: Any) -> bool:
    return type(number) is int and number >= 0


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _rebuild_tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    grad: Any,
    hooks: Any,
    *more: Any,
) -> _Tensor:
    del grad, hooks
    if not more or not isinstance(more[0], Constant):
        raise Damaged("a tensor has no dtype")
    return _Tensor(storage, offset, shape, strides, more[0])


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor of a class of its own, or one with attributes."""
    del kind, state
    return function(*arguments)


def _known() -> Iterator[tuple[str, Any]]:
    """What a PyTorch file may use, by dotted name."""
    utils = "torch._utils."
    yield utils + "_rebuild_tensor", Rebuilder(_rebuild_tensor)
    yield utils + "_rebuild_tensor_v2", Rebuilder(_rebuild_tensor)
    yield utils + "_rebuild_tensor_v3", Rebuilder(_rebuild_tensor_v3)
    yield utils + "_rebuild_parameter", Rebuilder(_rebuild_parameter)
    yield utils + "_rebuild_parameter_with_state", Rebuilder(_rebuild_parameter)
    yield "torch._tensor._rebuild_from_type_v2", Rebuilder(_rebuild_from_type)
    for name, dtype in _DTYPES.items():
        yield f"torch.{name}", Constant(np.dtype(dtype))
    for name, dtype in _STORAGES.items():
        for module in ("torch", "torch.cuda", "torch.storage"):
            yield f"{module}.{name}Storage", Constant(np.dtype(_DTYPES[dtype]))


def _storage_from_bytes(data: Any) -> Any:
    """A storage as `pickle.dump` writes it: a whole stream."""
    if not isinstance(data, (bytes, bytearray)):
        raise Damaged("a storage has no bytes")
    return _read_stream(io.BytesIO(data), dict(_known()))


def _whole() -> dict[str, Any]:
    """`_known`, and storages as `pickle.dump` writes them."""
    loader = Rebuilder(_storage_from_bytes)
    return {**dict(_known()), "torch.storage._load_from_bytes": loader}


def read_zip(path: str | os.PathLike[str]) -> Any:
    """The object in a file of today's format.

    Args:
      path: the file.

    Returns:
      A tree for `pickles.items`.

    Raises:
      UnreadableWeights: the file is damaged.
    """
    return _read(path, _read_zip)


def read_stream(path: str | os.PathLike[str]) -> Any:
    """The object in a file of the format before PyTorch 1.6; as `read_zip`."""
    return _read(path, lambda stream: _read_stream(stream, _whole()))


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """The object in a plain pickle, of NumPy's arrays or of tensors; as `read_zip`."""
    return _read(path, lambda stream: pickles.load(stream, known=_whole()))


def _read(path: str | os.PathLike[str], read: Callable[[Map], Any]) -> Any:
    """Maps a file and reads it; what goes wrong is told in our words."""
    try:
        tree = read(open_map(path))
        for _ in pickles.items(tree):
            pass  # every tensor is compared with its storage
        return tree
    except (OSError, MemoryError):
        raise
    except Damaged as error:
        raise UnreadableWeights(f"{path}: damaged: {error}") from None
    except Exception:  # a damaged pickle can raise nearly anything
        raise UnreadableWeights(f"{path}: damaged or cut off") from None


def _read_zip(stream: Map) -> Any:
    archive = zipfile.ZipFile(cast(BinaryIO, stream))
    records = {info.filename: info for info in archive.infolist()}
    (pickle_name,) = (
        name
        for name in records
        if name.rpartition("/")[2] == "data.pkl" and name.count("/") <= 1
    )
    folder = pickle_name.removesuffix("data.pkl")
    order = records.get(f"{folder}byteorder")
    is_swapped = order is not None and _record(stream, order).tobytes() == b"big"
    storages: dict[str, _Storage] = {}

    def persistent(pid: Any) -> _Storage:
        _, dtype, key, _, count = pid
        if key not in storages:
            storage = _Storage(dtype, count)
            name = f"{folder}data/{key}"
            if name not in records:
                raise Damaged(f"it lacks its record {name}")
            storage.data = _record(stream, records[name])
            storage.is_swapped = is_swapped
            if storage.data.size < storage.size:
                raise Damaged(f"its record {name} is too short")
            storages[key] = storage
        return storages[key]

    data = io.BytesIO(_record(stream, records[pickle_name]).tobytes())
    return pickles.load(data, known=_whole(), persistent=persistent)


def _record(stream: Map, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a record, which PyTorch never compresses, without a copy."""
    place = info.header_offset
    header = stream[place : place + 30]
    if info.compress_type != zipfile.ZIP_STORED or header[:4] != b"PK\x03\x04":
        raise Damaged(f"its record {info.filename} is compressed or damaged")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = place + 30 + name_length + extra_length
    if start + info.file_size > len(stream):
        raise Damaged(f"its record {info.filename} is cut off")
    data = np.frombuffer(stream, np.uint8, info.file_size, start)
    # PyTorch can be told to write no checksums; they are zero then.
    if info.CRC and zlib.crc32(data.data) != info.CRC:
        raise Damaged(f"its record {info.filename} has another checksum")
    return data


def _read_stream(stream: Stream, known: dict[str, Any]) -> Any:
    if pickles.load(stream) != _MAGIC or pickles.load(stream) != _PROTOCOL:
        raise Damaged("it begins as no PyTorch file does")
    is_swapped = not pickles.load(stream)["little_endian"]
    storages: dict[str, _Storage] = {}
    views: list[tuple[_Storage, _Storage, int]] = []

    def persistent(pid: Any) -> Any:
        if pid[0] == "module":
            return pid[1]  # the class of a whole model; its source follows
        _, dtype, key, _, count, *view = pid
        root = storages.get(key)
        if root is None:
            root = storages[key] = _Storage(dtype, count)
        if not view or view[0] is None:
            return root
        _, offset, length = view[0]
        part = _Storage(dtype, length)
        if not _is_count(offset):
            raise Damaged("a storage is no part of another")
        views.append((part, root, offset * part.dtype.itemsize))
        return part

    tree = pickles.load(stream, known=known, persistent=persistent)
    for key in pickles.load(stream):
        storage = storages[key]
        count = int.from_bytes(stream.read(8), "big" if is_swapped else "little")
        place = stream.tell()
        if count != storage.count:
            raise Damaged("a storage has another length than its tensors")
        buffer = stream.getbuffer() if isinstance(stream, io.BytesIO) else stream
        if place + storage.size > len(buffer):
            raise Damaged("it is cut off")
        storage.data = np.frombuffer(buffer, np.uint8, storage.size, place)
        storage.is_swapped = is_swapped
        stream.seek(place + storage.size)
    for part, root, offset in views:
        if root.data is None:
            raise Damaged("the data of a storage are missing")
        part.data = root.data[offset : offset + part.size]
        part.is_swapped = is_swapped
        if part.data.size < part.size:
            raise Damaged("a storage is larger than the one it is a part of")
    return tree
