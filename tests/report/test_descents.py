"""Drawings of how objectives and errors fell."""

import importlib.util
import pathlib
import xml.etree.ElementTree

import pytest
from PIL import Image

from invjax.report import descents
from invjax.report.descents import Descent

FALLING = [(0, 1.0), (10, 0.1), (20, 0.01)]
SVG = "{http://www.w3.org/2000/svg}"


def _drawn(folder: pathlib.Path) -> xml.etree.ElementTree.Element:
    return xml.etree.ElementTree.parse(folder / "curves.svg").getroot()


def test_a_panel_for_each_group_and_kind(tmp_path: pathlib.Path):
    given = [
        Descent("a <b> & c", FALLING, [(0, 1.0), (20, 0.1)]),
        Descent("a <b> & c", FALLING[:2]),
        Descent("other", FALLING),
        Descent("without", [(0, 1.0)]),
    ]
    assert descents.write(tmp_path, given) == ["curves.svg", "curves.png"]
    root = _drawn(tmp_path)
    titles = [text.text for text in root.iter(f"{SVG}text") if text.get("font-weight")]
    assert titles == [
        "a <b> & c: objective",
        "a <b> & c: relative error",
        "other: objective",
    ]
    points = [line.get("points") for line in root.iter(f"{SVG}polyline")]
    assert len(points) == 4
    # The axes are those of both curves, and logarithmic: the half is in the middle.
    assert points[0] == "2,2 60,18 118,34" and points[1] == "2,2 60,18"
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > picture.size[1]


def test_of_many_descents_the_first_are_drawn(tmp_path: pathlib.Path):
    descents.write(tmp_path, [Descent("a", FALLING)] * (descents.MOST_CURVES + 5))
    root = _drawn(tmp_path)
    assert len([*root.iter(f"{SVG}polyline")]) == descents.MOST_CURVES
    assert "the first 100 descents" in (tmp_path / "curves.svg").read_text()


def test_nothing_is_drawn_of_nothing(tmp_path: pathlib.Path):
    assert descents.write(tmp_path, [Descent("a", [])]) == []
    assert [*tmp_path.iterdir()] == []


def test_without_matplotlib_there_is_an_svg(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None):
        return None if name == "matplotlib" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert descents.write(tmp_path, [Descent("a", FALLING)]) == ["curves.svg"]
    assert [path.name for path in tmp_path.iterdir()] == ["curves.svg"]
