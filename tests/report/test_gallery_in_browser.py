"""The gallery as a person uses it, in headless Chromium driven by Playwright.

Skipped where the extra `browser` is not installed, and where there is no Chromium.
What is seen is judged by the colours of screenshots.
"""

import io
import os
import pathlib
import re
import shutil
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from invjax.report import gallery
from invjax.report.gallery import GalleryImage, GalleryLane
from tests.report.made_up import record

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs pip install 'invjax[browser]'"
)
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright",
    reason="needs pip install 'invjax[browser]'",
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE, SCREEN = (390, 844), (1280, 900)
RED, GREEN, BLUE = (220, 20, 20), (20, 150, 20), (20, 20, 220)
"""Of originals, of clipped reconstructions and of stretched ones."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = os.environ.get("INVJAX_CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES)), None
    )
    if path is None:
        pytest.skip("there is no Chromium; INVJAX_CHROMIUM names one")
    # Chromium refuses its sandbox to root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=options)
        yield started
        started.close()


def _picture(path: pathlib.Path, colour: tuple[int, ...], size: tuple[int, int]):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def _write(
    folder: pathlib.Path,
    records: list[dict[str, Any]],
    *,
    sizes: dict[str, tuple[int, int]] | None = None,
) -> pathlib.Path:
    """A run whose pictures have one colour each; its page.

    Args:
      folder: where it is written.
      records: records of the lanes.
      sizes: width and height of pictures by representation, 48 x 48 elsewhere;
        "original" is that of originals.
    """
    sizes = sizes or {}
    names = list(dict.fromkeys(line["image"] for line in records))
    for name in names:
        _picture(folder / f"originals/{name}.png", RED, sizes.get("original", (48, 48)))
    lanes = []
    for line in records:
        layer = line["representation"]
        stem = f"{line['image']}/{layer.replace('/', '_')}/start_{line['start']:03d}"
        if line["preset"] != "fast":
            stem += f"_{line['preset']}"
        size = sizes.get(layer, (48, 48))
        _picture(folder / f"r/{stem}.png", GREEN, size)
        _picture(folder / f"s/{stem}.png", BLUE, size)
        lanes.append(GalleryLane(line, f"r/{stem}.png", f"s/{stem}.png"))
    gallery.write_gallery(
        folder,
        title="A run",
        command="python -m x --images='a b.png' --representations=alexnet/relu1,hogb",
        images=[GalleryImage(name, f"originals/{name}.png") for name in names],
        lanes=lanes,
        config={"settings": {"images": "a b.png", "seed": 0}, "versions": {"jax": "1"}},
    )
    return folder / "index.html"


def _history(end: float) -> list[list[float]]:
    return [[10 * k, float(end + np.exp(-k / 4))] for k in range(12)]


def _records() -> list[dict[str, Any]]:
    """24 lanes: two images, two presets, two representations, three starts."""
    lines: list[dict[str, Any]] = []
    for name in ("image 10", "image 9"):
        for layer in ("alexnet/relu1", "alexnet/pool5"):
            for preset in ("fast", "adam"):
                for start in range(3):
                    number = len(lines)
                    converged = start == 2 and name == "image 9"
                    status = "converged" if converged else "budget"
                    if number in (4, 16):
                        status = "failed"
                    lines.append(
                        record(
                            image=name,
                            representation=layer,
                            preset=preset,
                            start=start,
                            status=status,
                            relative_error=None
                            if status == "failed"
                            else 0.01 * ((7 * number) % 24),
                            history=_history(0.01 * number + 0.01),
                        )
                    )
    return lines


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return _write(tmp_path_factory.mktemp("run"), _records())


class Opened:
    """A page that has been opened, and what it has said and asked for."""

    def __init__(self, browser: Any, path: pathlib.Path, size: tuple[int, int], **how):
        width, height = size
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, **how
        )
        self.page = self._context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", self._add_failure)
        self.page.on("request", lambda asked: self.requests.append(asked.url))
        self.folder = path.parent
        self.page.goto(path.as_uri())

    def _add_failure(self, request: Any) -> None:
        # What was under way when the page was left does not count.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.url}: {request.failure}")

    def close(self) -> None:
        self._context.close()
        assert self.complaints == []
        for url in self.requests:
            parts = urllib.parse.urlsplit(url)
            asked = pathlib.Path(urllib.parse.unquote(parts.path))
            assert parts.scheme == "file" and asked.is_relative_to(self.folder)


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens pages; in the end none has complained or asked for what is elsewhere."""
    pages: list[Opened] = []

    def open_page(path, size=SCREEN, **how):
        pages.append(Opened(browser, path, size, **how))
        return pages[-1].page

    yield open_page
    for page in pages:
        page.close()


