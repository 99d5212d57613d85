"""Where pictures, labels and captions land on the sheet."""

import numpy as np
import pytest
from PIL import Image

from invjax.images.pixels import ImageError
from invjax.report import contact_sheet
from invjax.report.contact_sheet import Cell, Row

RED, GREEN = (255, 0, 0), (0, 255, 0)


def flat(colour, height=16, width=16):
    pixels = np.broadcast_to(np.array(colour, np.float32) / 255, (height, width, 3))
    return np.ascontiguousarray(pixels)


def box_of(sheet: Image.Image, colour) -> tuple[int, int, int, int]:
    """The bounding box (left, top, right, bottom) of a colour; it must be filled."""
    mask = (np.asarray(sheet) == colour).all(-1)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def has_ink(sheet: Image.Image, box) -> bool:
    return np.asarray(sheet.crop(box)).min() < 160


def test_pictures_are_placed_in_equal_columns():
    sheet = contact_sheet.contact_sheet(
        [Row("a", [Cell(flat(RED), "one"), Cell(flat(GREEN), "two")])], cell_size=64
    )
    assert sheet.mode == "RGB"
    red, green = box_of(sheet, RED), box_of(sheet, GREEN)
    assert (red[2] - red[0], red[3] - red[1]) == (64, 64)
    assert (green[2] - green[0], green[3] - green[1]) == (64, 64)
    assert red[1] == green[1]
    assert green[0] > red[2]
    # Equal margins at both sides.
    assert red[0] == sheet.width - green[2] > 0


def test_labels_stand_above_and_captions_below():
    sheet = contact_sheet.contact_sheet(
        [Row("label", [Cell(flat(RED), "caption")])], cell_size=64
    )
    left, top, right, bottom = box_of(sheet, RED)
    assert has_ink(sheet, (left, 0, right, top))
    assert has_ink(sheet, (left, bottom, right, sheet.height))
    bare = contact_sheet.contact_sheet([Row("", [Cell(flat(RED), "")])], cell_size=64)
    assert bare.size == sheet.size
    assert not has_ink(bare, (left, 0, right, top))
    assert not has_ink(bare, (left, bottom, right, bare.height))


def test_sheet_is_white_around():
    sheet = contact_sheet.contact_sheet(
        [Row("label " * 40, [Cell(flat(RED), "caption " * 40)])], cell_size=64
    )
    pixels = np.asarray(sheet)
    left, _, right, _ = box_of(sheet, RED)
    for edge in (pixels[:, :left], pixels[:, right:], pixels[:2], pixels[-2:]):
        assert (edge == 255).all()


def test_long_captions_stay_under_their_own_picture():
    long = Row("a", [Cell(flat(RED), "W" * 90), Cell(flat(GREEN), "")])
    sheet = contact_sheet.contact_sheet([long], cell_size=64)
    _, _, right, bottom = box_of(sheet, RED)
    assert has_ink(sheet, (0, bottom, right, sheet.height))
    assert not has_ink(sheet, (right, bottom, sheet.width, sheet.height))


def test_long_captions_end_in_an_ellipsis():
    def drawn(caption):
        sheet = contact_sheet.contact_sheet(
            [Row("", [Cell(flat(RED), caption)])], cell_size=64
        )
        return np.asarray(sheet)

    cut = drawn("i" * 200)
    assert any(np.array_equal(cut, drawn("i" * count + "…")) for count in range(1, 60))


def test_aspect_is_kept():
    sheet = contact_sheet.contact_sheet(
        [
            Row("wide", [Cell(flat(RED, 10, 20), "")]),
            Row("high", [Cell(flat(GREEN, 200, 50), "")]),
        ],
        cell_size=64,
    )
    red, green = box_of(sheet, RED), box_of(sheet, GREEN)
    assert (red[2] - red[0], red[3] - red[1]) == (64, 32)
    assert (green[2] - green[0], green[3] - green[1]) == (16, 64)
    # Centred in the same column.
    assert red[0] + red[2] == green[0] + green[2]
    assert green[1] > red[3]


