"""Names of images, which become folders of the output.

Names come from files, lists and archives of strangers. Each is a relative path of one
or more components that every file system takes (`files.portable_name`), so that none
leaves the folder of the output, and no two differ by upper and lower case alone.
"""

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from invjax import files

# A path may have a thousand bytes or so; folders come before and after a name.
_LONGEST = 400


class Place(NamedTuple):
    """Where an image lies, as far as its name is concerned.

    Attributes:
      stem: its name if no other image has it.
      folder: path of the folder, absolute, with the system's separator; None of an
        image that has none, and then is always called `stem`.
      file: name of the file with its ending.
    """

    stem: str
    folder: str | None
    file: str


def in_archive(archive: str, member: str) -> Place:
    """The place of an archive's member, as if the archive were a folder.

    The stem goes to the first dot, as in WebDataset.

    Args:
      archive: absolute path of the archive.
      member: name of the member as it is stored; whatever is in it, the folder is
        inside that of the archive.

    Examples:
      >>> in_archive("/sets/a.tar", "../x/cat.01.jpg")[1:]
      ('/sets/a/__/x', 'cat.01.jpg')
    """
    *parents, own = [part for part in member.split("/") if part not in ("", ".")]
    above = os.path.splitext(archive)[0]
    folder = os.path.join(above, *map(files.portable_name, parents))
    return Place(files.portable_name(own.partition(".")[0]), folder, own)


def different(places: Sequence[Place]) -> list[str]:
    """A name for each image, as short as tells it from all others.

    An image is called by its stem. Those of equal stems are named by their path below
    the folder that they share; if these are equal too, with their ending; and if even
    these are, by a number in the end.

    Examples:
      >>> different([Place("1", "/set/cat", "1.jpg"), Place("1", "/set/dog", "1.jpg")])
      ['cat/1', 'dog/1']
    """
    names = [place.stem for place in places]
    last: list[int] = []
    for members in _equal(names, range(len(names))):
        movable = [n for n in members if places[n].folder is not None]
        if not movable:
            continue
        folders = [folder for n in movable if (folder := places[n].folder) is not None]
        shared = os.path.commonpath(folders)
        for n, folder in zip(movable, folders, strict=True):
            names[n] = _below(shared, folder, places[n].stem)
        for equal in _equal(names, members):
            for n in equal:
                if (folder := places[n].folder) is not None:
                    last.append(n)
                    names[n] = _below(
                        shared, folder, files.portable_name(places[n].file)
                    )
    # These may still equal each other, by case, or the stem of "one.jpg.png".
    ending = set(last)
    taken = {_folded(name) for n, name in enumerate(names) if n not in ending}
    numbers: dict[str, int] = {}
    for n in last:
        name, folded = names[n], _folded(names[n])
        number = numbers.get(folded, 1)
        while _folded(names[n]) in taken:
            number += 1
            names[n] = f"{name}_{number}"
        numbers[folded] = number
        taken.add(_folded(names[n]))
    return names


def _equal(names: Sequence[str], members: Iterable[int]) -> list[list[int]]:
    """Members whose names no folder could tell apart, in groups of two or more."""
    groups: dict[str, list[int]] = {}
    for number in members:
        groups.setdefault(_folded(names[number]), []).append(number)
    return [group for group in groups.values() if len(group) > 1]


def _folded(name: str) -> str:
    """What equal names have in common where file systems ignore case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _below(shared: str, folder: str, own: str) -> str:
    """A name from the path of a folder below another, with "/"."""
    parts = os.path.relpath(folder, shared).split(os.sep)
    # A folder "one.png" would stand where originals/one.png is written.
    above = [
        files.portable_name(re.sub(r"\.png$", "_png", part, flags=re.IGNORECASE))
        for part in parts
        if part != os.curdir
    ]
    name = posixpath.join(*above, own)
    if len(name.encode()) <= _LONGEST:
        return name
    # A digest of the whole path keeps it apart from others.
    return files.portable_name(files.shortened(name.replace("/", "_"), _LONGEST // 2))
