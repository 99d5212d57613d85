"""Images are found by file, glob, folder and sample name."""

import importlib.util
import os
import sys

import numpy as np
import PIL
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
    with pytest.raises(ImageError, match="~nobody-here/b.png: no such file"):
        find("~nobody-here/b.png")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("photos/none.png", ["photos/none.png", "no such file"]),
        ("photos/*.gif", ["photos/*.gif", "matches no file"]),
        ("photos/with,comma.png", ["photos/with"]),
        ("photos/notes.txt", ["photos/notes.txt", "ending", ".webp"]),
        ("photos/*", ["photos/notes.mov"]),
        ("empty", ["empty", "no image files"]),
        ("sample:lena", ["sample:lena", "astronaut"]),
        ("", ["empty entry"]),
        ("photos/b.png,", ["empty entry"]),
        ("photos/notes.txt,photos", ["photos/notes.txt", "ending"]),
        ("photos/notes.mov", ["photos/notes.mov", "ending"]),
        ("photos/*.txt", ["photos/notes.txt", "ending"]),
        ("photos/b.png\0", ["not the name of a file"]),
        ("x" * 5000, ["name too long"]),
    ],
)
def test_find_refuses(photos, spec, words):
    (photos.parent / "empty").mkdir()
    (photos / "notes.mov").touch()
    with pytest.raises(ImageError) as caught:
        find(spec)
    for word in words:
        assert word.lower() in str(caught.value).lower()


def save(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURE).save(folder / path)


def test_find_refuses_an_image_that_is_listed_twice(photos):
    for first, second in [
        ("photos/b.png", "photos/b.png"),
        ("photos/b.png", "photos/../photos/b.png"),
        ("sample:coffee", "sample:coffee"),
        ("photos", "photos/b.*"),
    ]:
        with pytest.raises(ImageError, match="listed twice"):
            find(f"{first},{second}")


@pytest.mark.parametrize(
    ("paths", "spec", "expected"),
    [
        # Class folders: the path below the folder that they share.
        (
            ["set/cats/1.jpg", "set/cats/2.jpg", "set/dogs/1.jpg"],
            "set/**/*.jpg",
            ["cats/1", "2", "dogs/1"],
        ),
        (
            ["x/train/cat/1.png", "x/test/cat/1.png", "x/1.png"],
            "x,x/*/*/1.png",
            ["1", "test/cat/1", "train/cat/1"],
        ),
        # Equal but for the ending, or for upper and lower case.
        (["p/one.jpg", "p/one.png", "p/two.png"], "p", ["one.jpg", "one.png", "two"]),
        (["p/Dog.png", "p/dog.png"], "p", ["Dog.png", "dog.png_2"]),
        (["p/Dog.png", "p/dog.bmp"], "p", ["Dog.png", "dog.bmp"]),
        (["A/x.png", "a/x.png"], "A/*,a/*", ["A/x.png", "a/x.png_2"]),
        # Letters that some file systems compose and others decompose.
        (["p/e\u0301.png", "p/\u00e9.bmp"], "p", ["e\u0301.png", "\u00e9.bmp"]),
        # The last is the stem of a name that an ending would have told apart.
        (
            ["p/one.jpg", "p/one.png", "p/one.jpg.png"],
            "p",
            ["one.jpg_2", "one.jpg", "one.png"],
        ),
        # A sample has no path.
        (["p/coffee.png", "p/a.png"], "sample:coffee,p", ["coffee", "a", "coffee.png"]),
        # originals/a.png is a file.
        (["a.PNG/1.png", "b/1.png", "b/a.png"], "a.PNG,b", ["a_png/1", "b/1", "a"]),
    ],
)
def test_names_tell_images_apart_on_every_file_system(
    tmp_path, monkeypatch, paths, spec, expected
):
    monkeypatch.chdir(tmp_path)
    save(tmp_path, *paths)
    found = find(spec)
    assert [source.name for source in found] == expected
    folded = {source.name.casefold() for source in found}
    assert len(folded) == len(found) == len({source.origin for source in found})


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ('what?"is*.png', "what__is_"),
        ("two\nlines.png", "two_lines"),
        ("C:\\me.png", "C__me"),
        ("aux.png", "_aux"),
        ("end. .png", "end__"),
        ("\udcff.png", "_"),
        ("Bildschirm\u202ffoto.png", "Bildschirm\u202ffoto"),
    ],
)
def test_names_are_those_of_portable_folders(tmp_path, file, name):
    save(tmp_path, file)
    assert [source.name for source in find(str(tmp_path))] == [name]


