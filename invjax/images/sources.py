"""Finds images by name: files, folders, patterns, lists, tar archives, the samples.

Nothing is decoded, and of a tar archive only the headers of its members are read, so
that a set of any size is listed in seconds. `load` reads one image.
"""

import glob
import hashlib
import importlib.util
import io
import itertools
import os
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from invjax import files, spelling
from invjax.images import abstract, naming, reading, shards
from invjax.images.pixels import ImageError, quantise
from invjax.images.shards import Member

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
"""Names of photographs that scikit-image installs."""

ABSTRACT = "abstract"
"""Name of the synthetic sample, `abstract.abstract_pattern`."""

_ACCEPTED = ".jpg, .png, .webp, .tif, .gif, .bmp and what else Pillow reads"
_MOST_KINDS = 6
_SAMPLE_PREFIX = "sample:"
_LIST_PREFIX = "@"
_COMMENT = b"#"
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MOST_OF_A_RANGE = 1_000_000
_ABSTRACT_SIZE = 512
_SAMPLE_FILES = {name: f"{name}.png" for name in SAMPLES} | {"rocket": "rocket.jpg"}


class ImageSource(NamedTuple):
    """What an image is read from: a file, a member of a tar archive, or a sample.

    Attributes:
      name: File stem or sample name; where stems are equal, what tells them apart (see
        `find`). It names a folder of the output, or with "/" a folder in a folder: in
        one list no two names differ by upper and lower case alone, and characters that
        some file system refuses are replaced by "_".
      origin: Path of the file, "ARCHIVE.tar/MEMBER", or "sample:NAME", as people are
        told it.
      member: Where a member lies in its archive; None of others.
    """

    name: str
    origin: str
    member: Member | None = None


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
    with reading.quietly():
        return _decode_sample(name, reading.no_claim)


def _decode_sample(name: str, claim: Callable[[int], None]) -> np.ndarray:
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
    return reading.decode_file(folder / _SAMPLE_FILES[name], claim=claim)


def find(spec: str, *, tell: Callable[[str], None] | None = None) -> list[ImageSource]:
    """Lists the images that a comma-separated list names.

    The name of an image is its file's stem; in a tar archive, as in WebDataset, what
    comes before the first dot. Files of equal stems are named by their path below the
    folder that they share, "cats/one" and "dogs/one"; if these are equal too, with
    their ending, "one.jpg" and "one.png". An archive counts as a folder here.

    A file whose name contains a comma cannot be listed itself: give its folder, a glob
    that matches it, or a list.

    Args:
      spec: Entries separated by commas: files, globs (`**` reaches into subfolders),
        folders (every image file directly inside, except hidden ones), `sample:NAME`,
        lists `@FILE`, and tar archives. A leading ~ is the home folder. `{000..009}`
        stands for all numbers of a range, with as many digits as the longer of the two
        where one begins with 0.

        A list is a text file in UTF-8 with a path on each line, relative to the list's
        own folder, or a `sample:NAME`; empty lines and those that begin with # are
        passed over. Whether the files exist is seen only when they are read.

        A tar archive is not compressed and gives every member with an image's ending,
        except hidden ones, in the order of the archive.
      tell: Called with a line for every folder that holds files which are not images:
        how many were left out, and which kinds.

    Returns:
      The sources in the order of the entries, sorted within a glob or a folder.

    Raises:
      ImageError: An entry is empty or matches nothing, a file has no image ending, a
        sample is unknown, a list is no text, an archive is damaged, or an image is
        listed twice.

    Examples:
      >>> find("sample:chelsea, sample:rocket")[1].origin
      'sample:rocket'
    """
    found: dict[str, ImageSource] = {}
    for item in spec.split(","):
        for source in _expand(item.strip(), spec, tell):
            place = _identity(source)
            if place in found:
                raise ImageError(
                    f"{source.origin}: listed twice; every image is accepted once"
                )
            found[place] = source
    sources = list(found.values())
    names = naming.different([_place(source) for source in sources])
    return [
        source._replace(name=name) for source, name in zip(sources, names, strict=True)
    ]


def load(source: ImageSource) -> Float32[np.ndarray, "h w 3"]:
    """Reads the image of a source that `find` listed.

    Returns:
      float32 [h, w, 3] in [0, 1].

    Raises:
      ImageError: As in `reading.read` and `sample`; a member of an archive is a link or
        a device, or the archive has become shorter.
    """
    with reading.quietly():
        return decode(source)


