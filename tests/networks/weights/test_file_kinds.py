"""A file is what its contents say, whatever its name is."""

import gzip
import io
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from invjax.networks.weights import file_kinds, formats
from invjax.networks.weights.readers import UnreadableWeights
from tests.networks import micro
from tests.networks.weights import caffe_makers, torch_makers
from tests.networks.weights.torch_makers import tensor


def _archive(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, contents in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), contents)
    return data.getvalue()


def _tar(*names: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return data.getvalue()


def _npz() -> bytes:
    data = io.BytesIO()
    np.savez(data, a=np.ones(2))
    return data.getvalue()


def _npy() -> bytes:
    data = io.BytesIO()
    np.save(data, np.ones(2))
    return data.getvalue()


TREE = {"a": tensor(np.ones(2))}
HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
READ = {
    "zip": ("torch zip", torch_makers.torch_zip(TREE)),
    "zip in a folder": ("torch zip", torch_makers.torch_zip(TREE, folder="my net")),
    "stream": ("torch stream", torch_makers.torch_stream(TREE)),
    "dumped": ("pickle", torch_makers.dumped(TREE)),
    **{f"pickle {n}": ("pickle", pickle.dumps({"a": 1}, n)) for n in range(6)},
    "safetensors": (
        "safetensors",
        len(HEADER).to_bytes(8, "little") + HEADER + bytes(4),
    ),
    "npz": ("npz", _npz()),
    "mat": ("mat", b"MATLAB 5.0 MAT-file, Platform: x".ljust(128) + bytes(99)),
    "hdf5": ("mat", b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n"),
    "h5": ("mat", b"\x89HDF\r\n\x1a\n" + bytes(99)),
    "caffemodel": (
        "caffemodel",
        caffe_makers.caffemodel(caffe_makers.random_weights()),
    ),
    "old caffemodel": (
        "caffemodel",
        caffe_makers.caffemodel(caffe_makers.random_weights(), old=True),
    ),
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("ending", [".pth", ".mat", ".caffemodel", ""])
def test_what_is_read(tmp_path: pathlib.Path, name: str, ending: str) -> None:
    kind, data = READ[name]
    path = tmp_path / f"net{ending}"
    path.write_bytes(data)
    assert file_kinds.kind_of(path) == kind


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
REFUSED = {
    "empty": (b"", "an empty file"),
    "pointer": (LFS, "a pointer of Git LFS"),
    "quota": (b"<!DOCTYPE html><title>Quota exceeded</title>", "a web page"),
    "page": (b"\xef\xbb\xbf\r\n  <HTML><body>404</body></HTML>", "a web page"),
    "storage": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "a web page"),
    "comment": (b"<!-- x -->\n<html lang=en></html>", "a web page"),
    "json": (b'{"weight_map": {"a": "b.safetensors"}}', "a text"),
    "prototxt": (b'name: "CaffeNet"\nlayer { }\n', "a text"),
    "gzip": (gzip.compress(b"x" * 99), "unpack it with gunzip"),
    "bzip2": (b"BZh91AY&SY", "unpack it with bunzip2"),
    "7z": (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    "tar": (_tar("net.pth"), "a tar archive"),
    "oldest PyTorch": (_tar("sys_info", "pickle", "storages"), "before 0.1.10"),
    "zip": (_archive(net_dot_pth=b"x"), "a zip archive of other files"),
    "script": (
        _archive(net__data_dot_pkl=b"x", net__code__model_dot_py=b"x"),
        "a whole program of TorchScript",
    ),
    "half a zip": (torch_makers.torch_zip(TREE)[:-40], "damaged or cut off"),
    "npy": (_npy(), "a single array of NumPy"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x05", "an ONNX model"),
    "pdf": (b"%PDF-1.4", "a PDF document"),
    "picture": (b"\x89PNG\r\n\x1a\n", "a picture"),
    "gguf": (b"GGUF\x03", "a GGUF file"),
    "noise": (b"\xfe\x01\x99\xee" * 99, "of no known kind"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("ending", [".pth", ".bin", ".safetensors", ".mat", ".npz"])
def test_what_is_not_read_is_called_what_it_is(
    tmp_path: pathlib.Path, name: str, ending: str
) -> None:
    data, words = REFUSED[name]
    path = tmp_path / f"net{ending}"
    path.write_bytes(data)
    with pytest.raises(UnreadableWeights) as caught:
        formats.read(path, micro.MICRO)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and words in message
    assert message.isprintable()


def test_folders_and_absent_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UnreadableWeights, match="a folder; a file is accepted"):
        formats.read(tmp_path, micro.MICRO)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such file"):
        formats.read(tmp_path / "absent.pth", micro.MICRO)


@pytest.mark.parametrize("name", ["zip", "safetensors", "mat", "npz"])
def test_a_prototxt_belongs_to_caffemodels_only(
    tmp_path: pathlib.Path, name: str
) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(READ[name][1])
    with pytest.raises(UnreadableWeights, match=r"--prototxt.*this is no \.caffemodel"):
        formats.read(path, micro.MICRO, prototxt=tmp_path / "net.prototxt")
