"""House rules that a reader should be able to rely on."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
from collections.abc import Callable, Iterator

import pytest

import invjax

PACKAGE = pathlib.Path(invjax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def _public_functions() -> Iterator[tuple[str, Callable]]:
    for module in pkgutil.walk_packages(invjax.__path__, "invjax."):
        for name, item in vars(importlib.import_module(module.name)).items():
            is_own = getattr(item, "__module__", None) == module.name
            if is_own and inspect.isfunction(item) and not name.startswith("_"):
                yield f"{module.name}.{name}", item


FUNCTIONS = dict(_public_functions())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_keywords_and_keys_come_first(name: str):
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters.values())
    names = [parameter.name for parameter in parameters]
    assert "rng" not in names
    for word in ("key", "keys"):
        assert word not in names[1:] or name.startswith("invjax.engine.")
    for parameter in parameters:
        if parameter.default is not inspect.Parameter.empty:
            assert parameter.kind == inspect.Parameter.KEYWORD_ONLY, parameter.name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_say_what_they_do(name: str):
    assert inspect.getdoc(FUNCTIONS[name])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_stay_in_their_rooms(path: pathlib.Path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    assert not imported & {"experiments", "weights", "tests"}
    assert "flax" not in imported or path.parent.name == "networks"
    assert "orbax" not in imported or path.name == "checkpoints.py"
    assert path.stem != "utils"
