"""Rules that hold throughout the code; import contracts are in pyproject.toml.

Each test names what breaks its rule, so that a failure is a list of places to mend.
"""

import importlib
import inspect
import pathlib
import pkgutil
import re
from collections.abc import Callable, Iterator

import invjax

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("invjax", "experiments", "weights", "tests")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

PROGRAM_FIRST = (
    "invjax.inversion.batch.",
    "invjax.inversion.lane.",
    "invjax.preimages.chain.",
)
"""Modules whose functions take a program or a representation before their keys."""


def _public_functions() -> Iterator[tuple[str, Callable]]:
    for module in pkgutil.walk_packages(invjax.__path__, "invjax."):
        if module.name == "invjax.commands.convert":
            continue  # its --network is also a study's, and a process has one
        for name, item in vars(importlib.import_module(module.name)).items():
            is_own = getattr(item, "__module__", None) == module.name
            is_function = inspect.isfunction(inspect.unwrap(item)) if is_own else False
            if is_function and not name.startswith("_"):
                yield f"{module.name}.{name}", item


FUNCTIONS = dict(_public_functions())


def _places(pattern: str, paths: list[pathlib.Path]) -> list[str]:
    """Lines, as file:number, that match the pattern; this file's own are left out."""
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in paths
        if path != pathlib.Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(pattern, line)
    ]


def test_keys_come_first():
    late = [
        name
        for name, function in FUNCTIONS.items()
        if {"key", "keys"} & set(list(inspect.signature(function).parameters)[1:])
    ]
    assert not [name for name in late if not name.startswith(PROGRAM_FIRST)]


def test_options_are_keywords():
    assert not [
        f"{name}({option})"
        for name, function in FUNCTIONS.items()
        for option in inspect.signature(function).parameters.values()
        if option.default is not option.empty and option.kind is not option.KEYWORD_ONLY
    ]


def test_random_keys_are_called_keys():
    assert not [
        name
        for name, function in FUNCTIONS.items()
        if "rng" in inspect.signature(function).parameters
    ]


def test_public_functions_say_what_they_do():
    assert not [name for name, item in FUNCTIONS.items() if not inspect.getdoc(item)]


def test_docstrings_are_written():
    assert not _places(r"DOC: to be written", SOURCES)


def test_docstrings_say_what_a_value_means_and_not_whose_it_is():
    assert not _places(r"^\s*\w+: of\b", SOURCES)


def test_no_module_is_called_utils():
    assert not [path for path in SOURCES if path.stem in ("util", "utils")]