def decode(
    source: ImageSource, *, claim: Callable[[int], None] = reading.no_claim
) -> Float32[np.ndarray, "h w 3"]:
    """Reads an image as `load` does, in a thread of which there may be several.

    Args:
      source: The source.
      claim: As in `reading.decode_file`, and so is what is said there of warnings.

    Returns:
      float32 [h, w, 3] in [0, 1].

    Raises:
      ImageError: As in `load`.
    """
    if source.origin.startswith(_SAMPLE_PREFIX):
        return _decode_sample(source.origin.removeprefix(_SAMPLE_PREFIX), claim)
    if source.member is None:
        return reading.decode_file(source.origin, claim=claim)
    data = shards.contents(source.member, source.origin)
    ending = os.path.splitext(source.member.name)[1]
    stream = io.BytesIO(data)
    return reading.decode(stream, place=source.origin, ending=ending, claim=claim)


def digest(sources: Iterable[ImageSource]) -> str:
    """SHA-256 of names and places, by which one list is known again as the same.

    Examples:
      >>> digest(find("sample:chelsea"))[:8]
      'e1758e93'
    """
    hashed = hashlib.sha256()
    for source in sources:
        where = "" if source.member is None else f"{source.member[2:4]}"
        line = f"{source.name}\0{source.origin}\0{where}\n"
        hashed.update(line.encode(errors="surrogateescape"))
    return hashed.hexdigest()


def _expand(
    item: str, spec: str, tell: Callable[[str], None] | None
) -> list[ImageSource]:
    """The sources of one entry of the list, named by stem."""
    if not item:
        raise ImageError(f"the list of images {spec!r} has an empty entry")
    if item.startswith(_SAMPLE_PREFIX):
        return [_sample_source(item)]
    if "\0" in item:
        raise ImageError(f"{item!r}: not the name of a file, a folder or a pattern")
    if item.startswith(_LIST_PREFIX):
        return _in_list(files.expand_home(item.removeprefix(_LIST_PREFIX)))
    path = pathlib.Path(files.expand_home(item))
    try:
        if path.is_dir():
            return _in_folder(path, tell)
        # "photo[1].png" may be a file; only if there is none is it a glob.
        if path.exists():
            return _of_file(path)
        patterns = list(_in_range(str(path)))
        if len(patterns) > 1 or patterns[0] != str(path):
            return [
                source
                for pattern in patterns
                for source in _expand(pattern, spec, tell)
            ]
        matches = sorted(glob.glob(str(path), recursive=True))
    except OSError as error:
        raise ImageError(f"{item}: {error.strerror or error}") from None
    found = [
        source
        for match in matches
        if not os.path.isdir(match)
        for source in _of_file(pathlib.Path(match))
    ]
    return _or_refuse(
        found, f"{item}: no such file or folder, and as a pattern it matches no file"
    )


def _in_range(pattern: str) -> Iterator[str]:
    """The pattern with each number of its ranges, as the shells write {08..11}."""
    parts = _RANGE.split(pattern)
    if len(parts) == 1:
        yield pattern
        return
    ranges = []
    for first, last in zip(parts[1::3], parts[2::3], strict=True):
        low, high = int(first), int(last)
        is_padded = any(len(word) > 1 and word[0] == "0" for word in (first, last))
        width = max(len(first), len(last)) if is_padded else 0
        step = 1 if high >= low else -1
        ranges.append((range(low, high + step, step), width))
    count = int(np.prod([len(numbers) for numbers, _ in ranges], dtype=np.float64))
    if count > _MOST_OF_A_RANGE:
        raise ImageError(
            f"{pattern}: stands for {count:,} names; up to {_MOST_OF_A_RANGE:,} are "
            "accepted"
        )
    words = [[f"{number:0{width}d}" for number in numbers] for numbers, width in ranges]
    for chosen in itertools.product(*words):
        yield "".join(
            part
            for pair in itertools.zip_longest(parts[::3], chosen, fillvalue="")
            for part in pair
        )


