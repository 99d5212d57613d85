"""Every block of code of every page runs, and what it finds is what the page says."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from invjax.networks import NETWORKS
from invjax.networks.weights import pretrained
from tests.docs import typed

OWN_TESTS = {"large_runs", "your_own_network", "several_layers", "notebook"}
"""Pages whose Python other files here run."""

PAGES = {
    page.stem: page
    for page in [*sorted(typed.DOCS.glob("*.md")), typed.ROOT / "README.md"]
    if page.stem not in OWN_TESTS
}
LANGUAGES = {"python", "sh", "{toctree}", "{eval-rst}", "{code-cell}"}


def _descends(result: Any) -> bool:
    return float(result.energy) < 0.3 * float(result.history[0])


CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "README": lambda found: found["error"] < 0.1,
    "choose_a_layer": lambda found: _descends(found["result"]),
    "choose_lambda": lambda found: len(np.unique(found["grid"].energy)) == 3,
    "concepts": lambda found: found["result"].energy < found["result"].history[0],
    "images": lambda found: np.array_equal(found["same"], found["photograph"]),
    "read_the_numbers": lambda found: 0 < found["means"]["hogb"] < 2,
    "recorded_activations": lambda found: _descends(found["result"]),
    "representations": lambda found: (
        _descends(found["linen_result"]) and _descends(found["nnx_result"])
    ),
    "sample_the_set": lambda found: 1 < found["rank"] <= 4,
    "start": lambda found: (
        found["error"] < 0.1 and found["grid"].image.shape == (4, 224, 224, 3)
    ),
}
"""What must hold of the names that a page has defined in the end."""


@pytest.mark.skipif(
    not pretrained.available(NETWORKS["alexnet"]),
    reason="no AlexNet weights; the pretrained extra has them",
)
@pytest.mark.parametrize("name", PAGES)
def test_a_page(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    typed.prepare(tmp_path, monkeypatch)
    found = typed.run(PAGES[name], monkeypatch)
    assert name not in CHECKS or CHECKS[name](found)


@pytest.mark.parametrize("name", sorted(OWN_TESTS - {"large_runs"}))
def test_commands_of_other_pages_exist(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    typed.prepare(tmp_path, monkeypatch)
    for language, text in typed.blocks(typed.DOCS / f"{name}.md"):
        for call in typed.calls(text, tmp_path) if language == "sh" else ():
            typed.check(*typed.command(call.words))


def test_blocks_have_languages_that_are_run():
    everything = [*typed.DOCS.rglob("*.md"), typed.ROOT / "README.md"]
    for page in everything:
        assert {language for language, _ in typed.blocks(page)} <= LANGUAGES, page
    assert OWN_TESTS <= {page.stem for page in everything}


def test_links_lead_somewhere():
    dead = []
    for page in [*typed.DOCS.rglob("*.md"), typed.ROOT / "README.md"]:
        for target in typed.links(page):
            if not (page.parent / target).exists():
                dead.append(f"{page.name}: {target}")
    assert not dead


def test_there_are_two_commands_in_the_readme():
    lines = PAGES["README"].read_text().splitlines()
    assert sum(line.startswith("pip install -e ") for line in lines) == 2
