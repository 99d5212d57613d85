"""Finds images by name: files, globs, folders and the sample images."""

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
"""Names of photographs that scikit-image installs."""

ABSTRACT = "abstract"
"""Name of the synthetic sample, `abstract.abstract_pattern`."""

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Endings of image files, in lower case; upper case is accepted too."""

_SAMPLE_PREFIX = "sample:"
_ABSTRACT_SIZE = 512
_SAMPLE_FILES = {name: f"{name}.png" for name in SAMPLES} | {"rocket": "rocket.jpg"}


class ImageSource(NamedTuple):
    """A file or a sample that an image is read from.

    Attributes:
      name: File stem or sample name. It is unique in a run and names a folder of the
        run's output.
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


def find(spec: str) -> list[ImageSource]:
    """Lists the images that a comma-separated list names.

    A file whose name contains a comma cannot be listed itself: give its folder, or a
    glob that matches it.

    Args:
      spec: Files, globs (`**` reaches into subfolders), folders (every image file
        directly inside, except hidden ones) and `sample:NAME`, separated by commas.

    Returns:
      The sources in the order of the list, sorted within a glob or a folder.

    Raises:
      ImageError: An entry is empty or matches nothing, a file has no image ending, a
        sample is unknown, or two sources have the same name.

    Examples:
      >>> find("sample:chelsea, sample:rocket")[1]
      ImageSource(name='rocket', origin='sample:rocket')
    """
    found: dict[str, ImageSource] = {}
    for item in spec.split(","):
        for source in _expand(item.strip(), spec):
            other = found.setdefault(source.name, source)
            if other is not source:
                raise ImageError(
                    f"two images are named {source.name!r}: {other.origin} and "
                    f"{source.origin}; names must differ, since they name the outputs"
                )
    return list(found.values())


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


def _expand(item: str, spec: str) -> list[ImageSource]:
    if not item:
        raise ImageError(f"the list of images {spec!r} has an empty entry")
    if item.startswith(_SAMPLE_PREFIX):
        name = item.removeprefix(_SAMPLE_PREFIX)
        _check_sample(name)
        return [ImageSource(name, item)]
    # The shell leaves the tilde of --images=~/photos to us.
    path = pathlib.Path(item).expanduser()
    if path.is_dir():
        return _in_folder(path)
    # "photo[1].png" may be a file; only if there is none is it a glob.
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


def _in_folder(folder: pathlib.Path) -> list[ImageSource]:
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


def _file_source(path: pathlib.Path) -> ImageSource:
    if path.suffix.lower() not in ENDINGS:
        raise ImageError(
            f"{path}: its ending is not that of an image; accepted: {' '.join(ENDINGS)}"
        )
    # "..jpg" and "...jpg" would make the output's folder "." or "..".
    if not path.stem.strip("."):
        raise ImageError(f"{path}: its name without the ending cannot name a folder")
    return ImageSource(path.stem, str(path))


def _or_refuse(sources: Sequence[ImageSource], message: str) -> list[ImageSource]:
    if not sources:
        raise ImageError(message)
    return list(sources)
