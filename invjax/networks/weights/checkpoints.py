"""Trees of arrays on disk, with a manifest that proves them. The only Orbax imports.

Orbax does not notice damage, nor a target of another shape, so `manifest.json` holds
SHA-256, shape and dtype of each tensor, the SHA-256 of each file, and every restore is
checked against it.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from invjax import files

_MANIFEST = "manifest.json"
_TREE = "tree"


class DamagedCheckpoint(ValueError):
    """What is on disk is not what its manifest says was written."""


class Checkpoint(NamedTuple):
    """Flat tensors by name ("conv1/kernel") and what was recorded beside them."""

    tensors: dict[str, np.ndarray]
    record: dict[str, Any]


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint was written there; nothing is proven."""
    return pathlib.Path(path, _MANIFEST).is_file()


def names(path: str | os.PathLike[str]) -> frozenset[str]:
    """Names of a checkpoint's tensors, as its manifest has them; nothing is proven.

    Raises:
      DamagedCheckpoint: the manifest cannot be read.
    """
    try:
        return frozenset(_read_manifest(pathlib.Path(path))["tensors"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(
            f"{path}/{_MANIFEST}: unreadable ({_first_line(error)})"
        ) from None


def tensor_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's values, little-endian, C order."""
    little_endian = array.astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(little_endian.tobytes()).hexdigest()


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    record: Mapping[str, Any],
) -> None:
    """Writes a folder with the tensors and their manifest, whole or not at all.

    Args:
      path: the folder; one that exists is replaced.
      tensors: arrays by name.
      record: JSON values to keep in the manifest beside the tensors' own entries.
    """
    entries = {
        "tensors": {
            name: {
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "sha256": tensor_digest(array),
            }
            for name, array in tensors.items()
        }
    }
    with files.whole_directory(path) as fresh:
        with ocp.StandardCheckpointer() as checkpointer:
            # Orbax resolves relative paths in a background thread, out of sight.
            checkpointer.save((fresh / _TREE).resolve(), dict(tensors))
        manifest = {**record, **entries, "files": _file_digests(fresh / _TREE)}
        text = json.dumps(manifest, indent=1, allow_nan=False)
        files.write_whole(fresh / _MANIFEST, text + "\n")


def restore(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads what `save` wrote and proves every tensor.

    Raises:
      DamagedCheckpoint: the manifest or the tensors cannot be read, a file is not as
        it was written, or a tensor's name, shape, dtype or digest is not the
        manifest's.
    """
    path = pathlib.Path(path).resolve()
    try:
        manifest = _read_manifest(path)
        entries = manifest.pop("tensors")
        # What Orbax would stumble over is found before it starts: when one read fails,
        # those beside it write tracebacks long after the error was handled.
        _compare("file", _file_digests(path / _TREE), manifest.pop("files"))
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata(path / _TREE).item_metadata.tree
            _compare(
                "tensor",
                {name: [list(m.shape), str(m.dtype)] for name, m in stored.items()},
                {name: [e["shape"], e["dtype"]] for name, e in entries.items()},
            )
            target = {
                name: jax.ShapeDtypeStruct(
                    entry["shape"], entry["dtype"], sharding=device
                )
                for name, entry in entries.items()
            }
            tree = checkpointer.restore(path / _TREE, target)
        tensors = {name: np.asarray(tree[name]) for name in entries}
        _compare(
            "tensor",
            {name: tensor_digest(array) for name, array in tensors.items()},
            {name: entry["sha256"] for name, entry in entries.items()},
        )
    except Exception as error:  # Orbax, tensorstore and JSON each raise their own
        raise DamagedCheckpoint(
            f"{path}: not what was written ({_first_line(error)}); delete the folder, "
            "and convert the weights again"
        ) from None
    return Checkpoint(tensors, manifest)


def _compare(kind: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises ValueError with the names whose values differ or stand on one side."""
    names = sorted(found.keys() | expected.keys())
    if wrong := [name for name in names if found.get(name) != expected.get(name)]:
        raise ValueError(f"{kind} missing, added or changed: {', '.join(wrong)}")


def _file_digests(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    return json.loads((path / _MANIFEST).read_text())


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
