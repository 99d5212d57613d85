"""What SECURITY.md promises of all code; hostile files are read in other tests."""

import ast
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("invjax", "experiments", "weights")
    for path in (ROOT / folder).rglob("*.py")
)
UNPICKLER = ROOT / "invjax" / "networks" / "weights" / "pickles.py"
"""The one place that unpickles: it imports and calls nothing that a pickle names."""

OBJECTS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib"} | {
    "marshal",
    "shelve",
    "jsonpickle",
    "yaml",
}
"""Libraries that can make any object of a file's bytes, or run what is in it."""

FOREIGN_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "archive.extract",
    "archive.extractall",
    "tarfile.extractall",
    "shutil.unpack_archive",
    "tempfile.mktemp",
}


def _trees() -> Iterator[tuple[pathlib.Path, ast.Module]]:
    for path in SOURCES:
        yield path, ast.parse(path.read_text())


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _keyword(call: ast.Call, name: str) -> object:
    """A keyword's value where it is a constant, "?" where it is not, else None."""
    for keyword in call.keywords:
        if keyword.arg == name:
            value = keyword.value
            return value.value if isinstance(value, ast.Constant) else "?"
    return None


def test_one_module_unpickles():
    found = {path for path, tree in _trees() if OBJECTS & set(_imported(tree))}
    assert found == {UNPICKLER}


def test_files_never_become_objects_or_commands():
    wrong = []
    for path, tree in _trees():
        for call in _calls(tree):
            name = ast.unparse(call.func)
            if (
                name in FOREIGN_CALLS
                or _keyword(call, "allow_pickle") not in (None, False)
                or _keyword(call, "shell") not in (None, False)
                or (name == "torch.load" and _keyword(call, "weights_only") is not True)
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno} {name}")
    assert not wrong


def test_pages_are_made_with_escapes():
    """Jinja escapes nothing unless it is told to."""
    pages = []
    for path, tree in _trees():
        for call in _calls(tree):
            if ast.unparse(call.func).endswith("Environment"):
                pages.append(path.name)
                assert _keyword(call, "autoescape") is not None, path
    assert "gallery.py" in pages
    templates = sorted((ROOT / "invjax" / "report" / "templates").iterdir())
    assert {path.suffix for path in templates} == {".jinja", ".css", ".js"}
    for template in templates:
        text = template.read_text()
        assert "|safe" not in text.replace(" ", "") and "autoescape" not in text
