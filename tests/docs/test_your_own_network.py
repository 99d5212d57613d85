"""The Python of the page on networks of one's own runs as it stands."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"


FILE = "# my_models.py\n"
"""How the block begins that is a file."""


def _blocks(page: str, language: str = "python") -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_your_own_network(tmp_path: pathlib.Path):
    for package in ("torch", "torchax"):
        pytest.importorskip(package)
    blocks = [x for x in _blocks("your_own_network.md") if not x.startswith(FILE)]
    lines = [line for line in blocks[1].splitlines() if line]
    assert len(lines) == 5
    check = "assert result.energy < 0.3 * result.history[0], result.history"
    blocks.insert(2, check)
    code = "\n".join(blocks)
    # Not in this process, whose way of promoting ranks is stricter.
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, env=_environment()
    )
    assert (tmp_path / "inverted.png").stat().st_size > 1000


def test_on_the_command_line(tmp_path: pathlib.Path):
    blocks = _blocks("your_own_network.md")
    (text,) = [block for block in blocks if block.startswith(FILE)]
    (tmp_path / "my_models.py").write_text(text)
    *_, commands = _blocks("your_own_network.md", "sh")
    done = subprocess.run(
        # The command that a wheel installs is that of `python -m invjax`.
        ["bash", "-ec", commands.replace("invjax ", f"{sys.executable} -m invjax ")],
        cwd=tmp_path,
        check=True,
        env=_environment(),
        text=True,
        stdout=subprocess.PIPE,
    )
    assert re.search(r"^layers\.2 +16 x 16 x 24 +Conv$", done.stdout, re.MULTILINE)
    lines = (tmp_path / "runs/small/metrics.jsonl").read_text().splitlines()
    errors = {
        record["representation"]: record["relative_error"]
        for record in map(json.loads, lines)
    }
    assert set(errors) == {f"my_models:small/layers.{number}" for number in (0, 2)}
    assert max(errors.values()) < 0.3
    assert (
        tmp_path / "runs/small/reconstructions/coffee/my_models_small_layers.0"
    ).is_dir()
