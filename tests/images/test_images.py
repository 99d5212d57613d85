"""Reading every kind of photograph, resizing, naming, finding and writing."""

import hashlib
import importlib.util
import os
import sys

import numpy as np
import pytest
from PIL import Image

from invjax import identity
from invjax.images import reading
from invjax.images.pixels import (
    ImageError,
    centre_crop,
    fit_short_side,
    quantise,
    stretch,
    to_grey,
)
from invjax.images.sources import ABSTRACT, SAMPLES, Source, find, load, sample

# Four corners that tell every turn and mirror image apart.
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
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_read_refuses_truncated_files(tmp_path, ending, share):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(quantise(noise(40, 30))).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert_refuses(path, "cannot be read as an image", "accepted: JPEG, PNG, WebP")


@pytest.mark.parametrize("data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_read_refuses_what_is_no_image(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    assert_refuses(tmp_path / "a.png", "not an image", "accepted: JPEG")


def test_read_refuses_absent_files_and_folders(tmp_path):
    assert_refuses(tmp_path / "none.png", "no such file")
    assert_refuses(tmp_path, "folder")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("astronaut", (512, 512, 3)),
        ("chelsea", (300, 451, 3)),
        ("coffee", (400, 600, 3)),
        ("rocket", (427, 640, 3)),
    ],
)
def test_sample_is_scikit_images(name, shape):
    skimage_data = pytest.importorskip("skimage.data")
    image = sample(name)
    assert image.shape == shape
    np.testing.assert_allclose(image, getattr(skimage_data, name)() / 255, atol=0.01)


def test_sample_refuses_unknown_names():
    with pytest.raises(ImageError, match="astronaut, chelsea, coffee, rocket"):
        sample("../chelsea")


def test_sample_without_scikit_image_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImageError) as caught:
        sample("chelsea")
    assert "pip install 'invjax[pretrained]'" in str(caught.value)


def test_quantise_clips_and_rounds():
    values = np.array([-1, 0, 0.4 / 255, 0.6 / 255, 0.5, 1, 7], np.float32)
    levels = quantise(values)
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels, [0, 0, 0, 1, 128, 255, 255])


def test_quantise_keeps_all_levels():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantise(levels / np.float32(255)), levels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_quantise_refuses_non_finite(value):
    with pytest.raises(ImageError, match="infinite or not a number"):
        quantise(np.array([0.5, value], np.float32))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("shape", "top", "left"),
    [((5, 8), 0, 1), ((8, 5), 1, 0), ((5, 9), 0, 2), ((5, 5), 0, 0)],
)
def test_centre_crop_without_scaling_is_the_window(shape, top, left, channels):
    image = noise(shape[0], shape[1], channels)
    window = image[top : top + 5, left : left + 5]
    np.testing.assert_array_equal(centre_crop(image, 5), window)


RESIZES = [
    (centre_crop, (12, 12)),
    (stretch, (12, 12)),
    (fit_short_side, (12, 20)),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("resize", "shape"), RESIZES)
def test_resizes_are_pillows_lanczos_in_8_bit(resize, shape, channels):
    image = noise(30, 50, channels)
    result = resize(image, 12)
    assert result.dtype == np.float32
    assert result.shape == (*shape, channels)
    window = image[:, 10:40] if resize is centre_crop else image
    for channel in range(channels):
        picture = Image.fromarray(np.rint(window[..., channel] * 255).astype(np.uint8))
        expected = picture.resize(shape[::-1], Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(
            np.rint(result[..., channel] * 255), np.asarray(expected)
        )
    levels = quantise(result)
    np.testing.assert_array_equal(levels / np.float32(255), result)


@pytest.mark.parametrize(("resize", "shape"), RESIZES)
def test_resizes_enlarge_and_refuse_nothing(resize, shape):
    image = np.full((3, 5, 3), 51 / 255, np.float32)
    np.testing.assert_array_equal(
        resize(image, 12), np.full((*shape, 3), np.float32(51) / np.float32(255))
    )
    with pytest.raises(ImageError, match="at least one pixel"):
        resize(image, 0)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((300, 451), 224, (224, 337)),
        ((451, 300), 224, (337, 224)),
        ((2, 3), 3, (3, 5)),
        ((7, 7), 7, (7, 7)),
    ],
)
def test_fit_short_side_rounds_the_long_side(shape, size, expected):
    assert fit_short_side(noise(shape[0], shape[1]), size).shape == (
        *expected,
        3,
    )


def test_to_grey():
    image = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]], np.float32)
    grey = to_grey(image)
    assert grey.dtype == np.float32
    np.testing.assert_allclose(
        grey, np.array([[[0.2989], [0.587], [0.114], [0.49995]]]), rtol=1e-6
    )
    np.testing.assert_array_equal(to_grey(grey), grey)


