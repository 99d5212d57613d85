"""How every binary ends: an exit code, and one line for what went wrong."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
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


TOLD_TO_END = """
import hashlib
import sys

from invjax.commands import binary

binary._SECONDS_TO_END = 1.0


def main() -> None:
    try:
        print("begun", flush=True)
        if sys.argv[1:] == []:
            # Without a step of Python's own, as a compiler may be.
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        while True:
            pass
    finally:
        print("cleaned up", flush=True)


binary.run(main)
"""


@pytest.mark.skipif(os.name != "posix", reason="others have no SIGTERM")
@pytest.mark.parametrize("is_stuck", [False, True])
def test_sigterm_ends_what_is_under_way(is_stuck: bool):
    script = TOLD_TO_END if is_stuck else TOLD_TO_END.replace("if sys", "if not sys")
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.terminate()
        said, error = process.communicate(timeout=60)
    assert process.returncode == 143
    if not is_stuck:
        assert said == "cleaned up\n" and error == "-c: told to end\n"


def test_a_signal_of_ours_is_ours_only_while_we_run(monkeypatch: pytest.MonkeyPatch):
    before = signal.getsignal(signal.SIGTERM)
    num_threads = threading.active_count()
    assert _end(monkeypatch, None) is None
    assert signal.getsignal(signal.SIGTERM) == before
    assert threading.active_count() == num_threads