def _colours(locator: Any, *, at: tuple[float, ...]) -> list[str]:
    """What is seen of an element at these parts of its width, in words."""
    pixels = np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"))
    row = pixels[len(pixels) // 2].astype(int)
    words = {"original": RED, "clipped": GREEN, "stretched": BLUE}
    found = []
    for part in at:
        colour = row[int(part * len(row))]
        distances = {
            word: abs(colour - np.array(known)).sum() for word, known in words.items()
        }
        word = min(distances, key=lambda name: distances[name])
        found.append(word if distances[word] < 60 else str(tuple(colour)))
    return found


def _link(page: Any, number: int) -> Any:
    return page.locator(f"#lane-{number} a:visible")


def _choice(page: Any, name: str) -> Any:
    return page.get_by_role("combobox", name=name, exact=True)


def _paused(page: Any, milliseconds: int) -> None:
    """Stops all animations at this time after their beginning."""
    page.evaluate(
        "time => document.getAnimations().forEach("
        "a => {a.pause(); a.currentTime = time})",
        milliseconds,
    )


def _column(page: Any, heading: str) -> list[str]:
    headings = page.locator("thead th").all_inner_texts()
    place = [text.strip() for text in headings].index(heading) + 1
    cells = page.locator(f"tbody tr:visible > :nth-child({place})")
    # Not the inner text: rows that are out of sight are not rendered and have none.
    return [text.strip() for text in cells.all_text_contents()]


def _shown(page: Any) -> list[int]:
    """Numbers of the lanes whose pictures are shown."""
    return page.evaluate(
        "[...document.querySelectorAll('.lane')].filter(lane => lane.checkVisibility())"
        ".map(lane => Number(lane.id.slice(5)))"
    )


# --- what is where ---


def test_every_picture_loads(run, opened):
    page = opened(run)
    for choice in ("#range-clipped", "#range-stretched"):
        page.locator(choice).check()
        shown = page.locator(".board img:visible")
        # Of 24 lanes, their eight means and deviations, and two originals.
        assert shown.count() == 24 + 2 * 8 + 2
        for image in shown.all():
            image.scroll_into_view_if_needed()
            assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") == 48


def test_starts_stand_side_by_side_and_the_original_stays_in_sight(run, opened):
    page = opened(run)
    row = page.locator(".row").first
    boxes = [tile.bounding_box() for tile in row.locator(".lane").all()]
    assert len({box["y"] for box in boxes}) == 1
    assert [box["x"] for box in boxes] == sorted({box["x"] for box in boxes})
    original = page.locator("figure.original img").first
    bar = page.locator(".bar")
    left = original.bounding_box()["x"]
    assert left < boxes[0]["x"] and left < row.bounding_box()["x"]
    # The last row of the first image: many screens below the first.
    page.locator(".image").first.locator(".row").last.evaluate(
        "r => r.scrollIntoView()"
    )
    bottom = bar.bounding_box()["y"] + bar.bounding_box()["height"]
    box = original.bounding_box()
    assert box["x"] == left and bottom <= box["y"] < bottom + 40


def test_a_row_scrolls_sideways_and_the_page_does_not(browser, tmp_path, opened):
    lines = [record(start=start) for start in range(12)]
    for size in (SCREEN, PHONE):
        page = opened(_write(tmp_path / str(size[0]), lines), size)
        before = page.locator("figure.original").bounding_box()
        page.locator("#lane-11").evaluate("lane => lane.scrollIntoView()")
        last = _link(page, 11).bounding_box()
        assert last["x"] + last["width"] <= size[0]
        after = page.locator("figure.original").bounding_box()
        assert after["x"] == before["x"] and after["x"] + after["width"] < last["x"]
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]


