"""Images are found by file, glob, folder and sample name."""

import importlib.util
import os
import sys

import numpy as np
import pytest
from PIL import Image

from invjax.images.pixels import ImageError, quantise
from invjax.images.sources import ABSTRACT, SAMPLES, ImageSource, find, load, sample

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)


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
    assert "pip install scikit-image" in str(caught.value)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "a.JPG", "with,comma.png", "c [1].png", ".hidden.png"):
        Image.fromarray(PICTURE).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "deeper.png").mkdir()
    Image.fromarray(PICTURE).save(folder / "deeper.png" / "d.webp")
    monkeypatch.chdir(tmp_path)
    return folder


def names(spec):
    return [source.name for source in find(spec)]


def test_find_files_in_the_order_given(photos):
    assert find("photos/b.png, photos/a.JPG,sample:rocket") == [
        ImageSource("b", os.path.join("photos", "b.png")),
        ImageSource("a", os.path.join("photos", "a.JPG")),
        ImageSource("rocket", "sample:rocket"),
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
    Image.fromarray(PICTURE).save(other / "b.webp")
    Image.fromarray(PICTURE).save(other / "coffee.webp")
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
    Image.fromarray(PICTURE).save(photos / "odd.png")
    for name in ("..png", "...png"):
        (photos / "odd.png").rename(photos / name)
        with pytest.raises(ImageError, match="cannot name a folder"):
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
    np.testing.assert_allclose(load(sources[0]), PICTURE / 255, atol=1e-7)
    pytest.importorskip("skimage")
    np.testing.assert_array_equal(load(sources[1]), sample("chelsea"))


def test_samples_are_found_without_importing_scikit_image(monkeypatch):
    pytest.importorskip("skimage")
    loaded = [name for name in sys.modules if name.split(".")[0] == "skimage"]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    sample("rocket")
    assert "skimage" not in sys.modules
