"""Images of a run: read ahead, encoded, and passed over where they cannot be used."""

import dataclasses
import json
import os
import pathlib
import threading

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.drills import bad_files
from invjax import callables, representations
from invjax.images.pixels import ImageError
from invjax.runs import loading, skipped, targets
from invjax.runs.errors import Refusal
from invjax.runs.skipped import Skipped
from tests.conftest import micro_representation
from tests.runs import made_up

PHI = micro_representation("relu1")
SIDE = PHI.image_shape[0]


def photograph(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    generator = np.random.default_rng(number)
    return Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8))


@pytest.fixture
def good(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(7):
        photograph(number).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def mixed(good: pathlib.Path) -> pathlib.Path:
    """A list of seven good images, and all that can go wrong between them."""
    lines = []
    for number, kind in enumerate(bad_files.KINDS):
        (good.parent / kind).write_bytes(bad_files.make(kind, photograph(number)))
        lines += [kind, f"good/{number}.png"] if number < 7 else [kind]
    (good.parent / "folder.png").mkdir()
    os.mkfifo(good.parent / "pipe.png")
    lines += ["folder.png", "pipe.png", "vanished.png"]
    (good.parent / "list.txt").write_text("\n".join(lines))
    return good.parent / "list.txt"


BAD = len(bad_files.KINDS) + 3


def settings(images, **values):
    return made_up.settings(images=str(images), **values)


def found_of(spec, phi=PHI, **values):
    chosen = settings(spec, **values)
    return targets.of_images(targets.list_images(chosen), phi, chosen)


def same(one, other) -> None:
    assert [t.name for t in one] == [t.name for t in other]
    for first, second in zip(one, other, strict=True):
        assert first.image_id == second.image_id
        np.testing.assert_array_equal(first.code, second.code)
        np.testing.assert_array_equal(first.original, second.original)


def test_all_ways_to_the_targets_agree(good):
    chosen = settings(good)
    listed = targets.list_images(chosen)
    whole = targets.of_images(listed, PHI, chosen)
    assert [target.name for target in whole.targets] == [*"0123456"]
    for target in whole.targets:
        assert target.original is not None
        expected = callables.encode(PHI, target.original)
        np.testing.assert_array_equal(target.code, expected)
    parts = [targets.of_images(listed[n : n + 3], PHI, chosen) for n in (0, 3, 6)]
    same([target for part in parts for target in part.targets], whole.targets)
    images = targets.load_images([PHI], chosen)
    same(targets.from_images(images, PHI, chosen).targets, whole.targets)


def test_what_cannot_be_read_is_passed_over_with_its_reason(mixed, good):
    found = found_of(f"@{mixed}")
    same(found.targets, found_of(good).targets)
    assert len(found.skipped) == BAD
    reasons = {item.image: item.reason for item in found.skipped}
    assert "pipe, socket or device" in reasons["pipe"]
    assert "is a folder" in reasons["folder"]
    assert reasons["vanished"] == "no such file"
    assert "the file is empty" in reasons["empty"]
    assert all(len(reason.splitlines()) == 1 for reason in reasons.values())
    assert str(mixed.parent / "pipe.png") in {item.source for item in found.skipped}


def test_refusing_is_to_be_asked_for(mixed):
    first = bad_files.KINDS[0]
    with pytest.raises(ImageError, match=first):
        found_of(f"@{mixed}", on_bad_image="refuse")
    with pytest.raises(ImageError, match=first):
        targets.load_images([PHI], settings(f"@{mixed}", on_bad_image="refuse"))
    assert not [t for t in threading.enumerate() if t.name.startswith("invjax-read")]


def test_a_run_with_none_left_is_refused_in_one_line(mixed):
    for names, count in [
        (["empty.jpg"], ""),
        (["truncated.jpg", "empty.jpg"], "none of 2 can be used; "),
    ]:
        spec = ",".join(str(mixed.parent / name) for name in names)
        with pytest.raises(Refusal, match=f"^--images={spec}: {count}/") as caught:
            targets.load_images([PHI], settings(spec))
        assert len(str(caught.value).splitlines()) == 1
        assert f"{names[0]}: cannot be read as an image" in str(caught.value)


def test_groups_say_what_they_leave_out(mixed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load_representation", lambda name, _: PHI)
    chosen = settings(f"@{mixed}", representations=("a", "b"))
    groups = loading.load_groups(chosen)
    assert [len(group.targets) for group in groups] == [7, 7]
    left_out = loading.unread(groups)
    assert len(left_out) == BAD
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"{BAD} of {BAD + 7} images are left out: the first is "
        f"{left_out[0].image}: {left_out[0].reason}"
    ]
    skipped.write(tmp_path / "skipped.jsonl", left_out)
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert [Skipped(**json.loads(line)) for line in lines] == left_out


def test_without_any_there_is_no_file_of_skipped(tmp_path):
    skipped.write(tmp_path / "skipped.jsonl", [])
    assert not (tmp_path / "skipped.jsonl").exists()


def test_any_name_can_be_written(tmp_path):
    odd = Skipped("a\n\udcff", "\udcff/\u2028", '"</script>')
    skipped.write(tmp_path / "skipped.jsonl", [odd, odd])
    (line,) = (tmp_path / "skipped.jsonl").read_bytes().decode("ascii").splitlines()
    assert Skipped(**json.loads(line)) == odd


def test_what_one_representation_does_not_take_is_left_out_of_it_alone(tmp_path):
    photograph(0).save(tmp_path / "large.png")
    photograph(1, (3, 3)).save(tmp_path / "small.png")
    hog = representations.representation("hog")
    found = found_of(tmp_path, hog)
    assert [target.name for target in found.targets] == ["large"]
    (item,) = found.skipped
    assert (item.image, item.representation) == ("small", "hog")
    assert item.source == str(tmp_path / "small.png")
    with pytest.raises(Refusal, match="^small: "):
        found_of(tmp_path, hog, on_bad_image="refuse")
    assert len(found_of(tmp_path, PHI).targets) == 2
    chosen = settings(tmp_path / "small.png")
    images = targets.load_images([hog], chosen)
    with pytest.raises(Refusal, match="small.png: "):
        targets.from_images(images, hog, chosen)


@pytest.mark.parametrize("num", [1, 3, 7])
def test_batches_of_codes_are_those_of_single_images(good, num, monkeypatch):
    """As on accelerators, where a call has a fixed number of images."""
    expected = found_of(good).targets[:num]
    monkeypatch.setattr(targets, "_encode_width", lambda *_: 3)
    chosen = settings(good)
    found = targets.of_images(targets.list_images(chosen)[:num], PHI, chosen).targets
    assert [t.name for t in found] == [t.name for t in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.code, other.code, rtol=1e-5, atol=1e-5)


def test_batches_have_one_program_and_on_cpu_one_image(mixed, monkeypatch):
    widths = []
    encode = callables.encode_batch

    def watched(phi, images, *, width):
        widths.append((width, len(images)))
        return encode(phi, images, width=width)

    monkeypatch.setattr(callables, "encode_batch", watched)
    found_of(f"@{mixed}")
    assert {width for width, _ in widths} == {1}
    widths.clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found_of(f"@{mixed}")
    assert widths == [(32, 7)]


def test_the_scale_of_a_small_set_is_that_of_its_group(good, mixed):
    chosen = settings(good)
    group = loading.group_of("a", PHI, found_of(good).targets, settings=chosen)
    listed = targets.list_images(chosen)
    assert targets.code_scale(listed, PHI, chosen) == group.code_scale
    chosen = settings(f"@{mixed}")
    listed = targets.list_images(chosen)
    assert targets.code_scale(listed, PHI, chosen) == group.code_scale


def test_the_scale_of_a_large_set_takes_those_that_are_drawn(good, monkeypatch):
    monkeypatch.setattr(targets.errors, "MOST_PAIRS", 6)
    chosen = settings(good)
    listed = targets.list_images(chosen)
    scales = {
        seed: targets.code_scale(listed, PHI, dataclasses.replace(chosen, seed=seed))
        for seed in (0, 1)
    }
    codes = {t.name: t.code for t in found_of(good).targets}
    order, reach = targets.errors.draw_pairs(jax.random.key(0), 7)
    assert reach == 1
    steps = [
        np.linalg.norm(codes[listed[i].name] - codes[listed[j].name])
        for i, j in zip(order[1:], order[:-1], strict=True)
    ]
    assert scales[0] == pytest.approx(np.mean(steps), rel=1e-6)
    assert scales[0] != scales[1]


def test_a_stream_reads_no_further_than_it_must(good, monkeypatch):
    taken = []

    def items():
        for source in targets.list_images(settings(good)) * 100:
            taken.append(source)
            yield source

    monkeypatch.setattr(targets, "num_readers", lambda: 2)
    stream = targets.stream(items(), PHI, settings(good))
    next(stream)
    assert len(taken) <= 7
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("invjax-read")]
