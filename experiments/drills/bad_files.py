"""Files that look like images and cannot be read, of every kind that sets have.

Each is small, whatever it claims to hold.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

KINDS = (
    "truncated.jpg",
    "truncated.png",
    "empty.jpg",
    "text.jpg",
    "bomb.png",
    "huge_header.bmp",
    "float.tif",
    "deep.tif",
    "damaged.png",
    "page.png",
)
"""Kinds of files, with the endings that they have."""

_SIDE_OF_A_BOMB = 40_000


def make(kind: str, picture: Image.Image) -> bytes:
    """Returns the contents of a file that cannot be read as an image.

    Args:
      kind: One of `KINDS`.
      picture: What a truncated or damaged file was before, in RGB.

    Raises:
      KeyError: The kind is unknown.

    Examples:
      >>> make("empty.jpg", Image.new("RGB", (4, 4)))
      b''
    """
    match kind:
        case "truncated.jpg":
            data = saved(picture, "JPEG")
            return data[: len(data) // 2]
        case "truncated.png":
            data = saved(picture, "PNG")
            return data[: len(data) // 2]
        case "damaged.png":
            data = saved(picture, "PNG")
            # Where the compressed pixels begin; damage further on may go unnoticed.
            at = data.index(b"IDAT") + 4
            return data[:at] + b"\xff" * 4 + data[at + 4 :]
        case "empty.jpg":
            return b""
        case "text.jpg":
            return b"This file is text, although its name ends in .jpg.\n"
        case "page.png":
            return b"<!doctype html><title>404</title><p>No such picture.</p>\n"
        case "bomb.png":
            return bomb_png()
        case "huge_header.bmp":
            side = _SIDE_OF_A_BOMB
            head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
            return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head
        case "float.tif":
            fractions = np.asarray(picture.convert("L"), np.float32)
            return saved(Image.fromarray(fractions), "TIFF")
        case "deep.tif":
            levels = np.asarray(picture.convert("L"), np.int32) * 10_000
            return saved(Image.fromarray(levels), "TIFF")
    raise KeyError(kind)


def saved(picture: Image.Image, kind: str) -> bytes:
    """The contents of a file of a picture, in one of Pillow's formats."""
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def bomb_png(side: int = _SIDE_OF_A_BOMB) -> bytes:
    """A PNG of a few kilobytes with side^2 black and white pixels."""
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    chunks = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its length and check sum."""
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check
