"""What a weight file is, told by its contents and not by its name."""

import json
import os
import pathlib
import re
import string
import zipfile
from typing import BinaryIO, Literal, TypeAlias, cast

from invjax.networks.weights.readers import UnreadableWeights, open_map

Kind: TypeAlias = Literal[
    "torch zip",
    "torch stream",
    "pickle",
    "safetensors",
    "npz",
    "mat",
    "caffemodel",
]
"""The kinds of files that are read; "mat" is MATLAB's, up to version 7.3 (HDF5)."""

READ = (
    "PyTorch's .pth, .pt, .bin and .ckpt, .safetensors, .npz, pickles of arrays, "
    "MatConvNet's .mat and Caffe's .caffemodel"
)
"""The kinds of files that are read, in words, for messages."""

# The first pickle of a stream of PyTorch: a long of ten bytes.
_STREAM = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

HDF5 = b"\x89HDF\r\n\x1a\n"

# Beginnings of files that are read.
_READ: tuple[tuple[bytes, Kind], ...] = (
    (b"MATLAB 5.0 MAT-file", "mat"),
    (b"MATLAB 7.3 MAT-file", "mat"),
    (HDF5, "mat"),
)

# Beginnings of files that are not, with what they are.
_REFUSED = (
    (b"version https://git-lfs", "a pointer of Git LFS; run git lfs pull to get it"),
    (b"\x1f\x8b", "compressed; unpack it with gunzip first"),
    (b"BZh", "compressed; unpack it with bunzip2 first"),
    (b"\xfd7zXZ", "compressed; unpack it with unxz first"),
    (b"\x28\xb5\x2f\xfd", "compressed; unpack it with unzstd first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x93NUMPY", "a single array of NumPy, without names of layers"),
    (b"GGUF", "a GGUF file, which holds no network of this kind"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"MATLAB", "a MATLAB file of an unknown version"),
)

_HTML = re.compile(rb"<(!doctype|html|head|body|\?xml|script|title|error)\b", re.I)


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """The kind of a weight file that can be read.

    Args:
      path: the file; its ending does not count.

    Raises:
      OSError: there is no such file, or it cannot be opened.
      UnreadableWeights: the file is of another kind, which the message names.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise UnreadableWeights(f"{path}: a folder; a file is accepted")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(1024)
    size = path.stat().st_size
    if kind := _read_kind(path, head, size):
        return kind
    raise UnreadableWeights(f"{path}: {_what(head)}")


def _read_kind(path: pathlib.Path, head: bytes, size: int) -> Kind | None:
    """The kind of a file that is read; None for others."""
    for start, kind in _READ:
        if head.startswith(start):
            return kind
    if head[:2] == b"PK":
        return _archive(path)
    # Eight bytes of length, then as much JSON.
    if 8 < len(head) and head[8:9] == b"{":
        length = int.from_bytes(head[:8], "little")
        if length <= size - 8 and _is_json(path, length):
            return "safetensors"
    if head[124:128] in (b"\x00\x01IM", b"\x01\x00MI") or head[512:].startswith(HDF5):
        return "mat"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "torch stream" if _STREAM in head[:32] else "pickle"
    if head[:2] in (b"(d", b"}q", b"cc") or head[:6] == b"ccolle":
        return "pickle"
    # Protobuf fields of a Caffe network: name, layers of the first generation, layer.
    if head[:1] in (b"\x0a", b"\x12") or head[:2] == b"\xa2\x06":
        return None if _is_text(head) else "caffemodel"
    return None


def _is_json(path: pathlib.Path, length: int) -> bool:
    """Whether a file has a JSON object after its first eight bytes."""
    with path.open("rb") as file:
        file.seek(8)
        try:
            return isinstance(json.loads(file.read(length)), dict)
        except (ValueError, RecursionError):
            return False


def _archive(path: pathlib.Path) -> Kind:
    """The kind of a zip archive.

    Raises:
      UnreadableWeights: it is damaged, or holds something else.
    """
    try:
        with zipfile.ZipFile(cast(BinaryIO, open_map(path))) as archive:
            names = archive.namelist()
    except (OSError, MemoryError):
        raise
    except Exception:  # a damaged archive can raise nearly anything
        raise UnreadableWeights(
            f"{path}: a zip archive that is damaged or cut off, as PyTorch's files are "
            "after half a download"
        ) from None
    folders = {name.partition("/")[0] for name in names}
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if any(name.endswith(("/constants.pkl", "/code/")) for name in names) or any(
        "/code/" in name for name in names
    ):
        what = "a whole program of TorchScript; save model.state_dict() instead"
    elif len(pickles) == 1 and len(folders) == 1:
        return "torch zip"
    elif names and all(name.endswith(".npy") for name in names):
        return "npz"
    else:
        what = "a zip archive of other files; unpack it first"
    raise UnreadableWeights(f"{path}: {what}")


def _what(head: bytes) -> str:
    """What a file is that is not read."""
    if not head:
        return f"an empty file; read are {READ}"
    for start, what in _REFUSED:
        if head.startswith(start):
            return what
    if head[257:262] == b"ustar":
        if head[:100].rstrip(b"\0") in (
            b"sys_info",
            b"pickle",
            b"tensors",
            b"storages",
        ):
            return "of PyTorch before 0.1.10; load and save it again with a newer one"
        return "a tar archive; unpack it first"
    text = head.lstrip(b"\xef\xbb\xbf" + string.whitespace.encode())
    if _HTML.match(text) or b"<html" in text.lower():
        return "a web page, which was saved instead of the file"
    if head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x1a"):
        return f"an ONNX model; read are {READ}"
    if _is_text(head):
        return f"a text; read are {READ}"
    return f"of no known kind, or damaged at its start; read are {READ}"


def _is_text(head: bytes) -> bool:
    """Whether bytes are printable."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode()
    return all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
