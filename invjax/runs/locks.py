"""A lock that one process of a run holds, so that no other one has its number.

It is an advisory lock of the operating system on metrics/process-N.lock. The kernel
releases it when the process ends, however it ends, so there are no stale locks: a file
that is left over is no lock. What the file says, host, process and time, is for people.

On a shared folder the lock counts on all machines where the file system carries locks
to its server: NFS does, and gives up those of a dead client after about a minute and a
half; Lustre and BeeGFS where they are mounted or configured so. Where a file system has
no locks the run goes on without. Two processes of one number then do the same work
twice; each file is written whole, so that nothing is lost or mixed. Buckets have none.
"""

import contextlib
import datetime
import errno
import os
import socket
from collections.abc import Iterator

from invjax import files
from invjax.runs import shards
from invjax.runs.errors import Refusal
from invjax.runs.processes import Process

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def held(folder: files.Path, process: Process) -> Iterator[None]:
    """Holds the lock of a process's number while the `with` block runs.

    Args:
      folder: folder of the run.
      process: this process.

    Raises:
      Refusal: another process holds it.
    """
    path = folder / shards.FOLDER / f"process-{process.number}.lock"
    with _held(path) as holder:
        if holder is not None:
            raise Refusal(_refusal(process, holder, path))
        yield


@contextlib.contextmanager
def finishing(folder: files.Path) -> Iterator[bool]:
    """Holds the lock of whoever finishes a run; says whether it is this process.

    Args:
      folder: folder of the run.
    """
    with _held(folder / shards.FOLDER / "finishing.lock") as holder:
        yield holder is None


def refuse_if_held(folder: files.Path) -> None:
    """Refuses to empty the folder of a run in which a process is at work.

    Raises:
      Refusal: one is, as far as the file system knows.
    """
    for path in _files(folder):
        with _held(path) as holder:
            if holder is not None:
                raise Refusal(
                    f"--workdir={folder}: {holder} is at work there; end it before "
                    "--overwrite"
                )


def remove_left(folder: files.Path) -> None:
    """Deletes the files of locks that processes that were killed have left."""
    for path in _files(folder):
        # A lock that is taken is deleted when it is given back.
        with _held(path):
            pass


def _files(folder: files.Path) -> list[files.Path]:
    return sorted((folder / shards.FOLDER).glob("*.lock"))


@contextlib.contextmanager
def _held(path: files.Path) -> Iterator[str | None]:
    """Holds a lock where the file system has locks; yields what its holder says.

    That is None where it is this process.
    """
    if fcntl is None or files.is_remote(path):
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, holder = _locked(path)
    if holder is not None:
        os.close(handle)
        yield holder
        return
    try:
        yield None
    finally:
        # Before it is closed, so that nobody locks a file that has no name any more.
        path.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: files.Path) -> tuple[int, str | None]:
    """A handle of the file, and what its holder says; None where it is locked now."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                said = os.pread(handle, 200, 0).decode(errors="replace").strip()
                return handle, said or f"whoever holds {path}"
        if _is_named(handle, path):
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            words = f"{socket.gethostname()} process {os.getpid()} since {now}\n"
            os.ftruncate(handle, 0)
            os.pwrite(handle, words.encode(), 0)
            return handle, None
        # Its holder has just ended and deleted it.
        os.close(handle)


def _is_named(handle: int, path: files.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _refusal(process: Process, holder: str, path: files.Path) -> str:
    if process.count == 1:
        return (
            f"--workdir={path.parent.parent}: {holder} is at work there; wait for it, "
            "or share the work by --num_processes and --process_id"
        )
    source = process.source or "--process_id"
    return (
        f"{source}: {holder} is at work in {path.parent.parent} as number "
        f"{process.number} of the run already; give every process a number of its own"
    )
