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
from tests.report.made_up import record

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


def undefined(**changes: Any) -> dict[str, Any]:
    fields = ("relative_error", "normalised_error", "psnr", "ssim", "energy")
    return record(**dict.fromkeys(fields), **changes)


def write(
    workdir, listed, lanes, *, title="A run", command="python -m x --a=1", config=None
):
    picture = np.zeros((4, 4, 3), np.float32)
    paths = [image.original for image in listed]
    paths += [path for lane in lanes for path in (lane.picture, lane.stretched)]
    for path in paths:
        if path is not None:
            reading.write_png(workdir / path, picture)
    gallery.write_gallery(
        workdir,
        title=title,
        command=command,
        images=listed,
        lanes=lanes,
        config=config,
    )
    return parse(workdir)


def figures(page: Element) -> list[Element]:
    """Those of lanes, without originals and pictures of several lanes."""
    return [f for f in page.find("figure") if "lane" in str(f.attributes["class"])]


def images_of_run(page: Element) -> list[Element]:
    return page.find("section", **{"class": "image"})


def test_a_descent_that_was_kept_can_be_watched(tmp_path):
    lanes = [
        GalleryLane(record(start=0), "a.png", animation="trajectories/a b.webp"),
        GalleryLane(record(start=1), "b.png"),
    ]
    page = write(tmp_path, [GalleryImage("cat", None)], lanes)
    links = [
        a for a in page.find("a") if "Watch" in str(a.attributes.get("aria-label"))
    ]
    assert [link.attributes["href"] for link in links] == ["trajectories/a%20b.webp"]
    assert "start 0" in links[0].attributes["aria-label"]


def test_a_section_per_image_a_row_per_representation_and_starts_across(tmp_path):
    listed = [GalleryImage("cat", "o/cat.png"), GalleryImage("cup", "o/cup.png")]
    lanes = [
        GalleryLane(
            record(image=image, representation=phi, start=start), f"{image}{n}.png"
        )
        for n, (phi, start) in enumerate([("hogb", 0), ("hogb", 1), ("dsift", 0)])
        for image in ("cat", "cup")
    ]
    page = write(tmp_path, listed, lanes)
    headings = [section.find("h2")[0].text for section in page.find("section")]
    assert headings == ["cat", "cup", "All numbers"]
    for section, name in zip(images_of_run(page), ("cat", "cup"), strict=True):
        (original,) = section.find("figure", **{"class": "original"})
        assert original.find("img")[0].attributes["src"] == f"o/{name}.png"
        rows = section.find("div", **{"class": "row"})
        assert [row.find("h3")[0].text for row in rows] == ["hogb", "dsift"]
        pictures = [
            [f.find("img")[0].attributes["src"] for f in figures(row)] for row in rows
        ]
        assert pictures == [[f"{name}0.png", f"{name}1.png"], [f"{name}2.png"]]
    assert "2 images, 6 reconstructions." in page.find("header")[0].text


def test_a_figures_numbers(tmp_path):
    page = write(
        tmp_path, [GalleryImage("cat", None)], [GalleryLane(record(), "r/a.png")]
    )
    (figure,) = figures(page)
    assert figure.find("p")[0].text == "Start 0, ran its 400 steps"
    numbers = [value.text for value in figure.find("dd")]
    assert numbers == ["7.1%", "9.3%", "23.1 dB", "0.712"]
    labels = [label.text for label in figure.find("dt")]
    assert labels == ["Relative error", "Normalised error", "PSNR", "SSIM"]
    alt = figure.find("img")[0].attributes["alt"]
    assert alt == "cat reconstructed from alexnet/relu1, start 0, ran its 400 steps"


