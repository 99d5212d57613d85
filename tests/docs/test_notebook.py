"""The notebook runs from its first cell to its last, at small size."""

import os
import pathlib
import subprocess
import sys

import pytest

from invjax.networks import NETWORKS
from invjax.networks.weights import pretrained
from tests.docs import typed

CHECK = """
assert float(result.energy) < float(result.history[0])
assert error < 1 and starts.shape == (3, 160, 160, 1)
assert "jax" in sys.modules
"""


@pytest.mark.skipif(
    not pretrained.available(NETWORKS["alexnet"]),
    reason="no AlexNet weights; the pretrained extra has them",
)
def test_the_notebook(tmp_path: pathlib.Path):
    cells = typed.blocks(typed.DOCS / "notebook.md")
    assert all(language == "{code-cell}" for language, _ in cells)
    assert "import jax" not in cells[0][1], "the first cell installs"
    code = "\n".join([*(text for _, text in cells), CHECK])
    path = os.pathsep.join([str(typed.ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "INVJAX_STEPS": "4"}
    environment.pop("INVJAX_ADDRESS", None)
    # A clean interpreter, in another folder, as a kernel is.
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment
    )