def test_image_id_is_the_head_of_the_sha256():
    image = noise(4, 6)
    pixels = np.rint(image * 255).astype(np.uint8)
    expected = int(hashlib.sha256(pixels.tobytes()).hexdigest()[:8], 16)
    assert identity.image_id(image) == expected
    assert type(identity.image_id(image)) is int
    # Memory order is not part of an image.
    assert identity.image_id(np.asfortranarray(image)) == expected
    assert identity.image_id(image[::-1]) != expected


def test_image_id_is_fixed_for_ever():
    assert identity.image_id(np.zeros((2, 2, 3), np.float32)) == 0x15EC7BF0


def test_code_id_hashes_float32_bytes():
    code = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    expected = int(hashlib.sha256(code.tobytes()).hexdigest()[:8], 16)
    assert identity.code_id(code) == expected
    assert identity.code_id(np.asfortranarray(code)) == expected
    assert identity.code_id(code.astype(np.float64)) == expected
    assert identity.code_id(code + 1) != expected


@pytest.fixture
def photos(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "a.JPG", "with,comma.png", "c [1].png", ".hidden.png"):
        Image.fromarray(blocks()).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "deeper.png").mkdir()
    Image.fromarray(blocks()).save(folder / "deeper.png" / "d.webp")
    monkeypatch.chdir(tmp_path)
    return folder


def names(spec):
    return [source.name for source in find(spec)]


def test_find_files_in_the_order_given(photos):
    assert find("photos/b.png, photos/a.JPG,sample:rocket") == [
        Source("b", os.path.join("photos", "b.png")),
        Source("a", os.path.join("photos", "a.JPG")),
        Source("rocket", "sample:rocket"),
    ]


def test_find_folders_and_globs_are_sorted(photos):
    assert names("photos") == ["a", "b", "c [1]", "with,comma"]
    assert names("photos/*.png") == ["b", "c [1]", "with,comma"]
    assert names("photos/**/*.webp") == ["d"]
    # A real name wins over its reading as a pattern.
    assert names("photos/c [1].png") == ["c [1]"]


def test_find_expands_the_home_folder(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.parent))
    assert names("~/photos/b.png") == ["b"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("photos/none.png", ["photos/none.png", "no such file"]),
        ("photos/*.gif", ["photos/*.gif", "matches no file"]),
        ("photos/with,comma.png", ["photos/with"]),
        ("photos/notes.txt", ["photos/notes.txt", "ending", ".webp"]),
        ("photos/*", ["photos/notes.txt"]),
        ("empty", ["empty", "no image files"]),
        ("sample:lena", ["sample:lena", "astronaut"]),
        ("", ["empty entry"]),
        ("photos/b.png,", ["empty entry"]),
    ],
)
def test_find_refuses(photos, spec, words):
    (photos.parent / "empty").mkdir()
    with pytest.raises(ImageError) as caught:
        find(spec)
    for word in words:
        assert word in str(caught.value)


def test_find_refuses_equal_names_and_names_both(photos):
    other = photos.parent / "other"
    other.mkdir()
    Image.fromarray(blocks()).save(other / "b.webp")
    Image.fromarray(blocks()).save(other / "coffee.webp")
    for first, second in [
        ("photos/b.png", "other/b.webp"),
        ("photos/b.png", "photos/b.png"),
        ("sample:coffee", "other/coffee.webp"),
        ("sample:coffee", "sample:coffee"),
    ]:
        with pytest.raises(ImageError, match="two images are named") as caught:
            find(f"{first},{second}")
        assert f"{first} and {second}" in str(caught.value)
    with pytest.raises(ImageError, match="two images are named"):
        find("photos,photos/b.*")


def test_find_refuses_names_that_climb_out_of_the_output(photos):
    Image.fromarray(blocks()).save(photos / "odd.png")
    for name in ("..png", "...png"):
        (photos / "odd.png").rename(photos / name)
        with pytest.raises(ImageError, match="no folder's name"):
            find(f"photos/{name}")
        (photos / name).rename(photos / "odd.png")


def test_the_abstract_sample_needs_no_file(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (source,) = find("sample:abstract")
    image = load(source)
    assert image.shape == (512, 512, 3)
    np.testing.assert_array_equal(quantise(image) / np.float32(255), image)
    assert ABSTRACT not in SAMPLES


def test_load(photos):
    sources = find("photos/b.png,sample:chelsea")
    np.testing.assert_allclose(load(sources[0]), blocks() / 255, atol=1e-7)
    pytest.importorskip("skimage")
    np.testing.assert_array_equal(load(sources[1]), sample("chelsea"))


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


def test_samples_are_found_without_importing_scikit_image(monkeypatch):
    pytest.importorskip("skimage")
    loaded = [name for name in sys.modules if name.split(".")[0] == "skimage"]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    sample("rocket")
    assert "skimage" not in sys.modules
