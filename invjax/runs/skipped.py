"""The images that a run passes over, and why: skipped.jsonl."""

import json
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from invjax import files

FILE = "skipped.jsonl"
"""Name of the file in the folder of a run; there is none where nothing is skipped."""


class Skipped(NamedTuple):
    """An image that is passed over.

    Attributes:
      image: its name, as records have it.
      source: its file, "ARCHIVE.tar/MEMBER", or "sample:NAME".
      reason: why, on one line.
      representation: name of the one representation that does not take it; None where
        it cannot be read at all.
    """

    image: str
    source: str
    reason: str
    representation: str | None = None


def write(path: str | os.PathLike[str], skipped: Iterable[Skipped]) -> None:
    """Writes images that are passed over as lines of strict JSON, atomically.

    Without any, nothing is written. Each process, or part of a run, writes a file of
    its own.

    Args:
      path: the file; missing folders are made.
      skipped: the images; those that are given twice are written once.
    """
    unique = list(dict.fromkeys(skipped))
    if unique:
        # As ASCII: a file's name may hold bytes that are no UTF-8.
        lines = (f"{json.dumps(item._asdict())}\n" for item in unique)
        files.write_whole(path, "".join(lines))


def summary(skipped: Sequence[Skipped], num_images: int) -> str:
    """A line that says how many images are passed over, and why the first is.

    Args:
      skipped: at least one image.
      num_images: number of images that the run was given.

    Examples:
      >>> summary([Skipped("cat", "a/cat.jpg", "no such file")], 20)
      '1 of 20 images is left out: cat: no such file'
    """
    first, count = skipped[0], len(skipped)
    verb = "is" if count == 1 else "are"
    which = "" if count == 1 else "the first is "
    return (
        f"{count} of {num_images} images {verb} left out: {which}{first.image}: "
        f"{first.reason}"
    )
