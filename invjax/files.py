"""Atomic writes, names of files, and opening what may be no file.

A reader finds the old contents or the complete new ones: everything is written to a
temporary path in the same folder, which takes the name of its destination only once it
is complete. Objects of a bucket (gs://, s3://, az://) appear whole by themselves.
"""

import contextlib
import errno
import glob
import hashlib
import io
import os
import pathlib
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, TypeAlias

from etils import epath

Path: TypeAlias = pathlib.Path | epath.Path
"""A path on this machine, or the address of an object."""

# And what changes the direction of text.
_REFUSED = '<>:"/\\|?*' + "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_REFUSED_KINDS = ("Cc", "Cs", "Zl", "Zp")
_DEVICES = ("con", "prn", "aux", "nul", "conin$", "conout$") + tuple(
    f"{word}{number}" for word in ("com", "lpt") for number in "123456789\xb9\xb2\xb3"
)
# File systems take 255 bytes; an ending and a number may follow.
_LONGEST_NAME = 200
# mkstemp adds ten characters or so to a name that may be as long as names can be.
_PREFIX = 40
_MOST_SYNCING = 16
_SCHEMES = ("gs", "s3", "az")


def located(address: str | os.PathLike[str]) -> Path:
    """The path of a file or folder, or of an object by its address.

    Args:
      address: a path, or an address that begins with gs://, s3:// or az://.

    Raises:
      ValueError: it is an address of another kind.

    Examples:
      >>> located("runs/a").name, located("gs://bucket/runs/a").name
      ('a', 'a')
    """
    text = os.fspath(address)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return pathlib.Path(text)
    if scheme not in _SCHEMES:
        raise ValueError(
            f"{text}: addresses that begin with "
            f"{', '.join(f'{each}://' for each in _SCHEMES)} are accepted"
        )
    return epath.Path(text)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the address of an object.

    Examples:
      >>> is_remote("gs://bucket/a"), is_remote("/gs/a")
      (True, False)
    """
    return "://" in os.fspath(path)


def expand_home(path: str) -> str:
    """Replaces a leading ~ or ~user by that home folder, where there is one.

    Examples:
      >>> expand_home("a/~b"), expand_home("~") == os.path.expanduser("~")
      ('a/~b', True)
    """
    return os.path.expanduser(path)


def portable_name(name: str) -> str:
    """A name for a file or a folder that every file system takes.

    Characters that one of them refuses are replaced by "_": separators, control
    characters, < > : " | ? *, a dot or a space at the end, and also those that change
    the direction of the text around them. Names of Windows' devices are given a "_" in
    front. Of a name longer than 200 bytes the start is kept, and a digest of the whole;
    an empty name becomes "_".

    Examples:
      >>> [portable_name(name) for name in ("c [1]", "a/b: c?", "end.", "NUL.x", "..")]
      ['c [1]', 'a_b_ c_', 'end_', '_NUL.x', '__']
    """
    letters = "".join(
        "_"
        if letter in _REFUSED or unicodedata.category(letter) in _REFUSED_KINDS
        else letter
        for letter in name
    )
    kept = letters.rstrip(". ")
    letters = kept + "_" * (len(letters) - len(kept)) or "_"
    if letters.partition(".")[0].rstrip().lower() in _DEVICES:
        letters = f"_{letters}"
    return shortened(letters, _LONGEST_NAME)


def shortened(name: str, most: int) -> str:
    """A name of at most `most` bytes of UTF-8; a longer one ends in a digest of it.

    Args:
      name: text without lone surrogates.
      most: number of bytes, at least 16.

    Examples:
      >>> shortened("photograph", 16), shortened("x" * 300, 16)
      ('photograph', 'xxxxxxx~0d4e2ca9')
    """
    data = name.encode()
    if len(data) <= most:
        return name
    digest = hashlib.sha256(data).hexdigest()[:8]
    return f"{data[: most - 9].decode(errors='ignore')}~{digest}"


def open_regular(path: str | os.PathLike[str]) -> BinaryIO | io.BytesIO:
    """Opens a file for reading, and refuses at once what is none.

    Opening a pipe that nobody writes to would wait for ever, and opening a device may
    do something.

    Args:
      path: the file; links are followed.

    Raises:
      OSError: it cannot be opened, or it is no regular file; `strerror` says why.

    Examples:
      >>> open_regular("/")
      Traceback (most recent call last):
      ...
      OSError: [Errno 22] is a folder: '/'
    """
    if is_remote(path):
        return io.BytesIO(located(path).read_bytes())
    _check_regular(os.stat(path).st_mode, path)

    def opener(name: str, flags: int) -> int:
        # It may have become a pipe since.
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opener)
    try:
        _check_regular(os.fstat(file.fileno()).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode):
        kind = "is a folder" if stat.S_ISDIR(mode) else "is a pipe, socket or device"
        raise OSError(errno.EINVAL, kind, os.fspath(path))


def write_whole(
    path: str | os.PathLike[str], data: bytes | str, *, durable: bool = False
) -> None:
    """Writes a file atomically, and replaces one that exists.

    Args:
      path: the file; missing parent folders are made.
      data: its contents; text is encoded as UTF-8.
      durable: as in `whole_file`.

    Examples:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_whole(f"{folder}/new/a.txt", "text")
      ...     pathlib.Path(folder, "new", "a.txt").read_text()
      'text'
    """
    with whole_file(path, durable=durable) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_first(path: str | os.PathLike[str], data: bytes | str) -> bool:
    """Writes a file atomically unless there is one; whether it was this call.

    Of several processes that write the same one at once, a single one succeeds.

    Args:
      path: the file; missing parent folders are made.
      data: its contents; text is encoded as UTF-8.

    Examples:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     first = write_first(f"{folder}/a.txt", "first")
      ...     second = write_first(f"{folder}/a.txt", "second")
      ...     first, second, pathlib.Path(folder, "a.txt").read_text()
      (True, False, 'first')
    """
    try:
        with whole_file(path, durable=True, exclusive=True) as file:
            file.write(data.encode() if isinstance(data, str) else data)
    except FileExistsError:
        return False
    return True


def settle(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Waits until files that were written have reached the disk.

    They are told at once, so that a disk takes them together.

    Args:
      paths: the files.
    """

    def sync(path: str | os.PathLike[str]) -> None:
        with open(path, "r+b") as file:
            os.fsync(file.fileno())

    paths = [path for path in paths if not is_remote(path)]
    if paths:
        with ThreadPoolExecutor(min(len(paths), _MOST_SYNCING)) as pool:
            list(pool.map(sync, paths))


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Deletes what a process that was killed while it wrote `path` has left beside it.

    Nobody else may be writing `path` meanwhile.
    """
    if is_remote(path):
        return
    path = pathlib.Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name[:_PREFIX])}.*"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(
    path: str | os.PathLike[str], *, durable: bool = False, exclusive: bool = False
) -> Iterator[BinaryIO]:
    """Opens a file for writing that replaces `path` once the `with` block succeeds.

    If the block raises, `path` is left as it was.

    Args:
      path: the file; missing parent folders are made.
      durable: whether the contents reach the disk before the file has its name, so that
        it is whole after a loss of power, too.
      exclusive: whether a file that is there is left alone; of several processes that
        write the same one, the first succeeds.

    Yields:
      The open binary file.

    Raises:
      FileExistsError: `exclusive`, and there is a file in the end.
    """
    path = located(path)
    if is_remote(path):
        buffer = io.BytesIO()
        yield buffer
        # Two processes may both find none.
        if exclusive and path.exists():
            raise FileExistsError(errno.EEXIST, "exists", os.fspath(path))
        path.write_bytes(buffer.getvalue())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name[:_PREFIX]}."
    )
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        # mkstemp lets only the owner read; give the permissions of an ordinary file.
        os.chmod(temporary, 0o666 & ~_umask())
        if exclusive:
            _name_first(temporary, path)
        else:
            os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_directory(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Makes a folder that replaces `path` once the `with` block succeeds.

    If the block raises, `path` is left as it was. A folder cannot be replaced in one
    operation: between two renames `path` does not exist for a moment.

    Args:
      path: the folder; missing parent folders are made.

    Yields:
      The new folder, empty, at a temporary path.
    """
    path = pathlib.Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=f".{path.name[:_PREFIX]}."
    ) as scratch:
        fresh = pathlib.Path(scratch, "new")
        fresh.mkdir()
        yield fresh
        if path.exists():
            path.rename(pathlib.Path(scratch, "old"))
        fresh.rename(path)


def remove(path: str | os.PathLike[str]) -> None:
    """Deletes a file, or a folder with all it contains; does nothing if it is absent.

    A link to a folder is deleted, and the folder is not touched.
    """
    path = located(path)
    if isinstance(path, epath.Path):
        if path.is_dir():
            path.rmtree()
        else:
            path.unlink(missing_ok=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _name_first(temporary: str, path: pathlib.Path) -> None:
    """Names a file unless there is one of that name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without links; two processes may both succeed, one after the
        # other.
        if path.exists():
            raise FileExistsError(errno.EEXIST, "exists", os.fspath(path)) from None
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
