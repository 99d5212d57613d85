"""A checkpoint is restored exactly as it was written, or refused."""

import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from invjax import files
from invjax.networks.weights import checkpoints
from invjax.networks.weights.checkpoints import DamagedCheckpoint

TENSORS = {
    "conv1/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "conv1/bias": np.linspace(0, 1, 4, dtype=np.float32),
    "steps": np.array(7, np.int32),
}
RECORD = {"network": "micro", "numbers": [1.5, 2.0]}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    checkpoints.save(tmp_path / "saved", TENSORS, RECORD)
    return tmp_path / "saved"


def _edit(folder: pathlib.Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def _stamps(folder: pathlib.Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def _refused(folder: pathlib.Path) -> str:
    with pytest.raises(DamagedCheckpoint) as caught:
        checkpoints.restore(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def test_what_was_written_comes_back(folder: pathlib.Path) -> None:
    assert checkpoints.exists(folder)
    assert checkpoints.names(folder) == TENSORS.keys()
    tensors, record = checkpoints.restore(folder)
    assert record == RECORD
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], array)
        assert tensors[name].dtype == array.dtype


def test_a_relative_path_works(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    checkpoints.save("other", TENSORS, RECORD)
    assert checkpoints.restore("other").record == RECORD


def test_saving_again_replaces_all(folder: pathlib.Path) -> None:
    checkpoints.save(folder, {"other": np.zeros(2)}, {})
    assert checkpoints.names(folder) == {"other"}
    assert [path.name for path in folder.parent.iterdir()] == ["saved"]


def test_the_same_contents_are_not_written_again(folder: pathlib.Path) -> None:
    before = _stamps(folder)
    checkpoints.save(folder, TENSORS, RECORD)
    assert _stamps(folder) == before


def test_a_damaged_checkpoint_is_written_again(folder: pathlib.Path) -> None:
    """Otherwise the advice to convert once more would not help."""
    path = next(p for p in (folder / "tree").rglob("*") if p.is_file())
    path.write_bytes(b"damaged")
    _refused(folder)
    checkpoints.save(folder, TENSORS, RECORD, replace=False)
    assert checkpoints.restore(folder).record == RECORD
    assert len(list(folder.iterdir())) == 2


def test_the_late_one_drops_its_own_copy(folder: pathlib.Path) -> None:
    before = _stamps(folder)
    checkpoints.save(folder, {"other": np.zeros(2)}, {}, replace=False)
    assert _stamps(folder) == before
    assert checkpoints.restore(folder).record == RECORD


def test_a_checkpoint_of_before_trees_had_names_is_read(folder: pathlib.Path) -> None:
    _edit(folder, lambda manifest: manifest.pop("tree"))
    assert checkpoints.restore(folder).record == RECORD
    checkpoints.save(folder, TENSORS, {})
    assert checkpoints.restore(folder).record == {}
    assert len(list(folder.iterdir())) == 2


def test_a_manifest_cannot_point_out_of_its_folder(folder: pathlib.Path) -> None:
    _edit(folder, lambda manifest: manifest.update(tree="../saved/tree"))
    assert checkpoints.restore(folder).record == RECORD
    _edit(folder, lambda manifest: manifest.update(tree=".."))
    _refused(folder)


def test_what_a_killed_process_left_is_cleaned(folder: pathlib.Path) -> None:
    (folder / ".new_killed" / "tree").mkdir(parents=True)
    (folder / ".manifest.json.killed").write_text("{")
    (folder / "tree_killed").mkdir()
    (folder / "notes.txt").write_text("a user's own")
    assert checkpoints.restore(folder).record == RECORD
    checkpoints.save(folder, TENSORS, RECORD)
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "tree", "notes.txt"}


def test_without_locks_only_old_leftovers_are_cleaned(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems that have none, where another process may be writing."""
    monkeypatch.setattr(checkpoints, "fcntl", None)
    for name in (".new_young", ".new_old", "tree_old"):
        (folder / name).mkdir()
    for name in (".new_old", "tree_old"):
        os.utime(folder / name, (0, 0))
    checkpoints.save(folder, TENSORS, {"more": 1})
    assert checkpoints.restore(folder).record == {"more": 1}
    names = {path.name for path in folder.iterdir()}
    assert ".new_young" in names and "tree" in names
    assert names.isdisjoint({".new_old", "tree_old"})


def test_a_reader_whose_arrays_were_replaced_begins_again(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = checkpoints._file_digests
    replaced: list[pathlib.Path] = []

    def replace_first(tree: pathlib.Path) -> dict[str, str]:
        if not replaced:
            replaced.append(tree)
            checkpoints.save(folder, {"other": np.zeros(2, np.float32)}, {})
            files.remove(folder / "tree")
        return digests(tree)

    monkeypatch.setattr(checkpoints, "_file_digests", replace_first)
    assert checkpoints.restore(folder).tensors.keys() == {"other"}


def _constant(value: int) -> dict[str, np.ndarray]:
    return {f"conv{i}/kernel": np.full((9, 9), value, np.float32) for i in range(3)}


def test_readers_never_see_half_of_what_threads_replace(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "net"
    checkpoints.save(folder, _constant(0), {"value": 0})
    stop = threading.Event()
    failures: list[BaseException] = []

    def write(value: int) -> None:
        try:
            while not stop.is_set():
                checkpoints.save(folder, _constant(value), {"value": value})
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(value,)) for value in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        seen: set[int] = set()
        for turn in range(200):
            if turn >= 12 and len(seen) > 1:
                break
            tensors, record = checkpoints.restore(folder)
            seen.add(record["value"])
            for array in tensors.values():
                assert (array == record["value"]).all()
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not failures
    assert len(seen) > 1
    checkpoints.save(folder, _constant(3), {"value": 3})
    assert len(list(folder.iterdir())) == 2


_PROCESS = """
import os, pathlib, signal, sys
import numpy as np
from invjax.networks.weights import checkpoints

folder, is_killed = pathlib.Path(sys.argv[1]), sys.argv[2] == "killed"
if is_killed:  # after its arrays were written, before its manifest is
    checkpoints._file_digests = lambda tree: os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(5):
    tensors = {"a": np.full((50, 50), turn, np.float32)}
    checkpoints.save(folder, tensors, {"value": turn}, replace=turn > 0)
    found = checkpoints.restore(folder)
    assert (found.tensors["a"] == found.record["value"]).all()
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process as POSIX does")
@pytest.mark.parametrize("number", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_at_first_use_of_which_one_is_killed(
    tmp_path: pathlib.Path, number: int
) -> None:
    """As those of a job array, while this one writes and reads, too."""
    endings = ["killed", *["done"] * (number - 1)]
    folder = tmp_path / "weights" / "net"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(folder), ending],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for ending in endings
    ]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for value in range(100, 105):
            tensors = {"a": np.full(9, value, np.float32)}
            checkpoints.save(folder, tensors, {"value": value})
            restored, record = checkpoints.restore(folder)
            assert (restored["a"] == record["value"]).all()
        errors = [process.communicate(timeout=120)[1] for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    expected = [-9, *[0] * (number - 1)]
    assert [process.returncode for process in running] == expected, errors
    checkpoints.save(folder, TENSORS, RECORD)
    assert checkpoints.restore(folder).record == RECORD
    assert len(list(folder.iterdir())) == 2
    assert [path.name for path in folder.parent.iterdir()] == ["net"]


def test_a_failed_save_leaves_the_old_checkpoint(folder: pathlib.Path) -> None:
    with pytest.raises(ValueError):
        checkpoints.save(folder, TENSORS, {"bad": float("nan")})
    assert checkpoints.restore(folder).record == RECORD
    assert [path.name for path in folder.parent.iterdir()] == ["saved"]


def test_every_flipped_byte_is_noticed(folder: pathlib.Path) -> None:
    """Orbax restores most of these silently; the manifest shows them."""
    for path in [p for p in (folder / "tree").rglob("*") if p.is_file()]:
        data = bytearray(path.read_bytes())
        place = len(data) // 2
        data[place] ^= 0x10
        path.write_bytes(data)
        assert str(path.relative_to(folder / "tree")) in _refused(folder)
        data[place] ^= 0x10
        path.write_bytes(data)
    checkpoints.restore(folder)


def test_a_missing_or_added_file_is_noticed(folder: pathlib.Path) -> None:
    (folder / "tree" / "stray").write_text("x")
    assert "stray" in _refused(folder)
    (folder / "tree" / "stray").unlink()
    (folder / "tree" / "_METADATA").unlink()
    assert "_METADATA" in _refused(folder)


def test_a_changed_value_is_noticed(folder: pathlib.Path) -> None:
    """The files are intact, but a value is not the one in the manifest."""
    changed = TENSORS | {"conv1/bias": TENSORS["conv1/bias"] + np.float32(1e-6)}
    promised = json.loads((folder / "manifest.json").read_text())["tensors"]
    checkpoints.save(folder, changed, RECORD)
    _edit(folder, lambda manifest: manifest.update(tensors=promised))
    assert "tensor missing, added or changed: conv1/bias" in _refused(folder)


def test_a_renamed_tensor_is_noticed(folder: pathlib.Path) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        manifest["tensors"]["conv2/bias"] = manifest["tensors"].pop("conv1/bias")

    _edit(folder, rename)
    _refused(folder)


@pytest.mark.parametrize("shape", [[4, 3, 2], [2, 3, 5], [2, 3, 2], [24]])
def test_another_shape_is_noticed(folder: pathlib.Path, shape: list[int]) -> None:
    _edit(folder, lambda m: m["tensors"]["conv1/kernel"].update(shape=shape))
    _refused(folder)


def test_another_dtype_is_noticed(folder: pathlib.Path) -> None:
    _edit(folder, lambda m: m["tensors"]["conv1/kernel"].update(dtype="float16"))
    _refused(folder)


def test_a_broken_or_missing_manifest_is_refused(folder: pathlib.Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text()[:-20])
    _refused(folder)
    manifest.unlink()
    assert not checkpoints.exists(folder)
    _refused(folder)


def test_digests_do_not_depend_on_byte_order_or_layout() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    digest = checkpoints.tensor_digest(array)
    assert checkpoints.tensor_digest(array.astype(">f4")) == digest
    assert checkpoints.tensor_digest(np.asfortranarray(array)) == digest
    assert checkpoints.tensor_digest(-array) != digest
