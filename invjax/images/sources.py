"""Where images come from: files, globs, folders and the samples that are at hand."""

import glob
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from invjax.images import abstract, reading
from invjax.images.pixels import ImageError, quantise

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
"""Photographs that come with scikit-image."""

ABSTRACT = "abstract"
"""The sample that is no photograph: `abstract.abstract_pattern`."""

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""File endings taken for images, in either case."""

_SAMPLE_PREFIX = "sample:"
_ABSTRACT_SIZE = 512
_SAMPLE_FILES = {name: f"{name}.png" for name in SAMPLES} | {"rocket": "rocket.jpg"}


class Source(NamedTuple):
    """Where an image comes from.

    Attributes:
      name: File stem or sample name: unique in a run, and a folder's name in its
        output.
      origin: Path of the file, or "sample:NAME".
    """

    name: str
    origin: str


def sample(name: str) -> Float32[np.ndarray, "h w 3"]:
    """Reads one of `SAMPLES` at its full size, from scikit-image's installed files.

    `ABSTRACT` needs none: it is made, at 512 px.

    Returns:
      float32 [h, w, 3] in [0, 1].

    Raises:
      ImageError: An unknown name, or scikit-image is not installed.
    """
    _check_sample(name)
    if name == ABSTRACT:
        pattern = quantise(abstract.abstract_pattern(_ABSTRACT_SIZE))
        return pattern.astype(np.float32) / np.float32(255)
    # Importing scikit-image would take a second and drag scipy in.
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ImageError(
            f"{_SAMPLE_PREFIX}{name}: the sample photographs come with scikit-image, "
            "which is not installed; run: pip install 'invjax[pretrained]'"
        )
    folder = pathlib.Path(spec.submodule_search_locations[0], "data")
    return reading.read(folder / _SAMPLE_FILES[name])


def find(spec: str) -> list[Source]:
    """Lists the images that a command-line value names.

    A file's name that has a comma in it cannot be given directly: name its folder, or
    a glob that matches it.

    Args:
      spec: Comma-separated files, globs (`**` reaches into subfolders), folders (every
        image file directly inside, hidden ones not) and `sample:NAME`.

    Returns:
      The sources in the order of the list, sorted within a glob or a folder.

    Raises:
      ImageError: An entry is empty or matches nothing, a file has no image ending, a
        sample is unknown, or two sources share a name.
    """
    found: dict[str, Source] = {}
    for item in spec.split(","):
        for source in _expand(item.strip(), spec):
            other = found.setdefault(source.name, source)
            if other is not source:
                raise ImageError(
                    f"two images are named {source.name!r}: {other.origin} and "
                    f"{source.origin}; names must differ, since outputs go by them"
                )
    return list(found.values())


def load(source: Source) -> Float32[np.ndarray, "h w 3"]:
    """Reads what `find` found; see `read` and `sample`."""
    if source.origin.startswith(_SAMPLE_PREFIX):
        return sample(source.origin.removeprefix(_SAMPLE_PREFIX))
    return reading.read(source.origin)


def _expand(item: str, spec: str) -> list[Source]:
    if not item:
        raise ImageError(f"the list of images {spec!r} has an empty entry")
    if item.startswith(_SAMPLE_PREFIX):
        name = item.removeprefix(_SAMPLE_PREFIX)
        _check_sample(name)
        return [Source(name, item)]
    # The shell does not expand the tilde inside --images=~/photos.
    path = pathlib.Path(item).expanduser()
    if path.is_dir():
        return _in_folder(path)
    # A file's own name comes before its reading as a glob: "photo[1].png".
    if path.exists():
        return [_file_source(path)]
    matches = [
        pathlib.Path(match) for match in sorted(glob.glob(str(path), recursive=True))
    ]
    return _or_refuse(
        [_file_source(match) for match in matches if not match.is_dir()],
        f"{item}: no such file or folder, and as a pattern it matches no file",
    )


def _check_sample(name: str) -> None:
    if name not in (*SAMPLES, ABSTRACT):
        raise ImageError(
            f"{_SAMPLE_PREFIX}{name}: no such sample; accepted: "
            f"{', '.join((*SAMPLES, ABSTRACT))}"
        )


def _in_folder(folder: pathlib.Path) -> list[Source]:
    inside = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in ENDINGS
        and not path.name.startswith(".")
        and path.is_file()
    )
    return _or_refuse(
        [_file_source(path) for path in inside],
        f"{folder}: no image files in this folder; accepted: {' '.join(ENDINGS)}",
    )


def _file_source(path: pathlib.Path) -> Source:
    if path.suffix.lower() not in ENDINGS:
        raise ImageError(
            f"{path}: not known as an image by its ending; accepted: "
            f"{' '.join(ENDINGS)}"
        )
    # "..jpg" and "...jpg" would make the output's folder "." or "..".
    if not path.stem.strip("."):
        raise ImageError(f"{path}: its name without the ending is no folder's name")
    return Source(path.stem, str(path))


def _or_refuse(sources: Sequence[Source], message: str) -> list[Source]:
    if not sources:
        raise ImageError(message)
    return list(sources)
