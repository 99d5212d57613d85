"""The Python of the page on networks of one's own runs as it stands."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def _blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_your_own_network(tmp_path: pathlib.Path):
    for package in ("torch", "torchax"):
        pytest.importorskip(package)
    blocks = _blocks("your_own_network.md")
    lines = [line for line in blocks[1].splitlines() if line]
    assert len(lines) == 5
    check = "assert result.energy < 0.3 * result.history[0], result.history"
    blocks.insert(2, check)
    code = "\n".join(blocks)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # Not in this process, whose way of promoting ranks is stricter.
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment
    )
    assert (tmp_path / "inverted.png").stat().st_size > 1000
