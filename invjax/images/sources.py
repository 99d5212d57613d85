"""Finds images by name: files, globs, folders and the sample images."""

import glob
import importlib.util
import os
import pathlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from invjax import files
from invjax.images import abstract, reading
from invjax.images.pixels import ImageError, quantise

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
"""Names of photographs that scikit-image installs."""

ABSTRACT = "abstract"
"""Name of the synthetic sample, `abstract.abstract_pattern`."""

_ACCEPTED = ".jpg, .png, .webp, .tif, .gif, .bmp and what else Pillow reads"
_MOST_KINDS = 6
_SAMPLE_PREFIX = "sample:"
_ABSTRACT_SIZE = 512
_SAMPLE_FILES = {name: f"{name}.png" for name in SAMPLES} | {"rocket": "rocket.jpg"}


class ImageSource(NamedTuple):
    """A file or a sample that an image is read from.

    Attributes:
      name: File stem or sample name; where stems are equal, what tells them apart (see
        `find`). It names a folder of the output, or with "/" a folder in a folder: in
        one list no two names differ by upper and lower case alone, and characters that
        some file system refuses are replaced by "_".
      origin: Path of the file, or "sample:NAME".
    """

    name: str
    origin: str


def sample(name: str) -> Float32[np.ndarray, "h w 3"]:
    """Returns a sample image at its full size.

    Photographs are read from scikit-image's installed files; the abstract pattern is
    computed, at 512 x 512 px.

    Args:
      name: One of `SAMPLES`, or `ABSTRACT`.

    Returns:
      float32 [h, w, 3] in [0, 1], multiples of 1/255.

    Raises:
      ImageError: The name is unknown, or scikit-image is not installed.

    Examples:
      >>> sample("abstract").shape
      (512, 512, 3)
    """
    _check_sample(name)
    if name == ABSTRACT:
        pattern = quantise(abstract.abstract_pattern(_ABSTRACT_SIZE))
        return pattern.astype(np.float32) / np.float32(255)
    # Importing scikit-image would take a second and import SciPy.
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ImageError(
            f"{_SAMPLE_PREFIX}{name}: the sample photographs come with scikit-image, "
            "which is not installed; run: pip install scikit-image"
        )
    folder = pathlib.Path(spec.submodule_search_locations[0], "data")
    return reading.read(folder / _SAMPLE_FILES[name])


def find(spec: str, *, tell: Callable[[str], None] | None = None) -> list[ImageSource]:
    """Lists the images that a comma-separated list names.

    The name of an image is its file's stem. Files of equal stems are named by their
    path below the folder that they share, "cats/one" and "dogs/one"; if these are equal
    too, with their ending, "one.jpg" and "one.png".

    A file whose name contains a comma cannot be listed itself: give its folder, or a
    glob that matches it.

    Args:
      spec: Files, globs (`**` reaches into subfolders), folders (every image file
        directly inside, except hidden ones) and `sample:NAME`, separated by commas.
        A leading ~ is the home folder.
      tell: Called with a line for every folder that holds files which are not images:
        how many were left out, and which kinds.

    Returns:
      The sources in the order of the list, sorted within a glob or a folder.

    Raises:
      ImageError: An entry is empty or matches nothing, a file has no image ending, a
        sample is unknown, or an image is listed twice.

    Examples:
      >>> find("sample:chelsea, sample:rocket")[1]
      ImageSource(name='rocket', origin='sample:rocket')
    """
    found: dict[str, ImageSource] = {}
    for item in spec.split(","):
        for source in _expand(item.strip(), spec, tell):
            place = _place(source.origin)
            if place in found:
                raise ImageError(
                    f"{source.origin}: listed twice; every image is accepted once"
                )
            found[place] = source
    return _with_different_names(list(found.values()))


def load(source: ImageSource) -> Float32[np.ndarray, "h w 3"]:
    """Reads the image of a source that `find` listed.

    Returns:
      float32 [h, w, 3] in [0, 1].

    Raises:
      ImageError: As in `reading.read` and `sample`.
    """
    if source.origin.startswith(_SAMPLE_PREFIX):
        return sample(source.origin.removeprefix(_SAMPLE_PREFIX))
    return reading.read(source.origin)


def _expand(
    item: str, spec: str, tell: Callable[[str], None] | None
) -> list[ImageSource]:
    """The sources of one entry of the list, named by stem."""
    if not item:
        raise ImageError(f"the list of images {spec!r} has an empty entry")
    if item.startswith(_SAMPLE_PREFIX):
        name = item.removeprefix(_SAMPLE_PREFIX)
        _check_sample(name)
        return [ImageSource(name, item)]
    if "\0" in item:
        raise ImageError(f"{item!r}: not the name of a file, a folder or a pattern")
    path = pathlib.Path(files.expand_home(item))
    try:
        if path.is_dir():
            return _in_folder(path, tell)
        # "photo[1].png" may be a file; only if there is none is it a glob.
        if path.exists():
            return [_file_source(path)]
        matches = sorted(glob.glob(str(path), recursive=True))
    except OSError as error:
        raise ImageError(f"{item}: {error.strerror or error}") from None
    return _or_refuse(
        [_file_source(pathlib.Path(m)) for m in matches if not os.path.isdir(m)],
        f"{item}: no such file or folder, and as a pattern it matches no file",
    )