@pytest.mark.parametrize(
    ("status", "num_steps", "words"),
    [
        ("budget", 400, "ran its 400 steps"),
        ("budget", 4000, "ran its 4,000 steps"),
        ("converged", 212, "converged after 212 steps"),
        ("failed", 1, "diverged after 1 step"),
        ("failed", None, "diverged"),
        ("budget", None, "ran all its steps"),
        ("of another kind", 3, "of another kind"),
        (None, 3, "–"),
    ],
)
def test_a_status_is_said_in_words(tmp_path, status, num_steps, words):
    lane = GalleryLane(record(status=status, num_steps=num_steps), "a.png")
    page = write(tmp_path, [GalleryImage("cat", None)], [lane])
    (figure,) = figures(page)
    assert figure.find("p")[0].text == f"Start 0, {words}"
    assert str(figure.find("img")[0].attributes["alt"]).endswith(words)
    (row,) = page.find("tbody")[0].find("tr")
    assert words in [cell.text for cell in row.find("td")]


def test_a_row_for_each_set_of_weights_which_its_heading_names(tmp_path):
    lanes = [
        GalleryLane(record(tv_weight=weight, start=start), f"{weight:g}_{start}.png")
        for weight in (0.5, 50.0)
        for start in range(2)
    ]
    lanes.append(GalleryLane(record(representation="hogb"), "hogb.png"))
    page = write(tmp_path, [GalleryImage("cat", None)], lanes)
    rows = page.find("div", **{"class": "row"})
    assert [row.find("h3")[0].text for row in rows] == [
        "alexnet/relu1, TV weight 0.5",
        "alexnet/relu1, TV weight 50",
        "hogb",
    ]
    assert [len(figures(row)) for row in rows] == [2, 2, 1]
    alt = figures(rows[1])[0].find("img")[0].attributes["alt"]
    assert alt == (
        "cat reconstructed from alexnet/relu1, TV weight 50, start 0, ran its 400 steps"
    )
    # Each row has a mean of its own.
    means = [
        image.attributes["src"]
        for image in page.find("img")
        if str(image.attributes["src"]).endswith("_mean.png")
    ]
    assert len(means) == len(set(means)) == 2
    assert all((tmp_path / str(mean)).is_file() for mean in means)


def test_curves_of_a_row_have_the_same_axes(tmp_path):
    fallen = [[0, 1.0], [10, 0.1], [20, 0.01]]
    histories = [fallen, [[0, 1.0], [10, 0.1]], [[0, 1e30], [10, 1e35]], [], None]
    lanes = [
        GalleryLane(
            record(
                start=start,
                history=history,
                status="failed" if start == 2 else "budget",
            ),
            None,
        )
        for start, history in enumerate(histories)
    ]
    page = write(tmp_path, [GalleryImage("cat", None)], lanes)
    shown = [figure.find("svg") for figure in figures(page)]
    assert [len(curves) for curves in shown] == [1, 1, 1, 0, 0]
    lines = [curves[0].find("polyline")[0].attributes["points"] for curves in shown[:3]]
    assert lines == ["2,2 60,18 118,34", "2,2 60,18", "2,2 60,2"]
    box = shown[0][0].attributes
    assert box["viewbox"] == "0 0 120 36" and box["role"] == "img"
    assert box["aria-label"] == "Objective: 1 at step 0, 0.01 at step 20"
    (axes,) = page.find("p", **{"class": "axes soft"})
    assert axes.text == "Curves: objective from 0.01 to 1 (logarithmic) over 20 steps."
    page = write(tmp_path, [GalleryImage("cat", None)], lanes[3:])
    assert page.find("svg") == page.find("p", **{"class": "axes soft"}) == []


