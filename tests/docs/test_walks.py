"""What a newcomer does first, as the page says it: own photographs, and Ctrl-C.

The other walks of the pages (a recorded activation, a model of one's own in Flax and in
PyTorch, samples of the set) are among the blocks that `test_pages` and
`test_your_own_network` run, with checks of what they find.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from invjax.images import pixels
from invjax.runs import shards
from tests.docs import typed
from tests.experiments.inputs import needs_weights
from tests.runs import made_up


def _block(page: str, words: str) -> str:
    """The block of a page that holds some words."""
    texts = [text for _, text in typed.blocks(typed.DOCS / page)]
    [found] = [text for text in texts if words in text]
    return found


@needs_weights
def test_own_photographs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    typed.prepare(tmp_path, monkeypatch)
    [call] = typed.calls(_block("start.md", "runs/mine"), tmp_path)
    # As it is typed, but for the number of steps.
    monkeypatch.setattr(typed, "SMALL", ("--num_steps=2",))
    workdir = typed.carry_out(call, monkeypatch, images=None)
    assert workdir == pathlib.Path("runs/mine")
    page = (workdir / "index.html").read_text()
    for name in made_up.images():
        assert (workdir / "originals" / f"{name}.png").exists()
        for representation in ("alexnet_relu3", "hogb"):
            for start in (0, 1):
                picture = f"{name}/{representation}/start_{start:03d}.png"
                assert (workdir / "reconstructions" / picture).exists()
                assert picture in page
    assert len(list(shards.read_records(workdir))) == 8


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is a signal elsewhere")
def test_resume_after_ctrl_c(tmp_path: pathlib.Path):
    for name, image in made_up.images().items():
        pixels.to_pillow(image).save(tmp_path / f"{name}.jpg")
    says = (typed.DOCS / "start.md").read_text()
    assert re.search(r"by Ctrl-C, .*Type it again,\nand it continues", says)
    # Units of one lane each, as a run of larger images has them, and without LPIPS.
    code = "from invjax.runs import loading, units\nunits.MOST_ON_CPU = 1\n"
    # Where the tests run in the background, shells have told them to ignore Ctrl-C.
    code += "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "loading.load_lpips = lambda groups, settings: None\n"
    code += "from invjax.commands import dispatcher\ndispatcher.main()\n"
    words = ["invert", "--workdir=run", "--images=*.jpg", "--representations=hogb"]
    words += ["--num_starts=4", "--num_steps=400"]
    path = os.pathsep.join([str(typed.ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    # The second process finds what the first has compiled.
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "compiled")
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    command = [sys.executable, "-c", code, *words]
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "text": True}
    parts = tmp_path / "run" / "metrics"
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options
    ) as process:
        while not list(parts.glob("part-*.jsonl")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "invjax invert: interrupted"
    before = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert 0 < len(before) < 8
    again = subprocess.run(command, check=True, capture_output=True, **options)
    for name, changed in before.items():
        assert (parts / name).stat().st_mtime_ns == changed
    records = list(shards.read_records(tmp_path / "run"))
    assert len(records) == 8
    assert len({(line["image"], line["start"]) for line in records}) == 8
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["command"].startswith("invjax invert --workdir=run")
    assert "index.html" in again.stdout
