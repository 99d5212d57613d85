"""A contact sheet: labelled rows of captioned pictures on white.

Pictures are NumPy arrays [h, w, 3] or [h, w, 1] in [0, 1]; values outside are clipped.
A sheet has two forms: images that were found are clipped in one, and each is stretched
to its own range in the other, as the papers show them. A line below says which form it
is; originals, maps and glyphs are the same in both.

The font is Pillow's own. Letters that it lacks lose their accents or become question
marks.
"""

import functools
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from invjax import files
from invjax.images.pixels import to_pillow
from invjax.report import contrast
from invjax.report.contrast import PictureRange

_PAPER = "#ffffff"
_INK = "#1a1a1a"
_SOFT_INK = "#5c5c5c"
_RULE = "#d9d9d9"
_PANEL = "#f1f1f1"
_MISSING = "failed"
_MOST_COLUMNS = 24

MOST_CELLS = 500
"""Number of pictures of a page at most, unless it has more rows than that."""

_SAID: dict[PictureRange, str] = {
    "clipped": "Images found are clipped to [0, 1].",
    "stretched": "Images found are stretched, each to its own range.",
}


class Cell(NamedTuple):
    """One picture and its caption.

    Attributes:
      picture: [h, w, 3] or [h, w, 1] in [0, 1], or None for a failed lane, which is
        shown as an empty panel that says "failed".
      caption: One line, cut with an ellipsis where it is wider than the cell.
      stretched: returns what the stretched form of the sheet shows instead; None for
        the same picture in both forms, as for originals. It is called when the sheet
        is drawn, since stretched copies of all pictures would fill the memory.
    """

    picture: Float[np.ndarray, "h w c"] | None
    caption: str
    stretched: Callable[[], Float[np.ndarray, "h w c"]] | None = None

    @classmethod
    def found(cls, picture: Float[np.ndarray, "h w c"] | None, caption: str) -> "Cell":
        """A cell of an image that was found, which the stretched form stretches.

        Args:
          picture: [h, w, c] as it was optimised, not clipped; None for a failed lane.
          caption: as above.
        """
        if picture is None:
            return cls(None, caption)
        return cls(picture, caption, functools.partial(contrast.stretched, picture))


class Row(NamedTuple):
    """A heading and the cells below it, from left to right."""

    label: str
    cells: list[Cell]


class _Layout(NamedTuple):
    cell: int
    margin: int
    gap: int
    label_font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    label_height: int
    caption_font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    caption_height: int


