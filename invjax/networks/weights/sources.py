"""The known weight files, as written down in sources.toml."""

import functools
import importlib.util
import pathlib
import tomllib
from importlib import resources
from typing import Any, NamedTuple

from invjax.networks.weights.preprocessing import Preprocessing


class WeightSource(NamedTuple):
    """A weight file inside an installable package, pinned."""

    network: str
    package: str
    path: str
    sha256: str
    install: str
    licence: str
    origin: str
    preprocessing: Preprocessing
    tensors: dict[str, str]
    forward_check: list[float]
    needs: str = ""
    """A package that reading the file takes."""

    def find(self) -> pathlib.Path | None:
        """The file, without importing its package; None where not installed."""
        spec = importlib.util.find_spec(self.package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (path := pathlib.Path(folder, self.path)).is_file():
                return path
        return None

    def is_readable(self) -> bool:
        """Whether the file is there and so is what reads it."""
        return self.find() is not None and (
            not self.needs or importlib.util.find_spec(self.needs) is not None
        )


class PublishedFile(NamedTuple):
    """A file that users bring themselves: the usual one for its network."""

    network: str
    name: str
    licence: str
    origin: str
    preprocessing: Preprocessing | None
    """Of files that do not say it themselves, as published beside the weights."""


@functools.cache
def sources() -> tuple[WeightSource, ...]:
    """Files inside packages, in order of preference."""
    return tuple(
        WeightSource(
            **{**row, "preprocessing": Preprocessing.from_json(row["preprocessing"])}
        )
        for row in _rows("source")
    )


@functools.cache
def published_files() -> dict[str, PublishedFile]:
    """Network -> the file to convert where no package carries its weights."""
    return {
        row["network"]: PublishedFile(
            row["network"],
            row["name"],
            row["licence"],
            row["origin"],
            Preprocessing.from_json(row["preprocessing"])
            if "preprocessing" in row
            else None,
        )
        for row in _rows("file")
    }


@functools.cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(
        resources.files("invjax.networks.weights").joinpath("sources.toml").read_text()
    )


def _rows(kind: str) -> list[dict[str, Any]]:
    return _tables()[kind]