def _in_list(path: str) -> list[ImageSource]:
    """The sources that a text file names; whether they exist is not looked at."""
    folder = os.path.dirname(path)
    found = []
    try:
        with files.open_regular(path) as stream:
            for number, line in enumerate(stream, start=1):
                words = line.removeprefix(b"\xef\xbb\xbf").strip()
                if not words or words.startswith(_COMMENT):
                    continue
                try:
                    entry = words.decode()
                except UnicodeDecodeError:
                    raise ImageError(
                        f"{_LIST_PREFIX}{path}: line {number} is no text in UTF-8; a "
                        "path on each line is accepted"
                    ) from None
                if "\0" in entry:
                    raise ImageError(
                        f"{_LIST_PREFIX}{path}: line {number} is not the name of a file"
                    )
                found.append(_list_entry(entry, folder))
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else None
        raise ImageError(
            f"{_LIST_PREFIX}{path}: {what or error.strerror or error}; a text file "
            "with a path on each line is accepted"
        ) from None
    return _or_refuse(found, f"{_LIST_PREFIX}{path}: the list names no image")


def _list_entry(entry: str, folder: str) -> ImageSource:
    if entry.startswith(_SAMPLE_PREFIX):
        return _sample_source(entry)
    path = pathlib.Path(folder, files.expand_home(entry))
    # Contents decide; where the ending is not an image's, it may be part of the name.
    is_known = path.suffix.lower() in reading.endings()
    stem = path.stem if is_known else path.name
    return ImageSource(files.portable_name(stem), str(path))


def _sample_source(origin: str) -> ImageSource:
    name = origin.removeprefix(_SAMPLE_PREFIX)
    _check_sample(name)
    return ImageSource(name, origin)


def _check_sample(name: str) -> None:
    if name not in (*SAMPLES, ABSTRACT):
        raise ImageError(
            f"{_SAMPLE_PREFIX}{name}: no such sample; accepted: "
            f"{', '.join((*SAMPLES, ABSTRACT))}"
            f"{spelling.hint(name, (*SAMPLES, ABSTRACT))}"
        )


def _in_folder(
    folder: pathlib.Path, tell: Callable[[str], None] | None
) -> list[ImageSource]:
    """The image files directly inside a folder; tells what else there is."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    others = [path for path in inside if not path.is_dir()]
    images = [path for path in others if _is_image_file(path)]
    is_image = set(images)
    left_out = _kinds(_kind(path) for path in others if path not in is_image)
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


def _kinds(endings: Iterable[str]) -> str:
    """How many files there are of each ending, such as ".txt 2, .mov 1"."""
    counts = Counter(endings)
    ordered = sorted(counts.items(), key=lambda kind: (-kind[1], kind[0]))
    words = [f"{kind} {count}" for kind, count in ordered[:_MOST_KINDS]]
    if rest := sum(count for _, count in ordered[_MOST_KINDS:]):
        words.append(f"others {rest}")
    return ", ".join(words)


def _kind(path: pathlib.Path) -> str:
    if not path.is_file():
        return "broken link" if path.is_symlink() else "no file"
    return _shown_ending(path.suffix)


def _shown_ending(ending: str) -> str:
    return files.portable_name(ending.lower()) if ending else "no ending"


def _of_file(path: pathlib.Path) -> list[ImageSource]:
    """The image in a file, or those in an archive."""
    if path.suffix.lower() in shards.ENDINGS:
        return _in_archive(str(path))
    return [_file_source(path)]


def _in_archive(path: str) -> list[ImageSource]:
    """The image members of a tar archive."""
    found, others = [], []
    for member in shards.members(path):
        ending = os.path.splitext(member.name)[1].lower()
        if ending in reading.endings():
            found.append(ImageSource("", f"{path}/{_printable(member.name)}", member))
        else:
            others.append(_shown_ending(ending))
    there = f" (there are {_kinds(others)})" if others else ""
    return _or_refuse(
        found, f"{path}: no image files in this archive{there}; accepted: {_ACCEPTED}"
    )


def _printable(name: str) -> str:
    """The name of a member on one line, without what would command a terminal."""
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape").decode("ascii")
        for letter in files.shortened(name.encode(errors="replace").decode(), 1000)
    )


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


def _place(source: ImageSource) -> naming.Place:
    """Where a source lies, for its name."""
    if source.member is not None:
        archive = os.path.abspath(source.member.archive)
        return naming.in_archive(archive, source.member.name)
    if source.origin.startswith(_SAMPLE_PREFIX):
        return naming.Place(source.name, None, source.name)
    folder, file = os.path.split(os.path.abspath(source.origin))
    return naming.Place(source.name, folder, file)


def _identity(source: ImageSource) -> str:
    """What two sources of the same image have in common."""
    if source.member is not None:
        return f"{os.path.abspath(source.member.archive)}\0{source.member.offset}"
    if source.origin.startswith(_SAMPLE_PREFIX):
        return source.origin
    return os.path.abspath(source.origin)
