"""Atomic writes: a write that fails leaves what was there."""

import os
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


@pytest.mark.parametrize("name", ["x" * 250, "ä" * 120, "猫" * 80])
def test_names_may_be_as_long_as_names_can_be(
    tmp_path: pathlib.Path, name: str
) -> None:
    files.write_whole(tmp_path / name, "text")
    with files.whole_directory(tmp_path / "folders" / name) as fresh:
        (fresh / "one").touch()
    assert (tmp_path / name).read_text() == "text"
    assert (tmp_path / "folders" / name / "one").exists()


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("~", "/home/me"),
        ("~/a/b", "/home/me/a/b"),
        ("a/~/b", "a/~/b"),
        ("~root/a", os.path.expanduser("~root/a")),
        ("~nobody-here/a", "~nobody-here/a"),
    ],
)
def test_the_home_folder_is_expanded_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, path: str, expanded: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert files.expand_home(path) == expanded


@pytest.mark.parametrize(
    ("name", "portable"),
    [
        ("Photo 1 (copy), [2]", "Photo 1 (copy), [2]"),
        ("été 猫", "été 猫"),
        ('a<b>c:d"e/f\\g|h?i*j', "a_b_c_d_e_f_g_h_i_j"),
        ("tab\there\x7f\u2028", "tab_here__"),
        ("com1", "_com1"),
        ("Lpt9.old", "_Lpt9.old"),
        ("console", "console"),
        (" . ", "___"),
        ("\ud800", "_"),
        ("", "_"),
        ("a\u202egnp.exe", "a_gnp.exe"),
        ("nul .txt", "_nul .txt"),
        ("COM\u00b2", "_COM\u00b2"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 191 + "~84a0678c"),
        ("\u00e9" * 150, "\u00e9" * 95 + "~cb1fa315"),
    ],
)
def test_names_for_every_file_system(name: str, portable: str) -> None:
    assert files.portable_name(name) == portable
    assert files.portable_name(portable) == portable


def test_only_files_are_opened(tmp_path: pathlib.Path) -> None:
    """A pipe that nobody writes to would be waited for."""
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with files.open_regular(tmp_path / "link") as file:
        assert file.read() == b"data"
    os.mkfifo(tmp_path / "pipe")
    for path, words in [
        (tmp_path / "pipe", "is a pipe, socket or device"),
        (pathlib.Path("/dev/zero"), "is a pipe, socket or device"),
        (tmp_path, "is a folder"),
    ]:
        with pytest.raises(OSError, match=words):
            files.open_regular(path)
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "none")


def test_a_file_that_becomes_a_pipe_is_not_waited_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"data")
    os.mkfifo(tmp_path / "pipe")
    as_file = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda path: as_file)
    with pytest.raises(OSError, match="is a pipe"):
        files.open_regular(tmp_path / "pipe")
