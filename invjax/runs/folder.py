"""The folder of a run: who may write there, and the files that describe it."""

import importlib.metadata
import json
import pathlib
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from invjax import files
from invjax.runs import records
from invjax.runs.errors import Refusal
from invjax.runs.records import Record

_OURS = (
    "config.json",
    "metrics.jsonl",
    "skipped.jsonl",
    "originals",
    "reconstructions",
    "stretched",
    "over_starts",
    "samples",
    "maps",
    "arrays",
    "sets.jsonl",
    "geometry.jsonl",
    "invariances.jsonl",
    "invariances.csv",
    "invariances.md",
    "geometry.csv",
    "geometry.md",
    "grid.png",
    "grid_stretched.png",
    "index.html",
    "table.csv",
    "table.md",
    "figure.png",
    "figure_clipped.png",
    "figure_stretched.png",
    "curves.png",
)
_PACKAGES = ("invjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunFolder:
    """A folder that belongs to one run."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._records: list[Record] = []

    @classmethod
    def claim(cls, workdir: str, *, overwrite: bool) -> "RunFolder":
        """Takes `workdir` for a new run; with `overwrite` it is emptied of an old one.

        Raises:
          Refusal: it is not a folder, holds a run and `overwrite` is not given, or
            holds other things.
        """
        path = pathlib.Path(workdir)
        if path.exists() and not path.is_dir():
            raise Refusal(f"--workdir={workdir}: not a folder; name a new or empty one")
        there = sorted(item.name for item in path.iterdir()) if path.is_dir() else []
        if there and "config.json" not in there:
            raise Refusal(
                f"--workdir={workdir}: holds {there[0]} but no run; name a new or "
                "empty folder"
            )
        if there and not overwrite:
            raise Refusal(
                f"--workdir={workdir}: holds a run already; pass --overwrite to "
                "replace it, or name another folder"
            )
        try:
            # config.json goes last: a folder half emptied is still known as a run.
            for page in path.glob("grid_*.png"):
                files.remove(page)
            for name in reversed(_OURS):
                files.remove(path / name)
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refusal(f"--workdir={workdir}: {error.strerror}") from None
        return cls(path)

    def write_config(
        self, settings: Mapping[str, Any], weights: Mapping[str, str]
    ) -> None:
        """Writes config.json: all that is needed to run it again, and the machine.

        Args:
          settings: what determines the numbers of the run, by name.
          weights: digests of the weights by representation.
        """
        device = jax.devices()[0]
        config = {
            "command": command(),
            "settings": dict(settings),
            "weights": dict(weights),
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in _PACKAGES},
            },
            "device": {
                "backend": jax.default_backend(),
                "kind": device.device_kind,
                "count": jax.device_count(),
                "machine": platform.machine(),
            },
        }
        text = json.dumps(config, indent=1, allow_nan=False)
        files.write_whole(self.path / "config.json", text + "\n")

    @property
    def records(self) -> Sequence[Record]:
        """The lines of metrics.jsonl that were added, in order."""
        return tuple(self._records)

    def add_records(self, records: Sequence[Record]) -> None:
        """Adds lines to metrics.jsonl, which is replaced whole."""
        self._records += records
        rows = [record.as_json() for record in self._records]
        write_lines(self.path / "metrics.jsonl", rows)


def write_lines(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes mappings as lines of strict JSON, atomically."""
    files.write_whole(path, records.lines(rows))


def command() -> str:
    """The command line of this process, as a person would type it."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name = f"-m {spec.name}" if spec else sys.argv[0]
    return f"python {name} {shlex.join(sys.argv[1:])}"
