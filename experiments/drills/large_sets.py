"""Memory and time of reading a large set of images, some of them corrupt.

    python -m experiments.drills.large_sets --num_images=2000,20000

makes sets of tiny images, 5 % of which are corrupt in every way of `bad_files`, and
does with each, in a process of its own, what a run does before and beside its descents:
lists the set, takes the code scale, and reads and encodes all images part by part, as
units of a run are. Prints for each set the peak memory and the time per image, and how
the largest set compares with the smallest. Where other programs compete for the cores,
the time of the processor says more than that of the clock. --as_archives puts the sets
into tar archives of 1,000 images each instead of folders. Exit code 1 if an image was
lost, or one that is corrupt was not noticed.
"""

import io
import json
import os
import pathlib
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from experiments.drills import bad_files
from invjax import representations
from invjax.commands import binary
from invjax.images import sources
from invjax.runs import targets
from invjax.runs.errors import Refusal
from invjax.runs.settings import Settings

_NUM_IMAGES = flags.DEFINE_list(
    "num_images", ["2000", "20000"], "Comma-separated sizes of sets."
)
_SIDE = flags.DEFINE_integer("side", 32, "Pixels of a side of an image.", lower_bound=8)
_STARTS_PER_IMAGE = flags.DEFINE_integer(
    "starts_per_image", 4, "Lanes per image, by which times are divided.", lower_bound=1
)
_AS_ARCHIVES = flags.DEFINE_bool(
    "as_archives", False, "Put the images into tar archives."
)
_MEASURE: flags.FlagHolder[str | None] = flags.DEFINE(
    binary.PATH, "measure", None, "For the drill itself: read this folder and stop."
)

_ONE_IN = 20
_PER_ARCHIVE = 1000
_PER_UNIT = 64


def main() -> None:
    """Makes the sets and measures each in a process of its own, as the flags ask.

    Raises:
      Refusal: a size is no number, or images were lost.
    """
    if _MEASURE.value is not None:
        print(json.dumps(measure(_MEASURE.value)))
        return
    try:
        sizes = [int(word) for word in _NUM_IMAGES.value]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < _ONE_IN:
        raise Refusal(
            f"--num_images={','.join(_NUM_IMAGES.value)}: whole numbers from {_ONE_IN} "
            "up are accepted"
        )
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            num_corrupt = make_set(
                pathlib.Path(scratch), size, _SIDE.value, as_archives=_AS_ARCHIVES.value
            )
            one = _measured(scratch)
        if (one["read"], one["skipped"]) != (size - num_corrupt, num_corrupt):
            raise Refusal(
                f"of {size} images, {num_corrupt} of them corrupt, {one['read']} were "
                f"read and {one['skipped']} passed over"
            )
        found.append(one)
        clock, processor = (
            1000 * one[name] / size for name in ("seconds", "cpu_seconds")
        )
        print(
            f"{size} images, {num_corrupt} corrupt: peak {one['peak_mib']:.0f} MiB; "
            f"per image {clock:.2f} ms by the clock, {processor:.2f} ms of the "
            f"processor, per lane {clock / _STARTS_PER_IMAGE.value:.3f} and "
            f"{processor / _STARTS_PER_IMAGE.value:.3f} ms (listing "
            f"{one['seconds_listing']:.2f} s, code scale {one['seconds_scale']:.1f} s "
            f"or {one['cpu_seconds_scale']:.1f} s)",
            flush=True,
        )
    if len(found) > 1:
        growth = {
            name: found[-1][name] / sizes[-1] / (found[0][name] / sizes[0]) - 1
            for name in ("seconds", "cpu_seconds")
        }
        memory = found[-1]["peak_mib"] / found[0]["peak_mib"] - 1
        print(
            f"largest set against smallest: memory {memory:+.1%}, time per image "
            f"{growth['seconds']:+.1%} by the clock, {growth['cpu_seconds']:+.1%} of "
            "the processor"
        )


