"""A number is one process's, as long as that process lives and no longer."""

import pathlib
import signal
import subprocess
import sys

import pytest

from invjax.runs import locks
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.processes import Process

HOLD = """
import pathlib, sys, time
from invjax.runs import locks
from invjax.runs.processes import Process
with locks.held(pathlib.Path(sys.argv[1]), Process(1, 3, "--process_id")):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_of_a_number_is_refused_until_the_first_is_dead(
    tmp_path: pathlib.Path,
):
    mine, other = Process(1, 3, "--process_id"), Process(2, 3, "--process_id")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == b"held\n"
        with pytest.raises(Refusal, match=f"process {first.pid} since") as caught:
            with locks.held(tmp_path, mine):
                pass
        assert "--process_id" in str(caught.value) and "\n" not in str(caught.value)
        with locks.held(tmp_path, other):
            pass
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(Refusal, match="is at work there; end it before --over"):
            RunFolder.claim(str(tmp_path), overwrite=True)
        first.send_signal(signal.SIGKILL)
    # What it left is no lock.
    assert list((tmp_path / "metrics").glob("process-1.lock"))
    with locks.held(tmp_path, other):
        locks.remove_left(tmp_path)
        left = [path.name for path in (tmp_path / "metrics").iterdir()]
        assert left == ["process-2.lock"]
    with locks.held(tmp_path, mine):
        with pytest.raises(Refusal, match="number 1 of the run already"):
            with locks.held(tmp_path, mine):
                pass
    assert not list((tmp_path / "metrics").iterdir())
    RunFolder.claim(str(tmp_path), overwrite=True)


def test_alone_it_is_told_how_to_share(tmp_path: pathlib.Path):
    with locks.held(tmp_path, Process()):
        with pytest.raises(Refusal, match="--num_processes and --process_id"):
            with locks.held(tmp_path, Process()):
                pass


def test_without_locks_of_the_file_system_a_run_goes_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with locks.held(tmp_path, Process()), locks.held(tmp_path, Process()):
        pass
    assert not list((tmp_path / "metrics").iterdir())
