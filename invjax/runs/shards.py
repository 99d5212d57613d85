"""The outcome of a unit on disk: metrics/part-00000000.jsonl, written once and whole.

Its lines are those of metrics.jsonl, and one more at the end says what they belong to
and holds a digest, so that damage is noticed. A shard is written last of all files of
its unit: where it is whole, the unit is done.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from invjax import files
from invjax.runs import records
from invjax.runs.skipped import Skipped
from invjax.runs.units import Unit

FOLDER = "metrics"
"""Subfolder of a run where its shards are."""

WHOLE = "metrics.jsonl"
"""What is made of all shards once they are there."""

_NAME = re.compile(r"part-(\d{8,})\.jsonl")


class DamagedShard(Exception):
    """A file of a unit that was done is not as it was written.

    Attributes:
      unit: the unit, which has to be done again.
    """

    def __init__(self, unit: Unit, reason: str):
        super().__init__(reason)
        self.unit = unit


class Entry(NamedTuple):
    """A record, and what it is of.

    Attributes:
      lane: number of its lane among those of the run.
      path: path of its picture below reconstructions/ or samples/, without ending.
      record: its line of metrics.jsonl.
    """

    lane: int
    path: str
    record: Mapping[str, Any]


class Shard(NamedTuple):
    """The outcome of a unit.

    Attributes:
      entries: what was found, in order.
      skipped: images of the unit that were passed over.
      extra: what else is known of the unit as a whole, by name.
    """

    entries: list[Entry]
    skipped: list[Skipped]
    extra: Mapping[str, Any]


def path_of(folder: files.Path, number: int) -> files.Path:
    """The shard of a unit by its number, in the folder of a run."""
    return folder / FOLDER / f"part-{number:08d}.jsonl"


def arrays_of(folder: files.Path, number: int) -> files.Path:
    """The arrays of a unit, which are kept until the run is finished."""
    return folder / FOLDER / f"part-{number:08d}.npz"


def present(folder: files.Path) -> set[int]:
    """Numbers of the units that have a shard, whole or not."""
    try:
        names = [path.name for path in (folder / FOLDER).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {int(found[1]) for name in names if (found := _NAME.fullmatch(name))}


def write(folder: files.Path, unit: Unit, run: str, shard: Shard) -> None:
    """Writes the shard of a unit.

    Args:
      folder: folder of the run.
      unit: the unit.
      run: digest of the lanes of the run.
      shard: its outcome.
    """
    lines = records.lines([entry.record for entry in shard.entries])
    about = {
        "unit": _identity(unit, run),
        "lanes": [entry.lane for entry in shard.entries],
        "paths": [entry.path for entry in shard.entries],
        "skipped": [item._asdict() for item in shard.skipped],
        "extra": dict(shard.extra),
    }
    about["sha256"] = _digest(lines, about)
    last = json.dumps(about, allow_nan=False)
    files.write_whole(path_of(folder, unit.number), f"{lines}{last}\n", durable=True)


def read(folder: files.Path, unit: Unit, run: str) -> Shard:
    """Reads the shard of a unit, and checks that it is whole and the unit's own.

    Args:
      folder: folder of the run.
      unit: the unit.
      run: digest of the lanes of the run.

    Raises:
      DamagedShard: it is missing or damaged, or of another run.
    """
    lines, about = _checked(folder, unit, run)
    rows = zip(about["lanes"], about["paths"], map(_strict, lines), strict=True)
    return Shard(
        [Entry(*row) for row in rows],
        [Skipped(**item) for item in about["skipped"]],
        about["extra"],
    )


def write_arrays(
    folder: files.Path, unit: Unit, arrays: Mapping[int, np.ndarray]
) -> None:
    """Writes arrays of a unit, by the place of their entry; before its shard.

    They are not compressed: images that were optimised hardly become smaller.
    """
    with files.whole_file(arrays_of(folder, unit.number), durable=True) as stream:
        named = {str(place): array for place, array in arrays.items()}
        np.savez(stream, **named)  # type: ignore[arg-type]


def read_arrays(folder: files.Path, unit: Unit) -> dict[int, np.ndarray]:
    """Reads the arrays of a unit, by the place of their entry.

    Raises:
      DamagedShard: they are missing or damaged.
    """
    path = arrays_of(folder, unit.number)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stream:
            # Zip has a checksum for each array.
            return {int(name): stream[name] for name in stream.files}
    except FileNotFoundError:
        raise DamagedShard(unit, f"{path}: missing") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedShard(unit, f"{path}: damaged ({error})") from None


def remove_unfinished(folder: files.Path, unit: Unit) -> None:
    """Deletes what a process that was killed has left of the files of a unit."""
    for path in (path_of(folder, unit.number), arrays_of(folder, unit.number)):
        files.remove_unfinished(path)


def drop_arrays(folder: files.Path) -> None:
    """Deletes the arrays of all units."""
    for path in (folder / FOLDER).glob("part-*.npz"):
        path.unlink(missing_ok=True)


def assemble(folder: files.Path, units: Sequence[Unit], run: str) -> bool:
    """Makes metrics.jsonl of all shards, in order; returns whether it was this call.

    Where another process has made it already, it is left alone.

    Args:
      folder: folder of the run.
      units: all units of the run.
      run: digest of the lanes of the run.

    Raises:
      DamagedShard: a shard is missing or damaged.
    """
    path = folder / WHOLE
    try:
        with files.whole_file(path, durable=True, exclusive=True) as stream:
            for unit in units:
                lines, _ = _checked(folder, unit, run)
                stream.write("".join(lines).encode())
    except FileExistsError:
        return False
    return True


def read_records(workdir: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Reads the records of a run, finished or not, in the order of its lanes.

    Of a run that is not finished, those of the units that are done; a damaged shard is
    passed over.

    Args:
      workdir: folder of the run.

    Yields:
      Lines of metrics.jsonl.
    """
    folder = files.located(workdir)
    try:
        stream = (folder / WHOLE).open()
    except FileNotFoundError:
        for number in sorted(present(folder)):
            try:
                lines, _ = _parts(path_of(folder, number))
            except (FileNotFoundError, ValueError):
                continue
            yield from map(_strict, lines)
        return
    with stream:
        yield from map(_strict, stream)


