"""Arrays on disk with a manifest, against which every restore is verified.

Orbax, which writes the arrays, notices neither damaged files nor a target of another
shape. So `manifest.json` holds the SHA-256, shape and dtype of every tensor and the
SHA-256 of every file. Orbax is imported in this module only.

Several processes may save and restore one checkpoint at a time. The arrays are in a
folder that the manifest names, and that is never changed once it is complete. A new
manifest replaces the old one in one operation, so that a reader finds either the old
checkpoint or the new one. Writers take turns by a lock on the checkpoint's folder, and
readers hold a shared lock on the arrays, which are not deleted meanwhile. The system
gives up the locks of a process that is killed. Where a file system has no locks, a
reader that loses its arrays begins again with the new manifest.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

import jax
import numpy as np
import orbax.checkpoint as ocp

from invjax import files

_MANIFEST = "manifest.json"
_TREE = "tree"
_SCRATCH = ".new_"

# Without locks, what another process may be writing or reading is left for so long.
_GRACE_SECONDS = 3600.0

# How often a reader begins again because the checkpoint was replaced meanwhile.
_MOST_ATTEMPTS = 100


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
        return frozenset(json.loads(_manifest_text(pathlib.Path(path)))["tensors"])
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
    *,
    replace: bool = True,
) -> None:
    """Writes a folder with tensors and their manifest, atomically.

    A checkpoint with the same contents is left as it is. What a process that was killed
    has left in the folder is deleted.

    Args:
      path: the folder.
      tensors: arrays by name.
      record: JSON values to keep in the manifest.
      replace: whether another checkpoint that is there is replaced; otherwise it is
        kept if it is complete.

    Raises:
      ValueError: the record holds a number that is not finite. Nothing is written.
    """
    path = pathlib.Path(path).absolute()
    entries = {
        name: {
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "sha256": tensor_digest(array),
        }
        for name, array in tensors.items()
    }
    facts = {**record, "tensors": entries}
    text = json.dumps(facts, allow_nan=False)
    path.mkdir(parents=True, exist_ok=True)
    try:
        with _lock(path) as is_locked:
            wanted = json.loads(text) if replace else None
            if not _is_complete(path, wanted):
                _write(path, tensors, facts)
            _clean(path, is_locked=is_locked)
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()  # if it is empty, since nothing was written


def _write(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> None:
    """Writes the arrays to a folder of their own, and then the manifest."""
    # A process that failed may have deleted the empty folder meanwhile.
    path.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp(dir=path, prefix=_SCRATCH))
    try:
        fresh = scratch / _TREE
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(fresh, dict(tensors))
        tree = path / _TREE
        while tree.exists():
            tree = path / f"{_TREE}_{secrets.token_hex(4)}"
        manifest = {**facts, "tree": tree.name, "files": _file_digests(fresh)}
        fresh.rename(tree)
        files.write_whole(path / _MANIFEST, json.dumps(manifest, indent=1) + "\n")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_complete(path: pathlib.Path, wanted: Mapping[str, Any] | None) -> bool:
    """Whether a folder has a whole checkpoint.

    Args:
      path: the folder.
      wanted: what its manifest must say besides the files; None for anything.
    """
    try:
        manifest = json.loads(_manifest_text(path))
        tree, digests = manifest.pop("tree", _TREE), manifest.pop("files")
        is_wanted = wanted is None or manifest == wanted
        return is_wanted and _file_digests(path / tree) == digests
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _clean(path: pathlib.Path, *, is_locked: bool) -> None:
    """Deletes what does not belong to the checkpoint, if nobody is at it.

    Args:
      path: the folder.
      is_locked: whether this process is the only one that writes to it.
    """
    try:
        tree = json.loads(_manifest_text(path)).get("tree", _TREE)
    except (OSError, ValueError, AttributeError):
        return
    for stray in path.iterdir():
        is_scratch = stray.name.startswith((_SCRATCH, f".{_MANIFEST}."))
        is_old_tree = stray.name.startswith(_TREE) and stray.name != tree
        if not is_scratch and not is_old_tree:
            continue
        with contextlib.suppress(OSError):
            is_old = time.time() - stray.stat().st_mtime > _GRACE_SECONDS
            with _lock(stray, wait=False) as is_unused:
                if is_old or (is_locked and (is_scratch or is_unused)):
                    files.remove(stray)


@contextlib.contextmanager
def _lock(
    folder: pathlib.Path, *, shared: bool = False, wait: bool = True
) -> Iterator[bool]:
    """Locks a folder against other processes and threads that lock it, too.

    Args:
      folder: the folder, of which nothing is changed.
      shared: whether others may have a shared lock at the same time.
      wait: whether to wait for others.

    Yields:
      Whether it is locked: not where others hold it, or the file system has no locks.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # it is gone, or the system does not open folders
        yield False
        return
    try:
        is_locked = fcntl is not None
        if fcntl is not None:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            try:
                fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
            except OSError:
                is_locked = False
        yield is_locked
    finally:
        os.close(descriptor)


def restore(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint and verifies every file and tensor against its manifest.

    Args:
      path: the folder that `save` wrote.

    Raises:
      DamagedCheckpoint: the manifest or the tensors cannot be read, a file has changed,
        or a tensor has another name, shape, dtype or digest than in the manifest.
    """
    path = pathlib.Path(path).resolve()
    for attempt in range(_MOST_ATTEMPTS):
        text = None
        try:
            text = _manifest_text(path)
            return _restore(path, json.loads(text))
        except Exception as error:  # Orbax, TensorStore and JSON each raise their own
            if attempt + 1 < _MOST_ATTEMPTS and _is_replaced(path, text):
                continue
            raise DamagedCheckpoint(
                f"{path}: not what was written ({_first_line(error)}); delete the "
                "folder, and convert the weights again"
            ) from None
    raise AssertionError("unreachable")


def _is_replaced(path: pathlib.Path, text: str | None) -> bool:
    """Whether there is another manifest than the one that was read."""
    try:
        return text is not None and _manifest_text(path) != text
    except (OSError, ValueError):
        return False


def _restore(path: pathlib.Path, manifest: dict[str, Any]) -> Checkpoint:
    """Reads the checkpoint of a manifest."""
    entries = manifest.pop("tensors")
    tree = path / pathlib.Path(manifest.pop("tree", _TREE)).name
    digests = manifest.pop("files")
    with _lock(tree, shared=True):
        # Damaged files are found before Orbax reads them: when one of its reads fails,
        # others in parallel write tracebacks long after the error was handled.
        _compare("file", _file_digests(tree), digests)
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata(tree).item_metadata.tree
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
            restored = checkpointer.restore(tree, target)
    tensors = {name: np.asarray(restored[name]) for name in entries}
    _compare(
        "tensor",
        {name: tensor_digest(array) for name, array in tensors.items()},
        {name: entry["sha256"] for name, entry in entries.items()},
    )
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


def _manifest_text(path: pathlib.Path) -> str:
    return (path / _MANIFEST).read_text()


def _first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