def contact_sheet(
    rows: Sequence[Row],
    *,
    cell_size: int = 224,
    picture_range: PictureRange = "clipped",
) -> Image.Image:
    """Draws rows of pictures below each other, in columns of equal width.

    A label has a line of its own above its row, so it may be long. Pictures are scaled
    to fit the cell and keep their aspect ratio; a row is as high as its highest
    picture. Where the two forms of the sheet differ, a last line says which this is.

    Args:
      rows: At least one; rows may differ in length. By convention the originals are in
        the first row.
      cell_size: Width and largest height of a picture, in pixels.
      picture_range: "clipped" shows `Cell.picture`, "stretched" shows `Cell.stretched`
        of the cells that have one.

    Returns:
      An RGB picture.

    Raises:
      ValueError: There are no rows, or cells are smaller than 16 pixels.
      ImageError: A picture is not finite, or has neither 1 nor 3 channels.

    Examples:
      >>> grey = np.full((8, 8, 1), 0.5, np.float32)
      >>> sheet = contact_sheet([Row("grey", [Cell(grey, "a")] * 3)], cell_size=32)
      >>> sheet.mode, sheet.size
      ('RGB', (128, 96))
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    if cell_size < 16:
        raise ValueError(
            f"cells of {cell_size} pixels are too small; 16 or more are accepted"
        )
    layout = _layout(cell_size)
    fitted = [
        [_fit(_shown(cell, picture_range), cell_size) for cell in row.cells]
        for row in rows
    ]
    heights = [_row_height(pictures, cell_size) for pictures in fitted]
    columns = max(1, *(len(row.cells) for row in rows))
    inner = columns * cell_size + (columns - 1) * layout.gap
    around = layout.label_height + layout.caption_height
    height = sum(around + row_height for row_height in heights) + layout.margin * (
        len(rows) + 1
    )
    said = _SAID[picture_range] if has_two_forms(rows) else ""
    if said:
        height += layout.label_height
    sheet = Image.new("RGB", (inner + 2 * layout.margin, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = layout.margin
    for row, pictures, row_height in zip(rows, fitted, heights, strict=True):
        _draw_label(draw, row.label, top, inner, layout)
        top += layout.label_height
        for column, (cell, picture) in enumerate(zip(row.cells, pictures, strict=True)):
            left = layout.margin + column * (cell_size + layout.gap)
            box = (left, top, left + cell_size, top + row_height)
            if picture is None:
                _draw_missing(draw, box, layout)
            else:
                sheet.paste(picture, _centred(box, picture.size))
            caption = _shorten(cell.caption, layout.caption_font, cell_size)
            draw.text(
                (left, box[3] + layout.caption_height),
                caption,
                _SOFT_INK,
                layout.caption_font,
                anchor="ld",
            )
        top += row_height + layout.caption_height + layout.margin
    # In place of a further margin, so that it reads as no caption of a picture.
    draw.text(
        (layout.margin, height - layout.margin),
        _shorten(said, layout.caption_font, inner),
        _SOFT_INK,
        layout.caption_font,
        anchor="ld",
    )
    return sheet


def has_two_forms(rows: Sequence[Row]) -> bool:
    """Whether any picture differs between the clipped and the stretched form."""
    return any(cell.stretched is not None for row in rows for cell in row.cells)


def write(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    *,
    cell_size: int = 224,
    picture_range: PictureRange = "clipped",
) -> None:
    """Writes one form of a contact sheet as a PNG file, atomically.

    Args:
      path: the file; missing folders are made.
      rows, cell_size, picture_range: as in `contact_sheet`, and so are the errors.
    """
    sheet = contact_sheet(rows, cell_size=cell_size, picture_range=picture_range)
    with files.whole_file(path) as stream:
        sheet.save(stream, "PNG")


def pages(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Divides rows that are long or many into sheets of at most `MOST_CELLS` pictures.

    Rows that have more than 24 cells are continued below all rows, under the same
    labels, so that what stands below each other still belongs together.

    Args:
      rows: rows whose cells of one column belong together.

    Yields:
      The rows of each page. Rows that fit are one page, as they are.

    Examples:
      >>> grey = np.full((8, 8, 1), 0.5, np.float32)
      >>> many = [Row(label, [Cell(grey, "")] * 600) for label in ("a", "b")]
      >>> [sum(len(row.cells) for row in page) for page in pages(many)]
      [480, 480, 240]
    """
    longest = max((len(row.cells) for row in rows), default=0)
    columns = min(_MOST_COLUMNS, max(1, MOST_CELLS // max(1, len(rows))))
    page: list[Row] = []
    for start in range(0, longest, columns):
        block = [
            row._replace(cells=row.cells[start : start + columns])
            for row in rows
            if len(row.cells) > start
        ]
        if page and _num_cells(page) + _num_cells(block) > MOST_CELLS:
            yield page
            page = []
        page += block
    if page:
        yield page


def page_path(path: files.Path, number: int) -> files.Path:
    """The file of a page, counted from 1: grid.png, grid_002.png, grid_003.png, ...

    Examples:
      >>> page_path(files.located("grid.png"), 12).name
      'grid_012.png'
    """
    return path if number == 1 else path.with_stem(f"{path.stem}_{number:03d}")


def _num_cells(rows: Sequence[Row]) -> int:
    return sum(len(row.cells) for row in rows)


def write_both(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    *,
    cell_size: int = 224,
    picture_range: PictureRange = "clipped",
) -> None:
    """Writes both forms of a contact sheet as PNG files, each atomically.

    Args:
      path: the file of the form that is looked at first, such as grid.png. The other
        form has its own name behind it, as in grid_stretched.png or figure_clipped.png;
        it is not written where it would show the same.
      rows, cell_size: as in `contact_sheet`, and so are the errors.
      picture_range: the form that `path` has.
    """
    first = files.located(path)
    write(first, rows, cell_size=cell_size, picture_range=picture_range)
    for other in get_args(PictureRange):
        if other != picture_range and has_two_forms(rows):
            name = f"{first.stem}_{other}{first.suffix}"
            write(first.with_name(name), rows, cell_size=cell_size, picture_range=other)


def _shown(cell: Cell, picture_range: PictureRange) -> np.ndarray | None:
    if picture_range == "stretched" and cell.stretched is not None:
        return cell.stretched()
    return cell.picture


def _layout(cell_size: int) -> _Layout:
    label_size = min(24, max(13, round(cell_size / 14)))
    caption_size = min(20, max(11, round(cell_size / 17)))
    return _Layout(
        cell=cell_size,
        margin=min(28, max(10, cell_size // 9)),
        gap=min(14, max(6, cell_size // 18)),
        label_font=ImageFont.load_default(size=label_size),
        label_height=2 * label_size,
        caption_font=ImageFont.load_default(size=caption_size),
        caption_height=round(1.6 * caption_size),
    )


def _fit(picture: np.ndarray | None, cell_size: int) -> Image.Image | None:
    if picture is None:
        return None
    pixels = to_pillow(np.clip(picture, 0, 1))
    scale = cell_size / max(pixels.size)
    if scale != 1:
        width, height = (max(1, round(side * scale)) for side in pixels.size)
        pixels = pixels.resize((width, height), Image.Resampling.LANCZOS)
    return pixels.convert("RGB")


def _row_height(pictures: Sequence[Image.Image | None], cell_size: int) -> int:
    heights = [picture.height for picture in pictures if picture is not None]
    return max(heights, default=cell_size)


def _centred(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int]:
    left, top, right, bottom = box
    return left + (right - left - size[0]) // 2, top + (bottom - top - size[1]) // 2


def _draw_label(
    draw: ImageDraw.ImageDraw, label: str, top: int, inner: int, layout: _Layout
) -> None:
    text = _shorten(label, layout.label_font, inner)
    middle = top + layout.label_height // 2
    draw.text((layout.margin, middle), text, _INK, layout.label_font, anchor="lm")
    # A thin line from the label to the sheet's edge shows how far the row extends.
    start = layout.margin + layout.label_font.getlength(text) + layout.gap
    if start < layout.margin + inner:
        draw.line((start, middle, layout.margin + inner - 1, middle), _RULE)


def _draw_missing(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], layout: _Layout
) -> None:
    left, top, right, bottom = box
    draw.rectangle((left, top, right - 1, bottom - 1), fill=_PANEL, outline=_RULE)
    text = _shorten(_MISSING, layout.caption_font, layout.cell - 4)
    centre = ((left + right) / 2, (top + bottom) / 2)
    draw.text(centre, text, _SOFT_INK, layout.caption_font, anchor="mm")


def _shorten(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> str:
    """`text` on one line, with an ellipsis for what does not fit in `width` pixels."""
    letters = "".join(_drawable(letter) for letter in " ".join(text.split()))
    if font.getlength(letters) <= width:
        return letters
    while letters and font.getlength(letters.rstrip() + "…") > width:
        letters = letters[:-1]
    return letters.rstrip() + "…" if letters else ""


@functools.cache
def _drawable(letter: str) -> str:
    """The letter if the font has it, else its plain form, else a question mark."""
    if letter.isascii() or _has_glyph(letter):
        return letter
    if letter in "‐‑‒–—−":
        return "-"
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    if not plain and unicodedata.combining(letter):
        return ""
    return plain or "?"


def _has_glyph(letter: str) -> bool:
    font = ImageFont.load_default(size=20)
    # U+FFFF is not a character: every font draws its box for missing glyphs there.
    return bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))
