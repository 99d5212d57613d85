"""Tar archives of images, as WebDataset has them, read where they lie.

Members are listed by their headers and read by offset: nothing is unpacked, no link is
followed, and no name of a member is ever used as a path. Python's `tarfile` reads the
headers. An archive may come from a stranger, so what `tarfile` can be made to do is
bounded: a header takes at most 1 MiB, and members follow each other in the file.
"""

import os
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from invjax import files
from invjax.images import reading
from invjax.images.pixels import ImageError
from invjax.images.reading import UnreadableImage

ENDINGS = (".tar",)
"""Endings of files that are taken for archives, in lower case."""

_MOST_OF_A_HEADER = 2**20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


class Member(NamedTuple):
    """A member of an archive.

    Attributes:
      archive: path of the archive.
      name: its name as it is stored, which may be anything.
      offset: where its contents begin, in bytes.
      size: number of bytes of its contents.
      problem: why it cannot be read; None if it can.
    """

    archive: str
    name: str
    offset: int
    size: int
    problem: str | None = None


def members(path: str) -> list[Member]:
    """Lists what is in an archive, except folders and hidden files.

    Args:
      path: an uncompressed tar archive: ustar, pax or GNU.

    Returns:
      Members in the order of the archive. Two may have one name.

    Raises:
      ImageError: the archive cannot be opened, is compressed, damaged or not whole.
    """
    found: list[Member] = []
    try:
        with files.open_regular(path) as file:
            start = file.read(2)
            if start in _COMPRESSED:
                raise ImageError(
                    f"{path}: is compressed ({_COMPRESSED[start]}); uncompressed tar "
                    "archives are accepted, whose members can be read where they lie"
                )
            file.seek(0)
            for member in _headers(file, path):
                found.append(member)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    # Headers of strangers make tarfile raise exceptions of many types.
    except (Exception, RecursionError) as error:
        reason = getattr(error, "strerror", None)
        after = f" after {len(found)} members" if found else ""
        raise ImageError(
            f"{path}: {reason or f'damaged or not whole{after}, or no tar archive'}; "
            "uncompressed tar archives are accepted"
        ) from None
    return found


def contents(member: Member, place: str) -> bytes:
    """Reads the contents of a member.

    Args:
      member: the member.
      place: what errors call it.

    Raises:
      UnreadableImage: it is a link or a device, or larger than `reading.MOST_BYTES`, or
        the archive cannot be read or has become shorter.
    """
    if member.problem is not None:
        raise UnreadableImage(place, member.problem)
    if member.size > reading.MOST_BYTES:
        raise UnreadableImage(
            place,
            f"{member.size / 2**30:.3g} GiB; up to {reading.MOST_BYTES / 2**30:g} GiB "
            "are read",
        )
    try:
        with files.open_regular(member.archive) as file:
            file.seek(member.offset)
            data = file.read(member.size)
    except OSError as error:
        raise UnreadableImage(
            place, f"the archive cannot be read ({error.strerror or error})"
        ) from None
    if len(data) < member.size:
        raise UnreadableImage(place, "the archive is shorter than when it was listed")
    return data


def _headers(file: BinaryIO, path: str) -> Iterator[Member]:
    end = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=_HeaderFile(file), mode="r:") as archive:
        before = -1
        while (header := archive.next()) is not None:
            # Otherwise the archive would hold the headers of a million members.
            archive.members.clear()  # type: ignore[attr-defined]
            is_forward = before < header.offset <= header.offset_data <= end
            if not is_forward or header.size < 0:
                raise tarfile.ReadError("members do not follow each other")
            before = header.offset
            problem = _problem(header)
            if problem is None and header.offset_data + header.size > end:
                raise tarfile.ReadError("not whole")
            base = header.name.rstrip("/").rpartition("/")[2]
            if header.isdir() or base.startswith(".") or not base:
                continue
            yield Member(path, header.name, header.offset_data, header.size, problem)
        # tarfile takes a damaged header for the end; a block of zeros is one, and so is
        # the end of the file.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("a damaged header")


def _problem(header: tarfile.TarInfo) -> str | None:
    """Why a member cannot be read as a file where it lies."""
    if header.issym() or header.islnk():
        return "is a link in the archive, and links are not followed"
    if header.isdev():
        return "is a device or a pipe in the archive"
    if header.issparse():
        return "is stored as a sparse file, which is not read"
    if not header.isreg() or header.type not in tarfile.REGULAR_TYPES:
        return "is of an unknown kind in the archive"
    return None


class _HeaderFile:
    """A file of which only so much is read at once as a header can have."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_OF_A_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
