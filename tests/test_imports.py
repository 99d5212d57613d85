"""The import contracts of pyproject.toml hold, and fail where a layer is broken."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with the sources and the contracts, to be changed by a test."""
    for folder in ("invjax", "experiments", "weights"):
        for source in (ROOT / folder).rglob("*.py"):
            target = tmp_path / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _lint_imports(folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Runs the command of import-linter on the sources in a folder."""
    code = "from importlinter import cli; cli.lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_contracts_hold(copy: pathlib.Path):
    result = _lint_imports(copy)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "importer, imported",
    [
        ("invjax/networks/layers.py", "invjax"),
        ("invjax/metrics/errors.py", "invjax.inversion.api"),
        ("invjax/inversion/lane.py", "invjax.inversion.batch"),
        ("invjax/runs/folder.py", "experiments.recognition"),
        ("invjax/runs/folder.py", "absl"),
        ("invjax/inversion/solvers.py", "flax"),
        ("invjax/runs/runner.py", "orbax.checkpoint"),
        ("invjax/representations/cnn.py", "torch"),
    ],
)
def test_an_import_that_runs_upward_breaks_a_contract(
    copy: pathlib.Path, importer: str, imported: str
):
    source = copy / importer
    source.write_text(source.read_text() + f"\nimport {imported}\n")
    result = _lint_imports(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    module = importer.removesuffix(".py").replace("/", ".")
    package = imported.partition(".")[0] if "invjax" not in imported else imported
    assert f"{module} -> {package}" in result.stdout


def test_a_new_place_must_be_named(copy: pathlib.Path):
    (copy / "invjax" / "helpers.py").write_text('"""Anything."""\n')
    result = _lint_imports(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "invjax.helpers" in result.stdout
