"""Arrays on disk with a manifest, against which every restore is verified.

Orbax, which writes the arrays, notices neither damaged files nor a target of another
shape. So `manifest.json` holds the SHA-256, shape and dtype of every tensor and the
SHA-256 of every file. Orbax is imported in this module only.
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
    """A checkpoint that differs from what its manifest says was written."""


class Checkpoint(NamedTuple):
    """A restored checkpoint.

    Attributes:
      tensors: arrays by name, as "conv1/kernel".
      record: the JSON values that were saved beside them.
    """

    tensors: dict[str, np.ndarray]
    record: dict[str, Any]


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether the folder has a checkpoint's manifest; nothing is verified."""
    return pathlib.Path(path, _MANIFEST).is_file()


def names(path: str | os.PathLike[str]) -> frozenset[str]:
    """Names of a checkpoint's tensors from its manifest; nothing else is verified.

    Raises:
      DamagedCheckpoint: the manifest cannot be read.
    """
    try:
        return frozenset(_read_manifest(pathlib.Path(path))["tensors"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(
            f"{path}/{_MANIFEST}: cannot be read ({_first_line(error)}); delete the "
            "folder, and convert the weights again"
        ) from None


def tensor_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's values in C order, little-endian, as hexadecimal digits.

    Examples:
      >>> tensor_digest(np.zeros(2, np.float32))[:8]
      'af5570f5'
    """
    little_endian = array.astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(little_endian.tobytes()).hexdigest()


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    record: Mapping[str, Any],
) -> None:
    """Writes a folder with tensors and their manifest, atomically.

    Args:
      path: the folder; one that exists is replaced.
      tensors: arrays by name.
      record: JSON values to keep in the manifest.

    Raises:
      ValueError: the record holds a number that is not finite. Nothing is written.
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
            # Orbax would resolve a relative path later, in a background thread.
            checkpointer.save((fresh / _TREE).resolve(), dict(tensors))
        manifest = {**record, **entries, "files": _file_digests(fresh / _TREE)}
        text = json.dumps(manifest, indent=1, allow_nan=False)
        files.write_whole(fresh / _MANIFEST, text + "\n")


def restore(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint and verifies every file and tensor against its manifest.

    Args:
      path: the folder that `save` wrote.

    Raises:
      DamagedCheckpoint: the manifest or the tensors cannot be read, a file has changed,
        or a tensor has another name, shape, dtype or digest than in the manifest.
    """
    path = pathlib.Path(path).resolve()
    try:
        manifest = _read_manifest(path)
        entries = manifest.pop("tensors")
        # Damaged files are found before Orbax reads them: when one of its reads fails,
        # others in parallel write tracebacks long after the error was handled.
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
    except Exception as error:  # Orbax, TensorStore and JSON each raise their own
        raise DamagedCheckpoint(
            f"{path}: not what was written ({_first_line(error)}); delete the folder, "
            "and convert the weights again"
        ) from None
    return Checkpoint(tensors, manifest)


def _compare(kind: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises ValueError with the names that have other values, or are on one side."""
    names = sorted(found.keys() | expected.keys())
    if wrong := [name for name in names if found.get(name) != expected.get(name)]:
        raise ValueError(f"{kind} missing, added or changed: {', '.join(wrong)}")


def _file_digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    return json.loads((path / _MANIFEST).read_text())


def _first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
