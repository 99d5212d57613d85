"""The folder of a run: who may write there, and the files that describe it."""

import contextlib
import importlib.metadata
import json
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from invjax import files
from invjax.runs import locks, records, shards
from invjax.runs.errors import Refusal

_CONFIG = "config.json"

_OURS = (
    "config.json",
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
    "grid_*.png",
    "index.html",
    "table.csv",
    "table.md",
    "figure.png",
    "figure_clipped.png",
    "figure_stretched.png",
    "curves.png",
    "states",
    "metrics",
    "metrics.jsonl",
)
"""Patterns of what a run writes. It is removed from the end on: metrics.jsonl, which
says that a run is finished, then what says that units are, and config.json last, so
that a folder half emptied is still known as a run, and as one that is not finished."""

# Their digests are compared, and not where they lie.
_NOT_COMPARED = ("weights_dir",)
_THAT_ROUND = ("jax", "jaxlib", "backend", "kind")
_PACKAGES = ("invjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunFolder:
    """A folder that belongs to one run."""

    def __init__(self, path: files.Path):
        self.path = path

    @classmethod
    def claim(cls, workdir: str, *, overwrite: bool) -> "RunFolder":
        """Takes `workdir` for a run: a new one, or to go on with the one it holds.

        Whether it is the same run, `write_config` sees.

        Args:
          workdir: the folder; made if missing.
          overwrite: whether a run that is there is deleted.

        Raises:
          Refusal: it is not a folder, holds other things than a run, cannot be written
            to, or is to be emptied while a process is at work there.
        """
        try:
            path = files.located(workdir)
        except ValueError as error:
            raise Refusal(f"--workdir={error}") from None
        with writing(path):
            if path.exists() and not path.is_dir():
                raise Refusal(
                    f"--workdir={workdir}: not a folder; name a new or empty one"
                )
            there = (
                sorted(item.name for item in path.iterdir()) if path.is_dir() else []
            )
            # What a process that was killed has left of its first file.
            there = [name for name in there if not name.startswith(f".{_CONFIG}.")]
            if there and _CONFIG not in there:
                raise Refusal(
                    f"--workdir={workdir}: holds {there[0]} but no run; name a new or "
                    "empty folder"
                )
            if overwrite:
                locks.refuse_if_held(path)
                for pattern in reversed(_OURS):
                    for item in sorted(path.glob(pattern)):
                        files.remove(item)
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    def write_config(
        self,
        settings: Mapping[str, Any],
        weights: Mapping[str, str],
        lanes: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Writes config.json: all that is needed to run it again, and the machine.

        Where there is one already, it is compared and left as it is.

        Args:
          settings: what determines the numbers of the run, by name.
          weights: digests of the weights by representation.
          lanes: what is settled when the run begins: the number and the digest of its
            lanes, and those of a unit.

        Returns:
          What config.json holds.

        Raises:
          Refusal: it is of another run; the line says what differs.
        """
        there = self.config()
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
            "lanes": dict(lanes or {}),
        }
        text = json.dumps(config, indent=1, allow_nan=False)
        if there is None:
            with writing(self.path):
                if files.write_first(self.path / _CONFIG, text + "\n"):
                    return json.loads(text)
            there = self.config()
            assert there is not None
        if found := _differences(there, json.loads(text)):
            raise Refusal(
                f"--workdir={self.path}: holds a run with other settings: "
                f"{'; '.join(found)}; pass --overwrite to replace it, or name another "
                "folder"
            )
        for line in _remarks(there, config):
            print(line, flush=True)
        return there

    def config(self) -> dict[str, Any] | None:
        """What config.json holds; None where there is none.

        Raises:
          Refusal: it is damaged.
        """
        path = self.path / _CONFIG
        try:
            config = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            config = None
        parts = ("settings", "weights", "versions", "device")
        if not isinstance(config, dict) or any(
            not isinstance(config.get(part), dict) for part in parts
        ):
            raise Refusal(f"{path}: damaged; pass --overwrite to begin anew")
        return config

    def remove_unfinished(self) -> None:
        """Deletes what processes that were killed have left of files in the folder.

        Those of lanes and units are deleted when these are done again.
        """
        if files.is_remote(self.path):
            return
        for pattern in _OURS:
            for left in self.path.glob(f".{pattern}.*"):
                left.unlink(missing_ok=True)

    @property
    def is_finished(self) -> bool:
        """Whether all there is to do for the run has been done."""
        return (self.path / shards.WHOLE).exists()


@contextlib.contextmanager
def writing(path: files.Path, *, hint: str = "") -> Iterator[None]:
    """Turns what the file system refuses within the `with` block into one line.

    Args:
      path: folder of the run.
      hint: how the line ends.

    Raises:
      Refusal: such as of a full disk or a folder that cannot be written to.
    """
    try:
        yield
    except BrokenPipeError:
        # Of the terminal, not of a file.
        raise
    except OSError as error:
        raise Refusal(f"--workdir={path}: {error.strerror or error}{hint}") from None
    except ImportError as error:
        # What reads and writes buckets, such as gcsfs, is installed separately.
        if not files.is_remote(path):
            raise
        raise Refusal(f"--workdir={path}: {' '.join(str(error).split())}") from None


def _differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps two runs from being the same, in words."""
    settings, others = there["settings"], now["settings"]
    found = [
        f"{name} {_word(settings.get(name))}, not {_word(others.get(name))}"
        for name in dict.fromkeys([*settings, *others])
        if name not in _NOT_COMPARED and settings.get(name) != others.get(name)
    ]
    names = dict.fromkeys([*there["weights"], *now["weights"]])
    found += [
        f"other weights of {name}"
        for name in names
        if name in there["weights"]
        and name in now["weights"]
        and there["weights"][name] != now["weights"][name]
    ]
    lanes, planned = there.get("lanes", {}), now["lanes"]
    if found or not planned:
        return found
    if not lanes:
        return ["it was begun by an earlier version"]
    if lanes["number"] != planned["number"]:
        return [f"{lanes['number']} lanes, not {planned['number']}"]
    if lanes["digest"] != planned["digest"]:
        return ["other images, codes or variants of the same number"]
    return []


def _remarks(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What may round results differently than those that are there."""
    changed = [
        f"{name} {part[name]}, now {others.get(name)}"
        for part, others in (
            (there["versions"], now["versions"]),
            (there["device"], now["device"]),
        )
        for name in part
        if part[name] != others.get(name) and name in _THAT_ROUND
    ]
    if not changed:
        return []
    return [
        f"the run was begun with {'; '.join(changed)}: lanes from here on may be "
        "rounded differently"
    ]


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_word, value))
    return "none" if value is None else f"{value}"


def write_lines(path: files.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes mappings as lines of strict JSON, atomically."""
    files.write_whole(path, records.lines(rows))


def command() -> str:
    """The command line of this process, as a person would type it."""
    return f"{program()} {shlex.join(sys.argv[1:])}"


def program() -> str:
    """How this process was called, up to its arguments, such as "invjax invert"."""
    if sys.argv[0].startswith("invjax "):
        return sys.argv[0]
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec else f"python {sys.argv[0]}"
