"""The reference has every public name, and each of them explains itself."""

import importlib
import inspect
import pkgutil
import re
import types

import invjax
from tests.docs import typed

REFERENCE = typed.DOCS / "api"
WHOLE_PLACES = ("metrics", "preimages", "sensitivity")
"""Folders of which the reference has every module."""

NOT_SHOWN = {
    # Known by what is built on it, and of use to nobody else.
    "invjax.preimages.chain",
}
SELF_EXPLAINING = {"invjax.__version__"}


def _text() -> str:
    return "".join(page.read_text() for page in sorted(REFERENCE.glob("*.md")))


def _documented() -> list[str]:
    return re.findall(r"^\.\. automodule:: (\S+)\n   :members:$", _text(), re.M)


def _public(module: types.ModuleType) -> list[str]:
    """Names of `__all__`; without one, functions and classes defined here."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, item in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(item) or inspect.isfunction(item))
        and item.__module__ == module.__name__
    ]


def test_modules_of_the_reference_are_there_once():
    documented = _documented()
    assert len(documented) == len(set(documented)) > 30
    for name in documented:
        importlib.import_module(name)


def test_packages_with_public_names_are_in_the_reference():
    documented = set(_documented())
    with_names = {
        path.parent
        for path in (typed.ROOT / "invjax").rglob("__init__.py")
        if "__all__ = " in path.read_text()
    }
    names = {".".join(path.relative_to(typed.ROOT).parts): path for path in with_names}
    assert set(names) <= documented
    # Only what invjax exports itself is left out of a module.
    left_out = re.findall(r":exclude-members:((?: *\w+,?\n?)+)", _text())
    excluded = {name for names in left_out for name in re.findall(r"\w+", names)}
    assert excluded <= set(invjax.__all__)


def test_whole_places_are_in_the_reference():
    modules = {
        module.name
        for place in WHOLE_PLACES
        for module in pkgutil.iter_modules(
            [str(typed.ROOT / "invjax" / place)], f"invjax.{place}."
        )
    }
    assert modules - set(_documented()) == NOT_SHOWN


def test_public_names_explain_themselves():
    silent = []
    for name in _documented():
        module = importlib.import_module(name)
        assert inspect.getdoc(module), name
        for public in _public(module):
            item = getattr(module, public)
            has_text = inspect.isclass(item) or callable(item)
            if has_text and not inspect.getdoc(item):
                silent.append(f"{name}.{public}")
    assert not [name for name in silent if name not in SELF_EXPLAINING]


def test_pages_of_the_reference_are_in_its_table():
    listed = (REFERENCE / "index.md").read_text().splitlines()
    for page in REFERENCE.glob("*.md"):
        assert page.stem == "index" or page.stem in listed, page
