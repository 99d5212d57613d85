"""The gallery, read back with an HTML parser."""

import html.parser
import pathlib
import urllib.parse
from typing import Any, NamedTuple

import numpy as np
import pytest

from invjax.images import reading
from invjax.report import gallery
from invjax.report.gallery import GalleryImage, GalleryLane

VOID = {"meta", "img", "br", "link", "hr", "input"}
ODD = 'a & b <c> #1 50% "x"'


class Element(NamedTuple):
    tag: str
    attributes: dict[str, str | None]
    children: list[Any]

    def find(self, tag: str, **attributes: str) -> list["Element"]:
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag and attributes.items() <= child.attributes.items():
                    found.append(child)
                found += child.find(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        parts = [c.text if isinstance(c, Element) else c for c in self.children]
        return " ".join(" ".join(parts).split())


class Parser(html.parser.HTMLParser):
    """Builds a tree and fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {}, [])
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs), [])
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(workdir: pathlib.Path) -> Element:
    parser = Parser()
    parser.feed((workdir / "index.html").read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == [parser.root]
    return parser.root


def record(**changes: Any) -> dict[str, Any]:
    return {
        "image": "cat",
        "representation": "alexnet/relu1",
        "start": 0,
        "seed": 12345,
        "preset": "fast",
        "tv_weight": 5.0,
        "alpha_weight": 2.16e-8,
        "status": "budget",
        "num_steps": 400,
        "dead_start": False,
        "energy": 0.0743123,
        "objective": 0.081,
        "data_term": 0.004,
        "alpha_term": 1.2e-6,
        "tv_term": 0.03,
        "relative_error": 0.0712,
        "normalised_error": 0.0934,
        "psnr": 23.13,
        "ssim": 0.7124,
        "lpips": 0.3216,
        "seconds": 12.34,
    } | changes


def undefined(**changes: Any) -> dict[str, Any]:
    fields = ("relative_error", "normalised_error", "psnr", "ssim", "energy")
    return record(**dict.fromkeys(fields), **changes)


def write(workdir, listed, lanes, *, title="A run", command="python -m x --a=1"):
    picture = np.zeros((4, 4, 3), np.float32)
    paths = [image.original for image in listed]
    paths += [path for lane in lanes for path in (lane.picture, lane.stretched)]
    for path in paths:
        if path is not None:
            reading.write_png(workdir / path, picture)
    gallery.write_gallery(
        workdir, title=title, command=command, images=listed, lanes=lanes
    )
    return parse(workdir)


def test_a_section_per_image_and_a_figure_per_lane(tmp_path):
    listed = [GalleryImage("cat", "o/cat.png"), GalleryImage("cup", "o/cup.png")]
    lanes = [
        GalleryLane(
            record(image=image, representation=phi, start=start), f"{image}{n}.png"
        )
        for n, (phi, start) in enumerate([("hogb", 0), ("hogb", 1), ("dsift", 0)])
        for image in ("cat", "cup")
    ]
    page = write(tmp_path, listed, lanes)
    sections = page.find("section")
    assert [s.find("h2")[0].text for s in sections] == ["cat", "cup", "All numbers"]
    for section, name in zip(sections, ("cat", "cup"), strict=False):
        assert [h.text for h in section.find("h3")] == ["hogb", "dsift"]
        pictures = [i.attributes["src"] for i in section.find("img")]
        assert pictures == [f"o/{name}.png", *(f"{name}{n}.png" for n in range(3))]
        groups = section.find("div", **{"class": "figures"})
        assert [len(group.find("figure")) for group in groups] == [1, 2, 1]
    assert "2 images, 6 reconstructions." in page.find("header")[0].text


def test_a_figures_numbers(tmp_path):
    page = write(
        tmp_path, [GalleryImage("cat", None)], [GalleryLane(record(), "r/a.png")]
    )
    (figure,) = page.find("figure")
    assert figure.find("p")[0].text == "Start 0, budget"
    numbers = [value.text for value in figure.find("dd")]
    assert numbers == ["7.1%", "9.3%", "23.1 dB", "0.712"]
    labels = [label.text for label in figure.find("dt")]
    assert labels == ["Relative error", "Normalised error", "PSNR", "SSIM"]
    alt = figure.find("img")[0].attributes["alt"]
    assert alt == "cat reconstructed from alexnet/relu1, start 0, budget"


def test_weights_are_named_where_they_differ(tmp_path):
    lanes = [
        GalleryLane(record(tv_weight=weight), f"tv_{weight:g}.png")
        for weight in (0.5, 50.0)
    ]
    page = write(tmp_path, [GalleryImage("cat", None)], lanes)
    headings = [figure.find("p")[0].text for figure in page.find("figure")]
    assert headings == [
        "Start 0, TV weight 0.5, budget",
        "Start 0, TV weight 50, budget",
    ]


def test_the_table_has_every_lane_and_number(tmp_path):
    lanes = [
        GalleryLane(record(), "a.png"),
        GalleryLane(undefined(start=1, status="failed"), None),
    ]
    page = write(tmp_path, [GalleryImage("cat", "cat.png")], lanes)
    (table,) = page.find("table")
    headings = table.find("th", scope="col")
    rows = table.find("tbody")[0].find("tr")
    assert len(rows) == 2
    assert all(len(row.find("th") + row.find("td")) == len(headings) for row in rows)
    assert [row.find("th", scope="row")[0].text for row in rows] == ["cat", "cat"]
    by_name = dict(
        zip(
            [heading.text for heading in headings[1:]],
            [cell.text for cell in rows[0].find("td")],
            strict=True,
        )
    )
    assert by_name == {
        "Representation": "alexnet/relu1",
        "Start": "0",
        "Status": "budget",
        "Dead start": "no",
        "Relative error": "7.1%",
        "Normalised error": "9.3%",
        "PSNR (dB)": "23.1",
        "SSIM": "0.712",
        "LPIPS": "0.322",
        "Energy": "0.07431",
        "Objective": "0.081",
        "Data term": "0.004",
        "Alpha term": "1.2e-06",
        "TV term": "0.03",
        "Preset": "fast",
        "TV weight": "5",
        "Alpha weight": "2.16e-08",
        "Steps": "400",
        "Seed": "12345",
        "Time (s)": "12.3",
    }
    dashes = [cell.text for cell in rows[1].find("td")].count("–")
    assert dashes == 5


def test_dead_starts_are_counted(tmp_path):
    lanes = [
        GalleryLane(record(start=start, dead_start=dead), "a.png")
        for start, dead in enumerate((True, False, None, True))
    ]
    page = write(tmp_path, [GalleryImage("cat", None)], lanes)
    assert "2 from a dead start" in page.find("header")[0].text
    (table,) = page.find("table")
    headings = [heading.text for heading in table.find("th", scope="col")]
    place = headings.index("Dead start") - 1
    rows = table.find("tbody")[0].find("tr")
    cells = [row.find("td")[place].text for row in rows]
    assert cells == ["yes", "no", "–", "yes"]
    page = write(tmp_path, [GalleryImage("cat", None)], lanes[1:2])
    assert "dead" not in page.find("header")[0].text


def test_failed_lanes_are_marked_and_shown(tmp_path):
    lanes = [
        GalleryLane(undefined(status="failed"), None),
        GalleryLane(undefined(status="failed", start=1), "last_finite.png"),
        GalleryLane(record(start=2), "a.png"),
    ]
    page = write(tmp_path, [GalleryImage("cat", None)], lanes)
    figures = page.find("figure")
    assert [f.attributes["class"] for f in figures] == [
        "lane failed",
        "lane failed",
        "lane",
    ]
    assert figures[0].find("img") == []
    assert "No picture" in figures[0].text
    assert figures[1].find("img")[0].attributes["src"] == "last_finite.png"
    assert [f.find("p")[0].text for f in figures] == [
        "Start 0, failed",
        "Start 1, failed",
        "Start 2, budget",
    ]
    assert [d.text for d in figures[0].find("dd")] == ["–"] * 4
    assert len(page.find("tr", **{"class": "failed"})) == 2
    assert "2 failed" in page.find("header")[0].text


def test_absent_and_non_finite_numbers_are_dashes(tmp_path):
    sparse = {"image": "cat", "representation": "hogb", "psnr": float("inf")}
    page = write(tmp_path, [GalleryImage("cat", None)], [GalleryLane(sparse, "a.png")])
    (row,) = page.find("tbody")[0].find("tr")
    assert {cell.text for cell in row.find("td")} == {"hogb", "–"}
    assert page.find("figure")[0].find("p")[0].text == "Start –, –"


def test_a_run_from_a_code_has_no_original(tmp_path):
    page = write(
        tmp_path, [GalleryImage("cat", None)], [GalleryLane(record(), "a.png")]
    )
    (section, _) = page.find("section")
    assert page.find("figure", **{"class": "original"}) == []
    assert "no original" in section.text


def test_names_are_escaped_and_links_lead_to_files(tmp_path):
    listed = [GalleryImage(ODD, f"originals/{ODD}.png"), GalleryImage("s:t", "s:t.png")]
    lanes = [
        GalleryLane(record(image=ODD), f"reconstructions/{ODD}/alexnet_relu1/a é.png")
    ]
    page = write(
        tmp_path,
        listed,
        lanes,
        title="<script>alert(1)</script>",
        command="x --images='<b> & \"c\"'  --y",
    )
    assert page.find("script") == []
    assert page.find("b") == page.find("c") == []
    assert page.find("h1")[0].text == "<script>alert(1)</script>"
    assert page.find("section")[0].find("h2")[0].text == ODD
    code = page.find("code")[0]
    words = [c if isinstance(c, str) else "".join(c.children) for c in code.children]
    assert "".join(words) == "x --images='<b> & \"c\"'  --y"
    linked = [i.attributes["src"] for i in page.find("img")]
    linked += [
        a.attributes["href"]
        for a in page.find("a")
        if not str(a.attributes["href"]).startswith("#")
    ]
    assert len(linked) == 6
    for url in linked:
        parts = urllib.parse.urlsplit(str(url))
        assert (parts.scheme, parts.query, parts.fragment) == ("", "", "")
        assert (tmp_path / urllib.parse.unquote(parts.path)).is_file()
    assert page.find("img")[0].attributes["alt"] == f"{ODD}, the original"


def test_the_page_stands_alone(tmp_path):
    page = write(
        tmp_path, [GalleryImage("cat", "c.png")], [GalleryLane(record(), "a.png")]
    )
    text = (tmp_path / "index.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert page.find("html")[0].attributes["lang"] == "en-GB"
    assert "prefers-color-scheme: dark" in text
    assert "://" not in text
    assert page.find("script") == page.find("link") == []
    assert all(image.attributes.get("alt") for image in page.find("img"))
    identifiers = {
        e.attributes["id"]
        for tag in ("h2", "section")
        for e in page.find(tag)
        if "id" in e.attributes
    }
    for anchor in page.find("nav")[0].find("a"):
        assert str(anchor.attributes["href"]).removeprefix("#") in identifiers


def _figures(page: Element) -> list[Element]:
    return [f for f in page.find("figure") if "lane" in str(f.attributes["class"])]


def test_the_reader_switches_between_clipped_and_stretched(tmp_path):
    lanes = [
        GalleryLane(record(), "r/a.png", "s/a #1.jpg"),
        GalleryLane(record(start=1), "r/b.png"),
        GalleryLane(undefined(start=2, status="failed"), None),
    ]
    page = write(tmp_path, [GalleryImage("cat", "c.png")], lanes)
    (control,) = page.find("fieldset")
    assert control.find("legend")[0].text
    words = [label.text for label in control.find("label")]
    choices = [label.find("input")[0].attributes for label in control.find("label")]
    assert "clipped" in words[0] and "stretched" in words[1]
    assert {choice["type"] for choice in choices} == {"radio"}
    assert len({choice["name"] for choice in choices}) == 1
    assert ["checked" in choice for choice in choices] == [True, False]
    # The rules of the page follow the second choice.
    text = (tmp_path / "index.html").read_text()
    chosen = f":root:has(#{choices[1]['id']}:checked)"
    assert f"{chosen} .stretched {{ display: block; }}" in text
    assert f"{chosen} .clipped {{ display: none; }}" in text
    assert "\n.stretched { display: none; }" in text
    both, clipped, missing = _figures(page)
    shown = {
        link.attributes["class"]: (
            link.attributes["href"],
            link.find("img")[0].attributes["src"],
        )
        for link in both.find("a")
    }
    assert shown == {
        "clipped": ("r/a.png", "r/a.png"),
        "stretched": ("s/a%20%231.jpg", "s/a%20%231.jpg"),
    }
    alts = [image.attributes["alt"] for image in both.find("img")]
    assert alts[1] == f"{alts[0]}, stretched to its range"
    assert all(image.attributes["loading"] == "lazy" for image in both.find("img"))
    # What there is only clipped is shown in both, and the page says so.
    assert "class" not in clipped.find("a")[0].attributes
    (note,) = clipped.find("p", **{"class": "stretched soft"})
    assert "only the PNG file" in note.text
    assert both.find("p", **{"class": "stretched soft"}) == []
    assert "No picture" in missing.text
    # The original is always what it was.
    (original,) = page.find("figure", **{"class": "original"})
    assert "class" not in original.find("a")[0].attributes


def test_without_stretched_pictures_there_is_nothing_to_switch(tmp_path):
    page = write(
        tmp_path, [GalleryImage("cat", None)], [GalleryLane(record(), "a.png")]
    )
    assert page.find("fieldset") == page.find("input") == []
    assert "only the PNG" not in page.text


def test_image_without_lanes_is_still_listed(tmp_path):
    page = write(tmp_path, [GalleryImage("cat", "c.png")], [])
    assert "No reconstructions" in page.find("section")[0].text
    assert "1 image, 0 reconstructions." in page.find("header")[0].text


def test_refusals_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="not listed: .'dog'"):
        write(
            tmp_path,
            [GalleryImage("cat", None)],
            [GalleryLane(record(image="dog"), None)],
        )
    with pytest.raises(ValueError, match="twice"):
        write(tmp_path, [GalleryImage("cat", None)] * 2, [])
    assert not (tmp_path / "index.html").exists()