def test_grey_is_shown_grey_and_values_are_clipped():
    grey = np.full((16, 16, 1), 0.2, np.float32)
    bright = flat(RED) * 9 - 0.5
    sheet = contact_sheet.contact_sheet(
        [Row("", [Cell(grey, ""), Cell(bright, "")])], cell_size=64
    )
    box_of(sheet, (51, 51, 51))
    box_of(sheet, RED)


def test_pictures_of_the_cells_size_are_not_resampled():
    levels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    picture = levels.astype(np.float32) / 255
    sheet = contact_sheet.contact_sheet(
        [Row("", [Cell(flat(RED), ""), Cell(picture, "")])], cell_size=32
    )
    left, top, right, bottom = box_of(sheet, RED)
    step = sheet.width - right - left
    crop = sheet.crop((left + step, top, right + step, bottom))
    np.testing.assert_array_equal(np.asarray(crop), levels)


@pytest.mark.parametrize("beside", [True, False])
def test_failed_lane_is_a_panel_that_says_so(beside):
    cells = [Cell(None, "")] + [Cell(flat(RED), "")] * beside
    sheet = contact_sheet.contact_sheet([Row("", cells)], cell_size=64)
    panel = (np.asarray(sheet) == (0xD9, 0xD9, 0xD9)).all(-1)[sheet.height // 4 :]
    columns = np.flatnonzero(panel.any(0))[:64]
    assert columns[-1] - columns[0] == 63
    left = int(columns[0])
    assert has_ink(sheet, (left + 2, sheet.height // 3, left + 62, sheet.height - 20))


def test_rows_may_differ_in_length():
    sheet = contact_sheet.contact_sheet(
        [
            Row("three", [Cell(flat(RED), "")] * 3),
            Row("one", [Cell(flat(GREEN), "")]),
            Row("none", []),
        ],
        cell_size=32,
    )
    red, green = (np.asarray(sheet) == RED).all(-1), box_of(sheet, GREEN)
    assert red.sum() == 3 * 32 * 32
    assert green[0] == np.flatnonzero(red.any(0))[0]


def test_letters_the_font_lacks_are_replaced_not_boxed():
    def drawn(label):
        return contact_sheet.contact_sheet([Row(label, [])]).tobytes()

    assert drawn("café – 中") == drawn("cafe - ?")
    assert drawn("cafe\u0301") == drawn("cafe")
    assert drawn("cafe") != drawn("cafo")


def test_refusals():
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet.contact_sheet([])
    with pytest.raises(ValueError, match="too small"):
        contact_sheet.contact_sheet([Row("", [])], cell_size=3)
    with pytest.raises(ImageError, match="not a number"):
        contact_sheet.contact_sheet([Row("", [Cell(flat(RED) * np.nan, "")])])


def test_a_sheet_is_written_whole(tmp_path):
    grey = np.full((8, 8, 1), 0.5, np.float32)
    rows = [Row("grey", [Cell(grey, "a")])]
    contact_sheet.write(tmp_path / "new" / "grid.png", rows, cell_size=32)
    with Image.open(tmp_path / "new" / "grid.png") as written:
        drawn = contact_sheet.contact_sheet(rows, cell_size=32)
        assert written.format == "PNG"
        np.testing.assert_array_equal(np.asarray(written), np.asarray(drawn))
    before = (tmp_path / "new" / "grid.png").read_bytes()
    with pytest.raises(ValueError):
        contact_sheet.write(tmp_path / "new" / "grid.png", [])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]
    assert (tmp_path / "new" / "grid.png").read_bytes() == before


def test_pictures_far_out_of_range_are_clipped():
    bright = np.full((16, 16, 1), 300, np.float32)
    sheet = contact_sheet.contact_sheet([Row("", [Cell(bright, "")])], cell_size=16)
    white = contact_sheet.contact_sheet(
        [Row("", [Cell(np.ones_like(bright), "")])], cell_size=16
    )
    np.testing.assert_array_equal(np.asarray(sheet), np.asarray(white))


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((3, 3), [[3, 3]]),
        ((24, 24, 20), [[24, 24, 20]]),
        ((30, 30), [[24, 24, 6, 6]]),
        ((260, 260), [[24, 24] * 10, [20, 20]]),
        ((25, 1), [[24, 1, 1]]),
        ((3,) * 200, [[2] * 200, [1] * 200]),
        ((0,), []),
    ],
)
def test_pages_have_all_cells_in_order(lengths, expected):
    picture = np.zeros((2, 2, 1), np.float32)
    rows = [
        Row(f"row {number}", [Cell(picture, f"{number}:{n}") for n in range(length)])
        for number, length in enumerate(lengths)
    ]
    found = list(contact_sheet.pages(rows))
    assert [[len(row.cells) for row in page] for page in found] == expected
    for row in rows:
        parts = [other for page in found for other in page if other.label == row.label]
        assert [cell for part in parts for cell in part.cells] == row.cells
    assert all(sum(map(len, (r.cells for r in page))) <= 500 for page in found)


