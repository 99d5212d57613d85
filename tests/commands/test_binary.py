"""How every binary ends: an exit code, and one line for what went wrong."""

import os
import sys
from typing import Any

import pytest
from absl.testing import flagsaver

from invjax.commands import binary
from invjax.images.pixels import ImageError
from invjax.networks.weights.pretrained import MissingWeights
from invjax.runs.errors import Refusal


def _end(
    monkeypatch: pytest.MonkeyPatch, error: BaseException | None, *words: str
) -> int | str | None:
    """Exit code of a binary whose main raises an error; None without an exit."""

    def run(guarded: Any, *, flags_parser: Any) -> None:
        guarded(["folder/some_binary.py", *words])

    def main() -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(sys, "argv", ["folder/some_binary.py", *words])
    monkeypatch.setattr(binary.app, "run", run)
    with flagsaver.flagsaver():
        try:
            binary.run(main)
        except SystemExit as ended:
            return ended.code
    return None


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (Refusal("--workdir is missing"), 1, "--workdir is missing"),
        (ImageError("a.png: no such file"), 1, "a.png: no such file"),
        (MissingWeights("no weights"), 1, "no weights"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_is_expected_ends_in_one_line(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    assert _end(monkeypatch, error) == code
    assert capsys.readouterr().err == f"some_binary.py: {line}\n"


def test_a_binary_that_is_done(monkeypatch: pytest.MonkeyPatch):
    assert _end(monkeypatch, None) is None


def test_arguments_are_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert _end(monkeypatch, None, "stray") == 2
    assert "unexpected argument 'stray'" in capsys.readouterr().err


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ZeroDivisionError):
        _end(monkeypatch, ZeroDivisionError())


def test_nobody_reads_on(monkeypatch: pytest.MonkeyPatch):
    """As in `--list | head`."""
    replaced = []
    monkeypatch.setattr(os, "dup2", lambda *numbers: replaced.append(numbers))
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1, raising=False)
    assert _end(monkeypatch, BrokenPipeError()) == 1
    assert len(replaced) == 1 and replaced[0][1] == 1