def test_mean_and_deviation_over_starts(tmp_path):
    lanes = [
        GalleryLane(record(start=0), "a.png"),
        GalleryLane(record(start=1), "b.png"),
        GalleryLane(undefined(start=2, status="failed"), "last_finite.png"),
        GalleryLane(record(representation="hogb"), "c.png"),
    ]
    page = write(tmp_path, [GalleryImage("cat", None)], lanes)
    two, one = page.find("div", **{"class": "row"})
    assert one.find("div", **{"class": "over-starts"}) == []
    (pictures,) = two.find("div", **{"class": "over-starts"})
    assert [f.find("p")[0].text for f in pictures.find("figure")] == [
        "Mean of 2 starts",
        "Deviation of 2 starts",
    ]
    assert [f.find("p")[1].text for f in pictures.find("figure")] == [
        "of the clipped pictures",
        "white is 0.15",
    ]
    paths = [str(i.attributes["src"]) for i in pictures.find("img")]
    assert paths == [
        f"over_starts/cat/alexnet_relu1_{ending}"
        for ending in ("mean.png", "mean.jpg", "deviation.png")
    ]
    assert all((tmp_path / path).is_file() for path in paths)
    assert all(image.attributes["alt"] for image in pictures.find("img"))


def test_the_configuration_is_shown_and_escaped(tmp_path):
    config = {
        "command": "python -m x",
        "settings": {
            "images": ODD,
            "preset": None,
            "tv_weight": [0.5, 5],
            "smoke": False,
        },
        "versions": {"jax": "0.10.2"},
        "weights": {},
        "device": {"backend": "cpu", "memory": {"host": 3}},
        "of a later version": {"x": 1},
    }
    page = write(tmp_path, [GalleryImage("cat", None)], [], config=config)
    (details,) = page.find("details", **{"class": "configuration"})
    shown = {
        part.find("h2")[0].text: dict(
            zip(
                [name.text for name in part.find("dt")],
                [value.text for value in part.find("dd")],
                strict=True,
            )
        )
        for part in details.find("section")
    }
    assert shown == {
        "Settings": {
            "images": ODD,
            "preset": "–",
            "tv_weight": "0.5, 5",
            "smoke": "no",
        },
        "Device": {"backend": "cpu", "memory": "host 3"},
        "Versions": {"jax": "0.10.2"},
    }
    page = write(tmp_path, [GalleryImage("cat", None)], [])
    assert page.find("details", **{"class": "configuration"}) == []


def test_there_is_a_filter_where_lanes_differ(tmp_path):
    listed = [GalleryImage("cat", None), GalleryImage(ODD, None)]
    lanes = [
        GalleryLane(record(), None),
        GalleryLane(record(image=ODD, status="converged"), None),
        GalleryLane(record(image=ODD, status="failed", preset="adam"), None),
    ]
    page = write(tmp_path, listed, lanes)
    choices = {
        select.attributes["name"]: [option.text for option in select.find("option")]
        for select in page.find("form")[0].find("select")
    }
    assert choices == {
        "image": ["all", "cat", ODD],
        "preset": ["all", "fast", "adam"],
        "status": ["all", "ran all its steps", "converged", "diverged"],
    }
    # Pictures and rows of the table are found by the same words.
    found = [*figures(page), *page.find("tbody")[0].find("tr")]
    for number, element in enumerate(found):
        values = [element.attributes[f"data-{name}"] for name in choices]
        assert (
            values
            == [
                ["cat", "fast", "ran all its steps"],
                [ODD, "fast", "converged"],
                [ODD, "adam", "diverged"],
            ][number % 3]
        )
    page = write(tmp_path, listed[:1], lanes[:1])
    assert page.find("form") == []


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
        "Status": "ran its 400 steps",
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
    # What is sorted by has more figures than what is shown.
    values = [cell.attributes.get("data-value") for cell in rows[0].find("td")]
    places = [heading.text for heading in headings[1:]]
    assert values[places.index("Relative error")] == "0.0712"
    assert values[places.index("Energy")] == "0.0743123"
    assert values[places.index("Status")] is None
    assert rows[1].find("td")[places.index("PSNR (dB)")].attributes == {
        "class": "number"
    }
    # Each row leads to its picture.
    links = [row.find("a")[0].attributes["href"] for row in rows]
    assert links == [f"#{figure.attributes['id']}" for figure in figures(page)]


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
    marked = ["from a dead start" in figure.text for figure in figures(page)]
    assert marked == [True, False, False, True]
    page = write(tmp_path, [GalleryImage("cat", None)], lanes[1:2])
    assert "dead" not in page.find("header")[0].text


