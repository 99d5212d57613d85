"""Atomic writes: a write that fails leaves what was there."""

import pathlib

import pytest

from invjax import files


def test_a_failed_write_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a" / "b.txt"
    files.write_whole(path, "old")
    with pytest.raises(RuntimeError), files.whole_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [item.name for item in path.parent.iterdir()] == ["b.txt"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "folder"
    with files.whole_directory(path) as fresh:
        (fresh / "one").write_text("1")
    with pytest.raises(RuntimeError), files.whole_directory(path) as fresh:
        (fresh / "two").write_text("2")
        raise RuntimeError
    assert [item.name for item in path.iterdir()] == ["one"]
    with files.whole_directory(path) as fresh:
        (fresh / "two").write_text("2")
    assert [item.name for item in path.iterdir()] == ["two"]
    assert [item.name for item in tmp_path.iterdir()] == ["folder"]


def test_remove_takes_files_and_folders(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name in ("folder", "file", "absent"):
        files.remove(tmp_path / name)
    assert not list(tmp_path.iterdir())