def make_set(
    folder: pathlib.Path, num_images: int, side: int, *, as_archives: bool = False
) -> int:
    """Writes tiny images, every twentieth of which is corrupt.

    Args:
      folder: an empty folder.
      num_images: number of files with an image's ending.
      side: pixels of a side.
      as_archives: whether they are written into tar archives.

    Returns:
      The number of corrupt ones.
    """
    generator = np.random.default_rng(0)
    num_corrupt = 0
    bomb = bad_files.bomb_png()
    archive: tarfile.TarFile | None = None
    for number in range(num_images):
        coarse = generator.integers(0, 256, (4, 4, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((side, side))
        name, data = f"{number:06d}.jpg", b""
        if number % _ONE_IN == _ONE_IN // 2:
            kind = bad_files.KINDS[num_corrupt % len(bad_files.KINDS)]
            name = f"{number:06d}{os.path.splitext(kind)[1]}"
            data = bomb if kind == "bomb.png" else bad_files.make(kind, picture)
            num_corrupt += 1
        else:
            data = bad_files.saved(picture, "JPEG")
        if not as_archives:
            (folder / name).write_bytes(data)
            continue
        if number % _PER_ARCHIVE == 0:
            if archive is not None:
                archive.close()
            path = folder / f"set-{number // _PER_ARCHIVE:06d}.tar"
            archive = tarfile.open(path, "w")
        assert archive is not None
        _add(archive, name, data)
    if archive is not None:
        archive.close()
    return num_corrupt


def measure(folder: str) -> dict[str, Any]:
    """Lists, reads and encodes the images of a folder, or of the archives in it.

    Returns:
      How many were read and passed over, seconds, and the peak memory in MiB.
    """
    has_archives = any(name.endswith(".tar") for name in os.listdir(folder))
    settings = _settings(f"{folder}/*.tar" if has_archives else folder)
    phi = representations.representation("hogb")
    # Compiling is no part of it.
    first = targets.list_images(settings)[:1]
    targets.of_images(first, phi, settings)
    listing = _Stopwatch()
    listed = sources.find(settings.images or "")
    seconds_listing, cpu_listing = listing.read()
    scaling = _Stopwatch()
    scale = targets.code_scale(listed, phi, settings)
    assert scale > 0
    seconds_scale, cpu_scale = scaling.read()
    read = skipped = 0
    # A run's time grows with its images, the scale's only up to 10,001.
    reading = _Stopwatch()
    for start in range(0, len(listed), _PER_UNIT):
        unit = targets.of_images(listed[start : start + _PER_UNIT], phi, settings)
        read += len(unit.targets)
        skipped += len(unit.skipped)
    seconds, cpu_seconds = reading.read()
    return {
        "read": read,
        "skipped": skipped,
        "seconds": seconds + seconds_listing,
        "cpu_seconds": cpu_seconds + cpu_listing,
        "seconds_listing": seconds_listing,
        "seconds_scale": seconds_scale,
        "cpu_seconds_scale": cpu_scale,
        "peak_mib": _peak_mib(),
    }


class _Stopwatch:
    """Seconds since it was made: by the clock, and of the processor."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        clock, processor = self._began
        return time.perf_counter() - clock, time.process_time() - processor


def _measured(folder: str) -> dict[str, Any]:
    command = [sys.executable, "-m", __spec__.name, f"--measure={folder}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Refusal(f"the measuring process ended with {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In bytes on macOS, in KiB elsewhere.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _settings(images: str) -> Settings:
    return Settings(
        images=images,
        code=None,
        representations=("hogb",),
        preset="fast",
        num_steps=None,
        num_starts=1,
        tv_weight=None,
        alpha_weight=None,
        tolerance=None,
        dead_relu=None,
        image_size=None,
        resize="crop",
        batch_size=1,
        compute_dtype="float32",
        weights_dir=None,
        save_arrays=False,
        seed=0,
        smoke=False,
    )


if __name__ == "__main__":
    binary.run(main)