def test_names_made_portable_stay_different(tmp_path):
    save(tmp_path, "a?.png", "a*.png")
    assert sorted(s.name for s in find(str(tmp_path))) == ["a_.png", "a_.png_2"]


@pytest.mark.parametrize(
    "ending", [".jfif", ".ppm", ".pgm", ".avif", ".jp2", ".tga", ".ICO", ".apng"]
)
def test_a_folder_has_what_pillow_reads(tmp_path, ending):
    is_old = tuple(map(int, PIL.__version__.split(".")[:2])) < (11, 3)
    if is_old and ending in (".avif", ".ICO"):
        pytest.skip("Pillow before 11.3 does not read it, or not what it wrote itself")
    picture = Image.fromarray(PICTURE)
    if ending == ".pgm":
        picture = picture.convert("L")
    try:
        picture.save(tmp_path / f"one{ending}")
    except (KeyError, OSError, ValueError):
        pytest.skip(f"this Pillow cannot write {ending}")
    (source,) = find(str(tmp_path))
    assert source.name == "one" and load(source).shape[2] == 3


def test_heic_is_read_where_its_plugin_is_installed(tmp_path):
    plugin = pytest.importorskip("pillow_heif")
    plugin.register_heif_opener()
    for ending in ("heic", "heif"):
        Image.fromarray(PICTURE).resize((64, 64)).save(tmp_path / f"{ending}.{ending}")
    # A telephone's file that somebody renamed.
    (tmp_path / "heic.heic").rename(tmp_path / "renamed.jpg")
    assert [load(source).shape for source in find(str(tmp_path))] == [(64, 64, 3)] * 2


@pytest.mark.parametrize(
    ("others", "line"),
    [
        (["a.txt", "b.TXT", "c.mov"], "3 files are not images and were left out (.txt"),
        (["clip.mp4"], "1 file is not an image and was left out (.mp4 1)"),
        (["README", "x.pdf"], "2 files are not images and were left out (.pdf 1, no e"),
        ([f"a.{letter}" for letter in "bcdefghi"], "(.b 1, .c 1, .d 1, .e 1, .f 1, .g"),
        ([".DS_Store", ".hidden.mov", "folder.mov/x.mov"], None),
        ([], None),
    ],
)
def test_files_that_are_left_out_of_a_folder_are_told(tmp_path, others, line):
    save(tmp_path, "one.png")
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    told: list[str] = []
    assert [source.name for source in find(str(tmp_path), tell=told.append)] == ["one"]
    assert len(told) == (line is not None)
    if line:
        assert told[0].startswith(f"{tmp_path}: ") and line in told[0]
    assert [source.name for source in find(str(tmp_path))] == ["one"]


def test_kinds_that_are_left_out_come_by_number(tmp_path):
    save(tmp_path, "one.png")
    for name in ("a.mov", "b.txt", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    told: list[str] = []
    find(str(tmp_path), tell=told.append)
    assert told == [
        f"{tmp_path}: 4 files are not images and were left out (.txt 2, .mov 1, broken "
        "link 1)"
    ]


def test_a_folder_without_images_is_refused_with_what_it_has(tmp_path):
    for name in ("a.mov", "b.mov", "c.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ImageError, match=r"there are \.mov 2, \.txt 1\)"):
        find(str(tmp_path))
    save(tmp_path, "cats/one.png")
    with pytest.raises(ImageError, match=r"give a pattern, .*/\*\*/\*\.jpg"):
        find(str(tmp_path))


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
