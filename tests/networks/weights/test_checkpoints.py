"""A checkpoint is restored exactly as it was written, or refused."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

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