def test_a_telephone_shows_the_page_in_its_width(run, opened):
    page = opened(run, PHONE)
    page.locator(".configuration summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    # The bar leaves most of the screen to the pictures.
    assert page.locator(".bar").bounding_box()["height"] < 0.15 * PHONE[1]
    page.locator(".filters summary").click()
    form = page.locator(".filters form").bounding_box()
    assert form["x"] >= 0 and form["x"] + form["width"] <= PHONE[0]
    _link(page, 0).click()
    viewer = page.locator("#viewer").bounding_box()
    assert viewer["x"] >= 0 and viewer["x"] + viewer["width"] <= PHONE[0]


@pytest.mark.parametrize("chosen", ["", "light", "dark"])
@pytest.mark.parametrize("system", ["light", "dark"])
def test_light_and_dark(run, opened, system, chosen):
    page = opened(run, color_scheme=system)
    page.locator("#theme").select_option(chosen)
    for _ in range(2):
        colours = page.evaluate(
            "['color', 'backgroundColor'].map("
            "name => getComputedStyle(document.body)[name])"
        )
        ink, paper = (
            sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours
        )
        assert (ink < paper) == ((chosen or system) == "light")
        # The choice is remembered.
        page.reload()


# --- the table and filters ---


def test_the_table_sorts_by_number_and_by_word(run, opened):
    page = opened(run)
    heading = page.get_by_role("button", name="Relative error")
    for direction in ("ascending", "descending"):
        heading.click()
        (cell,) = page.locator("th[aria-sort]").all()
        assert cell.get_attribute("aria-sort") == direction
        shown = _column(page, "Relative error")
        # What is not defined comes last in both.
        assert shown[22:] == ["–", "–"]
        numbers = [float(text.rstrip("%")) for text in shown[:22]]
        assert len(set(numbers)) > 20
        assert numbers == sorted(numbers, reverse=direction == "descending")
    page.get_by_role("button", name="Image").click()
    assert _column(page, "Image") == ["image 9"] * 12 + ["image 10"] * 12
    assert page.locator("th[aria-sort]").count() == 1
    # Rows that are equal keep their order.
    errors = [float(text.rstrip("%")) for text in _column(page, "Relative error")[:11]]
    assert errors == sorted(errors, reverse=True)


def test_filters_hold_for_pictures_and_table(run, opened):
    page = opened(run)
    lines = _records()

    def expected(**values):
        return [
            number
            for number, line in enumerate(lines)
            if all(line[name] == value for name, value in values.items())
        ]

    def check(numbers):
        assert _shown(page) == numbers
        assert page.locator("tbody tr:visible").count() == len(numbers)
        words = "" if len(numbers) == 24 else f"{len(numbers)} of 24 shown"
        assert page.locator("#count").inner_text() == words
        # No row or section is left empty.
        for place in (".row", ".image"):
            for found in page.locator(f"{place}:visible").all():
                assert found.locator(".lane:visible").count() > 0

    check(list(range(24)))
    page.locator(".filters summary").click()
    _choice(page, "Status").select_option("diverged")
    check(expected(status="failed"))
    _choice(page, "Image").select_option("image 9")
    check(expected(status="failed", image="image 9"))
    _choice(page, "Status").select_option("")
    _choice(page, "Representation").select_option("alexnet/pool5")
    _choice(page, "Preset").select_option("adam")
    check(expected(image="image 9", representation="alexnet/pool5", preset="adam"))
    _choice(page, "Image").select_option("image 10")
    _choice(page, "Status").select_option("converged")
    check([])
    page.get_by_role("button", name="Show all").click()
    check(list(range(24)))
    page.keyboard.press("Escape")
    playwright.expect(page.locator(".filters form")).to_be_hidden()


def test_the_table_cuts_off_no_text(run, opened):
    page = opened(run)
    page.locator("#all").evaluate("h => h.scrollIntoView()")
    assert (
        page.locator("th:visible, td:visible").evaluate_all(
            "cells => cells.filter(cell => cell.scrollWidth > cell.clientWidth)"
            ".map(cell => cell.textContent)"
        )
        == []
    )


def test_a_row_of_the_table_leads_to_its_picture(run, opened):
    page = opened(run)
    page.locator("tbody tr").nth(20).get_by_role("link").click()
    playwright.expect(_link(page, 20)).to_be_in_viewport()


# --- comparing ---


def test_pointing_at_a_picture_alternates_it_with_the_original(run, opened):
    page = opened(run)
    link = _link(page, 0)
    assert _colours(link, at=(0.5,)) == ["clipped"]
    link.hover()
    _paused(page, 0)
    assert _colours(link, at=(0.25, 0.5)) == ["original", "original"]
    _paused(page, 1000)
    assert _colours(link, at=(0.25, 0.5)) == ["clipped", "clipped"]
    # Three flashes in a second may harm; this is far below.
    assert page.evaluate(
        "document.getAnimations().map(a => a.effect.getComputedTiming().duration)"
    ) == [1400]
    page.locator("#range-stretched").check()
    link = _link(page, 1)
    link.hover()
    _paused(page, 1000)
    assert _colours(link, at=(0.5,)) == ["stretched"]
    page.locator("h1").hover()
    assert page.locator(".overlay").count() == 0


def test_who_wants_no_motion_sees_the_original_still(run, opened):
    page = opened(run, reduced_motion="reduce")
    _link(page, 0).hover()
    assert page.evaluate("document.getAnimations().length") == 0
    assert _colours(_link(page, 0), at=(0.5,)) == ["original"]


def test_the_pointer_wipes(run, opened):
    page = opened(run)
    page.get_by_label("wipe", exact=True).check()
    link = _link(page, 0)
    box = link.bounding_box()
    for part, seen in (
        (0.25, ["original", "clipped", "clipped"]),
        (0.75, ["original", "original", "clipped"]),
    ):
        page.mouse.move(box["x"] + part * box["width"], box["y"] + box["height"] / 2)
        assert _colours(link, at=(0.15, 0.5, 0.9)) == seen


def test_the_slider_of_the_large_picture_wipes(run, opened):
    page = opened(run)
    _link(page, 0).click()
    stage = page.locator(".stage")
    assert _colours(stage, at=(0.1, 0.9)) == ["clipped", "clipped"]
    page.locator("#wipe").fill("50")
    assert (
        _colours(stage, at=(0.1, 0.4, 0.6, 0.9)) == ["original"] * 2 + ["clipped"] * 2
    )
    page.locator("#wipe").fill("100")
    assert _colours(stage, at=(0.1, 0.9)) == ["original", "original"]
    page.locator("#wipe").fill("0")
    assert _colours(stage, at=(0.1, 0.9)) == ["clipped", "clipped"]
    caption = page.locator("#viewer-caption")
    assert "Start 0, ran its 400 steps" in caption.inner_text()
    assert caption.locator("svg polyline").count() == 1
    title = page.locator("#viewer-title").inner_text()
    assert title == "image 10, alexnet/relu1, preset fast"


def test_everything_is_done_by_keys(run, opened):
    page = opened(run)

    def focused():
        return page.evaluate(
            "[['.tile', 'p'], ['.row', 'h3']].map(([place, text]) => document"
            ".activeElement.closest(place)?.querySelector(text).textContent).join(' ')"
        )

    # One stop of the Tab key in each row.
    page.locator("#image-1").evaluate("h => {h.tabIndex = -1; h.focus()}")
    page.keyboard.press("Tab")  # the original
    page.keyboard.press("Tab")
    assert focused() == "Mean of 3 starts alexnet/relu1, preset fast"
    page.keyboard.press("Tab")
    assert focused() == "Mean of 2 starts alexnet/relu1, preset adam"
    page.keyboard.press("Shift+Tab")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert focused() == "Start 1, ran its 400 steps alexnet/relu1, preset fast"
    page.keyboard.press("ArrowDown")
    assert focused() == "Start 1, diverged after 400 steps alexnet/relu1, preset adam"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    # F alternates, and ends it.
    page.keyboard.press("f")
    _paused(page, 0)
    assert _colours(_link(page, 0), at=(0.5,)) == ["original"]
    page.keyboard.press("f")
    assert _colours(_link(page, 0), at=(0.5,)) == ["clipped"]
    # Enter opens the large picture, and arrows go on from there.
    page.keyboard.press("Enter")
    caption = page.locator("#viewer-caption p").first
    assert caption.inner_text() == "Start 0, ran its 400 steps"
    page.keyboard.press("ArrowRight")
    assert caption.inner_text() == "Start 1, ran its 400 steps"
    page.keyboard.press("f")
    flicker = page.get_by_role("button", name="Flicker")
    assert flicker.get_attribute("aria-pressed") == "true"
    _paused(page, 0)
    assert _colours(page.locator(".stage"), at=(0.1, 0.9)) == ["original"] * 2
    page.locator("#wipe").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert flicker.get_attribute("aria-pressed") == "false"
    assert page.locator("#wipe").input_value() == "99"
    assert caption.inner_text() == "Start 1, ran its 400 steps"
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#viewer")).to_be_hidden()
    assert focused() == "Start 1, ran its 400 steps alexnet/relu1, preset fast"


def test_the_large_picture_goes_through_what_the_filters_leave(run, opened):
    page = opened(run)
    page.locator(".filters summary").click()
    _choice(page, "Status").select_option("diverged")
    page.keyboard.press("Escape")
    page.locator(".lane a:visible").first.click()
    caption = page.locator("#viewer-caption p").first
    seen = {page.locator("#viewer-title").inner_text(): caption.inner_text()}
    following = page.get_by_role("button", name="Next")
    while following.is_enabled():
        following.click()
        if caption.inner_text().startswith("Start"):
            seen[page.locator("#viewer-title").inner_text()] = caption.inner_text()
    assert seen == {
        "image 10, alexnet/relu1, preset adam": "Start 1, diverged after 400 steps",
        "image 9, alexnet/relu1, preset adam": "Start 1, diverged after 400 steps",
    }


def test_an_original_of_another_shape_is_not_laid_over(tmp_path, opened):
    lines = [record(), record(representation="hogb")]
    sizes = {"original": (48, 48), "hogb": (60, 40)}
    page = opened(_write(tmp_path, lines, sizes=sizes))
    _link(page, 1).hover()
    assert page.locator(".overlay").count() == 0
    _link(page, 0).hover()
    assert page.locator(".overlay").count() == 1
    _link(page, 1).click()
    playwright.expect(page.locator("#viewer-note")).to_contain_text("another shape")
    assert page.locator("#wipe").is_disabled()
    page.get_by_role("button", name="Previous").click()
    playwright.expect(page.locator("#wipe")).to_be_enabled()
    assert page.locator("#viewer-note").inner_text() == ""


def test_reconstructions_are_shown_stretched_and_originals_are_not(run, opened):
    page = opened(run)
    original = page.locator("figure.original img").first
    for choice, seen in (("stretched", "stretched"), ("clipped", "clipped")):
        page.get_by_label(choice).check()
        assert _colours(_link(page, 0), at=(0.5,)) == [seen]
        assert _colours(original, at=(0.5,)) == ["original"]
        _link(page, 0).click()
        assert _colours(page.locator(".stage"), at=(0.9,)) == [seen]
        page.keyboard.press("Escape")


def test_the_command_is_copied(run, opened):
    page = opened(run, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#copy").click()
    playwright.expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == (
        "python -m x --images='a b.png' --representations=alexnet/relu1,hogb"
    )


# --- for everyone, and for many lanes ---


def _findings(page: Any) -> list[str]:
    violations = axe.Axe().run(page).response["violations"]
    return [
        f"{found['impact']}: {found['id']} at {node['target']}"
        for found in violations
        for node in found["nodes"]
    ]


@pytest.mark.parametrize("size", [SCREEN, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(run, opened, scheme, size):
    page = opened(run, size, color_scheme=scheme)
    page.locator(".configuration summary").click()
    assert _findings(page) == []
    page.locator(".filters summary").click()
    _choice(page, "Status").select_option("diverged")
    page.get_by_role("button", name="Relative error").click()
    assert _findings(page) == []
    page.locator(".lane a:visible").first.click()
    page.locator("#wipe").fill("50")
    assert _findings(page) == []


def test_without_a_script_everything_is_to_be_seen(run, opened):
    page = opened(run, java_script_enabled=False)
    assert page.locator(".lane a:visible img").count() == 24
    assert page.locator("tbody tr:visible").count() == 24
    assert page.locator("button:visible").count() == 0
    page.locator("#range-stretched").check()
    assert _colours(_link(page, 0), at=(0.5,)) == ["stretched"]


def test_of_a_thousand_lanes_those_in_sight_are_laid_out_and_loaded(tmp_path, opened):
    lines = [
        record(image=f"image {i}", representation=layer, start=start)
        for i in range(20)
        for layer in (
            "alexnet/relu1",
            "alexnet/relu3",
            "alexnet/pool5",
            "hogb",
            "dsift",
        )
        for start in range(10)
    ]
    page = opened(_write(tmp_path, lines, sizes={"original": (8, 8)}))
    laid_out = page.evaluate(
        "[...document.querySelectorAll('.lane')].filter("
        "lane => lane.checkVisibility({contentVisibilityAuto: true})).length"
    )
    loaded = page.evaluate(
        "[...document.images].filter(image => image.naturalWidth).length"
    )
    assert 0 < laid_out <= 100 and 0 < loaded <= 250
    # Those below come when they are looked at, and so does the table.
    # Rows take their true heights as they come into sight, so it may take a few turns.
    page.locator("#lane-999").evaluate(
        "async lane => { for (let turn = 0; turn < 20; turn++) {"
        "lane.scrollIntoView({block: 'center'});"
        "await new Promise(resolve => requestAnimationFrame(resolve)); } }"
    )
    link = _link(page, 999)
    playwright.expect(link).to_be_in_viewport()
    assert _colours(link, at=(0.5,)) == ["clipped"]
    page.get_by_role("button", name="Image").click()
    assert page.locator("tbody tr:visible").count() == 1000