def _checked(
    folder: files.Path, unit: Unit, run: str
) -> tuple[list[str], dict[str, Any]]:
    """The lines of a unit's shard, and what its last line says; raises as `read`."""
    path = path_of(folder, unit.number)
    try:
        lines, about = _parts(path)
        if about["unit"] != _identity(unit, run):
            raise ValueError("it is of another unit or run")
    except FileNotFoundError:
        raise DamagedShard(unit, f"{path}: missing") from None
    except (ValueError, KeyError) as error:
        raise DamagedShard(unit, f"{path}: damaged ({error})") from None
    return lines, about


def _parts(path: files.Path) -> tuple[list[str], dict[str, Any]]:
    """The lines of a shard, with their ends, and what its last line says.

    Raises:
      FileNotFoundError: it is missing.
      ValueError: it is damaged.
    """
    *lines, last = path.read_bytes().decode("ascii").splitlines(True) or [""]
    about = _strict(last)
    if not isinstance(about, dict) or "sha256" not in about:
        raise ValueError("it ends early")
    digest = about.pop("sha256")
    if digest != _digest("".join(lines), about):
        raise ValueError("its digest is another")
    return lines, about


def _identity(unit: Unit, run: str) -> str:
    return f"{run}:{unit.first}-{unit.stop}"


def _digest(lines: str, about: Mapping[str, Any]) -> str:
    data = lines + json.dumps(about, allow_nan=False)
    return hashlib.sha256(data.encode()).hexdigest()


def _strict(line: str) -> Any:
    return json.loads(line, parse_constant=_refuse)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not strict JSON")