DIM = np.random.default_rng(0).uniform(0.4, 0.6, (64, 64, 3)).astype(np.float32)


def read(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_images_found_have_both_forms_and_others_one(tmp_path):
    rows = [
        Row("originals", [Cell(flat(RED), ""), Cell(None, "")]),
        Row("found", [Cell.found(DIM, "a"), Cell.found(None, "b")]),
    ]
    contact_sheet.write_both(tmp_path / "grid.png", rows, cell_size=64)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "grid.png",
        "grid_stretched.png",
    ]
    clipped = read(tmp_path / "grid.png")
    stretched = read(tmp_path / "grid_stretched.png")
    assert clipped.shape == stretched.shape
    # The original is where and what it was.
    left, top, right, bottom = box_of(Image.fromarray(clipped), RED)
    assert box_of(Image.fromarray(stretched), RED) == (left, top, right, bottom)
    # Only two places differ: the image found, and the line that says the form.
    rows_that_differ = np.flatnonzero((clipped != stretched).any((1, 2)))
    blocks = np.split(
        rows_that_differ, np.flatnonzero(np.diff(rows_that_differ) > 8) + 1
    )
    picture, line = blocks
    assert picture[0] > bottom and len(picture) == 64
    assert line[0] > picture[-1] and len(line) < 20
    place = np.s_[picture[0] : picture[-1] + 1, left:right]
    assert 100 <= clipped[place].min() and clipped[place].max() <= 155
    assert stretched[place].min() == 0 and stretched[place].max() == 255


def test_the_other_form_is_named_by_what_it_is(tmp_path):
    rows = [Row("found", [Cell.found(DIM, "a")])]
    path = tmp_path / "figure.png"
    contact_sheet.write_both(path, rows, cell_size=64, picture_range="stretched")
    other = tmp_path / "figure_clipped.png"
    assert sorted(tmp_path.iterdir()) == [path, other]
    drawn = contact_sheet.contact_sheet(rows, cell_size=64)
    np.testing.assert_array_equal(read(other), np.asarray(drawn))
    drawn = contact_sheet.contact_sheet(rows, cell_size=64, picture_range="stretched")
    np.testing.assert_array_equal(read(path), np.asarray(drawn))


def test_sheets_without_images_found_have_one_form(tmp_path):
    rows = [Row("maps", [Cell(DIM, "a"), Cell.found(None, "failed")])]
    assert not contact_sheet.has_two_forms(rows)
    contact_sheet.write_both(tmp_path / "figure.png", rows, cell_size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    # And no line below that says so.
    found = [Row("maps", [Cell.found(DIM, "a"), Cell(None, "failed")])]
    plain, said = (
        contact_sheet.contact_sheet(given, cell_size=64) for given in (rows, found)
    )
    assert plain.height < said.height
    assert not has_ink(said, (0, said.height - 4, said.width, said.height))


def test_a_flat_image_found_is_the_same_in_both_forms():
    rows = [Row("found", [Cell.found(flat((90, 90, 90)), "a")])]
    for picture_range in ("clipped", "stretched"):
        sheet = contact_sheet.contact_sheet(
            rows, cell_size=64, picture_range=picture_range
        )
        left, top, right, bottom = box_of(sheet, (90, 90, 90))
        assert right - left == bottom - top == 64