def _check_sample(name: str) -> None:
    if name not in (*SAMPLES, ABSTRACT):
        raise ImageError(
            f"{_SAMPLE_PREFIX}{name}: no such sample; accepted: "
            f"{', '.join((*SAMPLES, ABSTRACT))}"
        )


def _in_folder(
    folder: pathlib.Path, tell: Callable[[str], None] | None
) -> list[ImageSource]:
    """The image files directly inside a folder; tells what else there is."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    others = [path for path in inside if not path.is_dir()]
    images = [path for path in others if _is_image_file(path)]
    left_out = _kinds(path for path in others if path not in set(images))
    if not images:
        there = f" (there are {left_out})" if left_out else ""
        where = ""
        if len(others) < len(inside):
            where = f"; for those in its folders, give a pattern, {folder}/**/*.jpg"
        raise ImageError(
            f"{folder}: no image files in this folder{there}; accepted: "
            f"{_ACCEPTED}{where}"
        )
    if left_out and tell is not None:
        count = len(others) - len(images)
        words = (
            "file is not an image and was"
            if count == 1
            else ("files are not images and were")
        )
        tell(f"{folder}: {count} {words} left out ({left_out})")
    return [_file_source(path) for path in images]


def _is_image_file(path: pathlib.Path) -> bool:
    return path.suffix.lower() in reading.endings() and path.is_file()


def _kinds(paths: Iterable[pathlib.Path]) -> str:
    """How many files there are of each ending, such as ".txt 2, .mov 1"."""
    counts = Counter(_kind(path) for path in paths)
    ordered = sorted(counts.items(), key=lambda kind: (-kind[1], kind[0]))
    words = [f"{kind} {count}" for kind, count in ordered[:_MOST_KINDS]]
    if rest := sum(count for _, count in ordered[_MOST_KINDS:]):
        words.append(f"others {rest}")
    return ", ".join(words)


def _kind(path: pathlib.Path) -> str:
    if not path.is_file():
        return "broken link" if path.is_symlink() else "no file"
    return files.portable_name(path.suffix.lower()) if path.suffix else "no ending"


def _file_source(path: pathlib.Path) -> ImageSource:
    if path.suffix.lower() not in reading.endings():
        raise ImageError(
            f"{path}: its ending is not that of an image; accepted: {_ACCEPTED}"
        )
    # "..jpg" and "...jpg" would make the output's folder "." or "..".
    if not path.stem.strip("."):
        raise ImageError(f"{path}: its name without the ending cannot name a folder")
    return ImageSource(files.portable_name(path.stem), str(path))


def _or_refuse(sources: Sequence[ImageSource], message: str) -> list[ImageSource]:
    if not sources:
        raise ImageError(message)
    return list(sources)


def _with_different_names(sources: Sequence[ImageSource]) -> list[ImageSource]:
    """The sources, those of equal stems named by path, and if need be by ending."""
    names = [source.name for source in sources]
    of_stem = _equal(names, range(len(names)))
    last: list[int] = []
    for members in of_stem:
        in_files = [n for n in members if not _is_sample(sources[n])]
        shared = os.path.commonpath(
            [os.path.dirname(_place(sources[n].origin)) for n in in_files]
        )
        for n in in_files:
            names[n] = _relative(sources[n], shared, has_ending=False)
        for equal in _equal(names, members):
            last += [n for n in equal if n in in_files]
            for n in set(equal) & set(in_files):
                names[n] = _relative(sources[n], shared, has_ending=True)
    # These may still equal each other, by case, or the stem of "one.jpg.png".
    taken = {_folded(name) for n, name in enumerate(names) if n not in last}
    for n in last:
        name, number = names[n], 1
        while _folded(names[n]) in taken:
            number += 1
            names[n] = f"{name}_{number}"
        taken.add(_folded(names[n]))
    return [s._replace(name=name) for s, name in zip(sources, names, strict=True)]


def _equal(names: Sequence[str], members: Iterable[int]) -> list[list[int]]:
    """Members whose names no folder could tell apart, in groups of two or more."""
    groups: dict[str, list[int]] = {}
    for number in members:
        groups.setdefault(_folded(names[number]), []).append(number)
    return [group for group in groups.values() if len(group) > 1]


def _folded(name: str) -> str:
    """What equal names have in common where file systems ignore case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _relative(source: ImageSource, folder: str, *, has_ending: bool) -> str:
    """The path of a source's file below a folder, with "/", as a name."""
    path = pathlib.Path(os.path.relpath(_place(source.origin), folder))
    *parents, _ = path.parts
    # A folder "one.png" would stand where originals/one.png is written.
    above = [
        files.portable_name(re.sub(r"\.png$", "_png", part, flags=re.IGNORECASE))
        for part in parents
    ]
    own = path.name if has_ending else path.stem
    return "/".join([*above, files.portable_name(own)])


def _place(origin: str) -> str:
    """The absolute path of a file; a sample as it is."""
    if origin.startswith(_SAMPLE_PREFIX):
        return origin
    return os.path.abspath(origin)


def _is_sample(source: ImageSource) -> bool:
    return source.origin.startswith(_SAMPLE_PREFIX)
