"""The README's Python runs as it stands."""

import pathlib
import re

import pytest

from invjax.networks import NETWORKS
from invjax.networks.weights import pretrained

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.mark.skipif(
    not pretrained.available(NETWORKS["alexnet"]),
    reason="no AlexNet weights; the pretrained extra has them",
)
def test_python_of_the_readme(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    assert namespace["error"] < 0.1
    assert namespace["grid"].image.shape == (4, 224, 224, 3)
    for name in ("linen_result", "nnx_result"):
        result = namespace[name]
        assert float(result.energy) < 0.3 * float(result.history[0]), name


def test_there_are_two_commands():
    commands = re.findall(r"^pip install -e .*", README.read_text(), re.MULTILINE)
    assert len(commands) == 2
