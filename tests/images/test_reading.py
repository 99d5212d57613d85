"""Every kind of image file is read, and PNG files are written atomically."""

import errno
import io
import os
import struct
import tracemalloc
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from PIL import Image

from experiments.drills import bad_files
from invjax.images import reading
from invjax.images.pixels import ImageError, quantise
from invjax.images.reading import UnreadableImage

# Four corners by which all rotations and reflections differ.
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CORNERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)


def blocks(corners=CORNERS, side=16):
    """The corners as flat squares, so that JPEG keeps their colours."""
    return np.repeat(np.repeat(corners, side, 0), side, 1)


def noise(height, width, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, 256, (height, width, channels), np.uint8)
    return levels.astype(np.float32) / np.float32(255)


def assert_reads(path, expected, atol=0.0):
    image = reading.read(path)
    assert image.dtype == np.float32
    assert image.shape == expected.shape
    np.testing.assert_allclose(image, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_read_lossless_colour(tmp_path, ending):
    Image.fromarray(blocks()).save(tmp_path / f"a.{ending}")
    assert_reads(tmp_path / f"a.{ending}", blocks() / 255, atol=1e-7)


def test_read_lossless_webp(tmp_path):
    Image.fromarray(blocks()).save(tmp_path / "a.webp", lossless=True)
    assert_reads(tmp_path / "a.webp", blocks() / 255, atol=1e-7)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_read_lossy_colour(tmp_path, ending):
    Image.fromarray(blocks()).save(tmp_path / f"a.{ending}", quality=95)
    image = reading.read(tmp_path / f"a.{ending}")
    assert image.shape == (32, 32, 3)
    np.testing.assert_allclose(image[8::16, 8::16], CORNERS / 255, atol=0.05)


def test_read_gif_gives_the_first_frame(tmp_path):
    frames = [Image.fromarray(blocks()), Image.fromarray(255 - blocks())]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert_reads(tmp_path / "a.gif", blocks() / 255, atol=1e-7)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_read_repeats_grey(tmp_path, ending):
    levels = blocks(np.array([[0, 51], [102, 255]], np.uint8))
    Image.fromarray(levels).save(tmp_path / f"a.{ending}", quality=100)
    expected = np.repeat(levels[:, :, None] / 255, 3, 2)
    assert_reads(tmp_path / f"a.{ending}", expected, atol=0.005)


def test_read_black_and_white(tmp_path):
    bits = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    Image.fromarray(bits).convert("1").save(tmp_path / "a.png")
    assert_reads(tmp_path / "a.png", np.repeat(bits[:, :, None] / 255, 3, 2))


def palette_picture():
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    picture.putdata([0, 1, 2])
    return picture


def test_read_palette(tmp_path):
    palette_picture().save(tmp_path / "a.png")
    expected = np.array([[[10, 20, 30], [200, 100, 50], [0, 0, 0]]]) / 255
    assert_reads(tmp_path / "a.png", expected, atol=1e-7)


def test_read_palette_with_transparency_over_white(tmp_path):
    palette_picture().save(tmp_path / "a.png", transparency=bytes([255, 51, 0]))
    half = np.array([200, 100, 50]) / 255 * 0.2 + 0.8
    expected = np.array([[np.array([10, 20, 30]) / 255, half, [1, 1, 1]]])
    assert_reads(tmp_path / "a.png", expected, atol=1e-6)


def test_read_alpha_over_white(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [0, 0, 0, 102], [9, 9, 9, 0]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.array([[[1, 0, 0], [0.6, 0.6, 0.6], [1, 1, 1]]])
    assert_reads(tmp_path / "a.png", expected, atol=1e-6)


def test_read_grey_alpha_over_white(tmp_path):
    pixels = np.array([[[255, 0], [0, 51]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.array([[[1, 1, 1], [0.8, 0.8, 0.8]]])
    assert_reads(tmp_path / "a.png", expected, atol=1e-6)


def test_read_one_transparent_colour(tmp_path):
    Image.fromarray(blocks()).save(tmp_path / "a.png", transparency=BLUE)
    expected = blocks(np.array([[RED, GREEN], [WHITE, WHITE]], np.uint8)) / 255
    assert_reads(tmp_path / "a.png", expected, atol=1e-6)


def test_read_cmyk_jpeg(tmp_path):
    picture = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 16, 32, 32))
    picture.save(tmp_path / "a.jpg", quality=100)
    image = reading.read(tmp_path / "a.jpg")
    np.testing.assert_allclose(image[8, 8], [0, 1, 1], atol=0.05)
    np.testing.assert_allclose(image[24, 8], [0, 0, 0], atol=0.05)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_read_16_bit_grey_keeps_its_depth(tmp_path, ending):
    levels = np.array([[0, 1, 256], [257, 40000, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{ending}")
    expected = np.repeat(levels[:, :, None] / 65535, 3, 2)
    assert_reads(tmp_path / f"a.{ending}", expected, atol=1e-7)


def test_read_16_bit_grey_with_a_transparent_level(tmp_path):
    levels = np.array([[100, 65535, 300]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=300)
    expected = np.array([[100 / 65535, 1, 1]])[:, :, None].repeat(3, 2)
    assert_reads(tmp_path / "a.png", expected, atol=1e-7)


def test_read_32_bit_grey_is_scaled_alike_or_refused(tmp_path):
    Image.fromarray(np.array([[0, 13107]], np.int32)).save(tmp_path / "a.tif")
    assert_reads(tmp_path / "a.tif", np.array([[[0] * 3, [0.2] * 3]]), atol=1e-7)
    Image.fromarray(np.array([[0, 65536]], np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(ImageError, match=r"b\.tif.*outside 0 to 65535"):
        reading.read(tmp_path / "b.tif")


def test_read_refuses_floating_point_pixels(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="no known range"):
        reading.read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, CORNERS),
        (3, np.rot90(CORNERS, 2)),
        (5, CORNERS.transpose(1, 0, 2)),
        (6, np.rot90(CORNERS, -1)),
        (8, np.rot90(CORNERS, 1)),
    ],
)
def test_read_applies_exif_orientation(tmp_path, orientation, turned):
    wide = np.repeat(blocks(), 2, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(wide).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    image = reading.read(tmp_path / "a.jpg")
    assert image.shape == ((32, 64, 3) if orientation in (1, 3) else (64, 32, 3))
    height, width = image.shape[:2]
    centres = image[height // 4 :: height // 2, width // 4 :: width // 2]
    np.testing.assert_allclose(centres, turned / 255, atol=0.05)


def assert_refuses(path, *words):
    with pytest.raises(ImageError) as caught:
        reading.read(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif", "gif"])
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.9])
def test_read_refuses_truncated_files(tmp_path, ending, fraction):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(quantise(noise(40, 30))).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    assert_refuses(path, "cannot be read as an image", "accepted: JPEG, PNG, WebP")


@pytest.mark.parametrize("data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_read_refuses_what_is_no_image(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    assert_refuses(tmp_path / "a.png", "not an image", "accepted: JPEG")


def test_read_refuses_what_needs_another_program(tmp_path):
    """Ghostscript, or libraries of other fields, which Pillow only knows by name."""
    Image.fromarray(blocks()).save(tmp_path / "a.eps")
    assert_refuses(tmp_path / "a.eps", "not an image")
    for data, name in [(b"\x89HDF\r\n\x1a\n", "b.h5"), (b"GRIB" + bytes(20), "c.grib")]:
        (tmp_path / name).write_bytes(data)
        assert_refuses(tmp_path / name, "not an image")
        assert os.path.splitext(name)[1] not in reading.endings()


def test_heic_without_its_plugin_says_what_to_install(tmp_path, monkeypatch):
    reading.endings()
    for name in ("HEIF", "AVIF"):
        monkeypatch.delitem(Image.OPEN, name, raising=False)
    formats = [name for name in Image.OPEN if name in ("JPEG", "PNG", "GIF")]
    monkeypatch.setattr(reading, "_readable", lambda: tuple(formats))
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    assert_refuses(tmp_path / "a.jpg", "HEIC", "pip install pillow-heif")


def test_formats_without_a_signature_go_by_their_ending(tmp_path):
    Image.fromarray(blocks()).save(tmp_path / "a.tga")
    assert_reads(tmp_path / "a.tga", blocks() / 255, atol=1e-7)
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    assert_refuses(tmp_path / "a.png", "not an image")


@pytest.mark.parametrize("levels", [255, 65535])
def test_read_portable_grey_maps(tmp_path, levels):
    pixels = np.array([[0, levels // 5, levels]], f">u{1 if levels == 255 else 2}")
    data = f"P5 3 1 {levels}\n".encode() + pixels.tobytes()
    (tmp_path / "a.pgm").write_bytes(data)
    assert_reads(tmp_path / "a.pgm", np.array([[[0] * 3, [0.2] * 3, [1] * 3]]), 1e-6)


def bomb(kind):
    """A small file that claims, or has, 40,000 x 40,000 pixels."""
    side = 40_000
    if kind == "ppm":
        return f"P6 {side} {side} 255\n".encode()
    if kind == "bmp":
        return bad_files.make("huge_header.bmp", Image.fromarray(blocks()))
    if kind == "gif":
        screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0)
        return screen + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\2\0;"
    return bad_files.bomb_png(side)


@pytest.mark.parametrize("kind", ["ppm", "bmp", "gif", "png"])
def test_read_refuses_decompression_bombs(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(bomb(kind))
    assert path.stat().st_size < 300_000
    assert_refuses(path, "more than", "pixels")


def test_an_image_just_above_the_limit_is_refused_and_no_pixel_decoded(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    claimed: list[int] = []
    with reading.quietly():
        with pytest.raises(UnreadableImage, match="more than 99 pixels"):
            reading.decode_file(tmp_path / "a.png", claim=claimed.append)
    Image.new("RGB", (11, 9)).save(tmp_path / "b.png")
    image = reading.decode_file(tmp_path / "b.png", claim=claimed.append)
    assert image.shape == (9, 11, 3)
    assert claimed == [99]


def test_a_file_of_many_frames_costs_one(tmp_path):
    """2,000 frames of 1,000 x 1,000 pixels would be 6 GB."""
    frame = Image.new("P", (1000, 1000))
    frame.putpalette([9, 9, 9, 8, 8, 8])
    stream = io.BytesIO()
    frame.save(stream, "GIF", optimize=False)
    data = stream.getvalue()
    first = data.index(b",")
    (tmp_path / "a.gif").write_bytes(data[:-1] + 1999 * data[first:-1] + b";")
    tracemalloc.start()
    assert reading.read(tmp_path / "a.gif").shape == (1000, 1000, 3)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (b"iCCP", b"x\0\0" + zlib.compress(bytes(200_000_000), 9)),
        (b"zTXt", b"x\0\0" + zlib.compress(bytes(200_000_000), 9)),
        (b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(200_000_000), 9)),
        (b"eXIf", b"MM\0*" + bytes(1_000_000)),
        (b"tEXt", b"x\0" + bytes(1_000_000)),
    ],
    ids=["profile", "text", "more text", "exif", "plain text"],
)
def test_chunks_beside_the_pixels_are_bounded(tmp_path, name, data):
    plain = bad_files.saved(Image.fromarray(blocks()), "PNG")
    chunk = bad_files.png_chunk(name, data)
    (tmp_path / "a.png").write_bytes(plain[:33] + chunk + plain[33:])
    tracemalloc.start()
    assert_image_or_one_line(tmp_path / "a.png")
    # zlib's own buffers are not traced; what it returns is.
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.write(bad_files.saved(Image.fromarray(blocks()), "PNG"))
        file.truncate(reading.MOST_BYTES + 1)
    assert_refuses(tmp_path / "a.png", "1 GiB; up to 1 GiB are read")


@pytest.mark.parametrize("kind", bad_files.KINDS)
def test_read_refuses_every_kind_of_bad_file_with_a_reason(tmp_path, kind):
    picture = Image.fromarray(quantise(noise(40, 30)))
    (tmp_path / kind).write_bytes(bad_files.make(kind, picture))
    with pytest.raises(UnreadableImage) as caught:
        reading.read(tmp_path / kind)
    assert caught.value.reason.startswith("cannot be read as an image (")
    assert str(tmp_path) not in caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    "mode",
    ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "LA", "PA", "I"],
)
def test_every_mode_is_read_as_its_colours(tmp_path, mode, kind):
    """One flat colour in each mode, as Pillow itself has it in RGB."""
    dark = Image.new("RGB", (4, 3), (51, 51, 51))
    match mode:
        case "LAB":
            picture = Image.new("LAB", (4, 3), (53, 128, 128))
        case "I;16":
            picture = Image.fromarray(np.full((3, 4), 51 * 257, np.uint16))
        case "I":
            picture = Image.fromarray(np.full((3, 4), 51 * 257, np.int32))
        case "PA":
            picture = dark.convert("RGBA").convert("PA")
        case "1":
            picture, dark = Image.new("1", (4, 3), 1), Image.new("RGB", (4, 3), "white")
        case _:
            picture = dark.convert(mode)
    try:
        picture.save(tmp_path / "a", kind, lossless=True)
    except (OSError, ValueError, KeyError):
        pytest.skip(f"Pillow does not write {mode} as {kind}")
    with Image.open(tmp_path / "a") as written:
        try:
            written.load()
        except OSError:
            pytest.skip(f"Pillow does not read the {kind} in {mode} that it wrote")
        if mode in ("I;16", "I") and written.mode == "RGB":
            pytest.skip("Pillow has clipped what it wrote")
    expected = np.broadcast_to(np.asarray(dark)[:, :, :3] / 255, (3, 4, 3))
    assert_reads(tmp_path / "a", expected, atol=0.01)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_read_refuses_pipes_and_devices_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "link.png", "zero.png"):
        assert_refuses(tmp_path / name, "is a pipe, socket or device")


def test_read_refuses_what_may_not_be_read(tmp_path, monkeypatch):
    """Administrators may read everything, so the refusal is made up."""

    def refuse(path, flags):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    Image.fromarray(blocks()).save(tmp_path / "a.png")
    monkeypatch.setattr(os, "open", refuse)
    assert_refuses(tmp_path / "a.png", "may not be read (permission denied)")


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    assert_refuses(tmp_path / "a.png", "symbolic links")


WRITTEN = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "AVIF")


def valid_files():
    """Small files of every kind that this Pillow writes."""
    assert reading.endings(), "which also registers the plugin of HEIC, if it is there"
    files = []
    for kind in (
        *WRITTEN,
        "JPEG2000",
        "PCX",
        "SGI",
        "DDS",
        "QOI",
        "XBM",
        "MSP",
        "HEIF",
    ):
        for mode in ("RGB", "P", "1"):
            stream = io.BytesIO()
            try:
                Image.fromarray(blocks(side=5)).convert(mode).save(stream, kind)
            except (KeyError, OSError, ValueError, AttributeError):
                continue
            files.append(stream.getvalue())
    return files


VALID = valid_files()
ENDINGS = strategies.sampled_from(
    ["", ".png", ".jpg", ".tga", ".pcd", ".iim", ".im", ".ico", ".tif", ".txt"]
)
FUZZ = hypothesis.settings(max_examples=250, derandomize=True, deadline=None)


@strategies.composite
def damaged(draw):
    """A valid file with some bytes changed, or cut off, or something put in."""
    data = bytearray(draw(strategies.sampled_from(VALID)))
    for _ in range(draw(strategies.integers(1, 4))):
        # Headers come first, and are where damage is worst.
        at = draw(strategies.integers(0, min(len(data) - 1, 200)))
        match draw(strategies.integers(0, 2)):
            case 0:
                data[at] = draw(strategies.integers(0, 255))
            case 1:
                data[at:at] = draw(strategies.binary(max_size=9))
            case _:
                del data[at : at + draw(strategies.integers(1, 40))]
        data = data or bytearray(b"\0")
    return bytes(data)


def assert_image_or_one_line(path):
    try:
        image = reading.read(path)
    except ImageError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert image.dtype == np.float32 and image.shape[2] == 3
        assert np.all((image >= 0) & (image <= 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@FUZZ
@hypothesis.given(strategies.binary(max_size=300), ENDINGS)
def test_any_bytes_are_an_image_or_refused_in_one_line(folder, data, ending):
    path = folder / f"any{ending}"
    path.write_bytes(data)
    assert_image_or_one_line(path)


@FUZZ
@hypothesis.given(damaged(), ENDINGS)
def test_damaged_files_are_an_image_or_refused_in_one_line(folder, data, ending):
    assert len(VALID) > 15
    path = folder / f"damaged{ending}"
    path.write_bytes(data)
    assert_image_or_one_line(path)


def test_read_refuses_absent_files_and_folders(tmp_path):
    assert_refuses(tmp_path / "none.png", "no such file")
    assert_refuses(tmp_path, "folder")


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_write_png(tmp_path, channels, mode):
    image = noise(5, 7, channels)
    image[0, 0], image[0, 1] = -3, 3
    path = tmp_path / "new" / "a.png"
    reading.write_png(path, image)
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", mode)
        pixels = np.asarray(picture).reshape(image.shape)
    np.testing.assert_array_equal(pixels, np.rint(np.clip(image, 0, 1) * 255))


def test_write_png_leaves_the_old_file_when_it_refuses(tmp_path):
    reading.write_png(tmp_path / "a.png", noise(2, 2))
    before = (tmp_path / "a.png").read_bytes()
    for bad in (np.full((2, 2, 3), np.nan, np.float32), noise(2, 2, 2)):
        with pytest.raises(ImageError):
            reading.write_png(tmp_path / "a.png", bad)
    assert (tmp_path / "a.png").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]