def test_failed_lanes_are_marked_and_shown(tmp_path):
    lanes = [
        GalleryLane(undefined(status="failed"), None),
        GalleryLane(undefined(status="failed", start=1), "last_finite.png"),
        GalleryLane(record(start=2), "a.png"),
    ]
    page = write(tmp_path, [GalleryImage("cat", None)], lanes)
    shown = figures(page)
    assert [f.attributes["class"] for f in shown] == [
        "tile lane failed",
        "tile lane failed",
        "tile lane",
    ]
    assert shown[0].find("img") == []
    assert "No picture" in shown[0].text
    assert shown[1].find("img")[0].attributes["src"] == "last_finite.png"
    assert [f.find("p")[0].text for f in shown] == [
        "Start 0, diverged after 400 steps",
        "Start 1, diverged after 400 steps",
        "Start 2, ran its 400 steps",
    ]
    assert [d.text for d in shown[0].find("dd")] == ["–"] * 4
    assert len(page.find("tr", **{"class": "failed"})) == 2
    assert "2 diverged" in page.find("header")[0].text
    # One lane that did not fail has no mean.
    assert page.find("div", **{"class": "over-starts"}) == []


def test_absent_and_non_finite_numbers_are_dashes(tmp_path):
    sparse = {"image": "cat", "representation": "hogb", "psnr": float("inf")}
    page = write(tmp_path, [GalleryImage("cat", None)], [GalleryLane(sparse, "a.png")])
    (row,) = page.find("tbody")[0].find("tr")
    assert {cell.text for cell in row.find("td")} == {"hogb", "–"}
    assert figures(page)[0].find("p")[0].text == "Start –, –"


def test_a_run_from_a_code_has_no_original(tmp_path):
    page = write(
        tmp_path, [GalleryImage("cat", None)], [GalleryLane(record(), "a.png")]
    )
    (section,) = images_of_run(page)
    assert page.find("figure", **{"class": "original"}) == []
    assert "no original" in section.text
    # Nothing to compare with, nor a control for it.
    assert page.find("fieldset") == []


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
    assert len(page.find("script")) == 1
    assert page.find("b") == page.find("c") == []
    assert page.find("h1")[0].text == "<script>alert(1)</script>"
    assert images_of_run(page)[0].find("h2")[0].text == ODD
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
    (script,) = page.find("script")
    assert script.attributes == {} and page.find("link") == []
    for word in ("@import", "url(", "fetch(", "XMLHttpRequest", "import("):
        assert word not in text
    assert all(image.attributes.get("alt") for image in page.find("img"))
    identifiers = {
        e.attributes["id"]
        for tag in ("h2", "section")
        for e in page.find(tag)
        if "id" in e.attributes
    }
    for anchor in page.find("nav")[0].find("a"):
        assert str(anchor.attributes["href"]).removeprefix("#") in identifiers


def test_the_reader_switches_between_clipped_and_stretched(tmp_path):
    lanes = [
        GalleryLane(record(), "r/a.png", "s/a #1.jpg"),
        GalleryLane(record(start=1), "r/b.png"),
        GalleryLane(undefined(start=2, status="failed"), None),
    ]
    page = write(tmp_path, [GalleryImage("cat", "c.png")], lanes)
    (control,) = page.find("fieldset", **{"class": "range"})
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
    both, clipped, missing = figures(page)
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
    assert page.find("fieldset") == page.find("input", name="range") == []
    assert "only the PNG" not in page.text


def test_image_without_lanes_is_still_listed(tmp_path):
    page = write(tmp_path, [GalleryImage("cat", "c.png")], [])
    assert "No reconstructions" in images_of_run(page)[0].text
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
