"""Images are read ahead in order, within bounds, and no thread is left over."""

import itertools
import pathlib
import threading
import time
import warnings
import weakref

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from invjax.images import ahead, reading, sources
from invjax.images.pixels import ImageError


def threads():
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("invjax-read")
    ]


@pytest.mark.parametrize(("num_threads", "most"), [(1, 1), (3, 2), (4, 9)])
def test_items_come_in_order_whichever_is_done_first(num_threads, most):
    def late_if_even(number):
        time.sleep(0.003 * (number % 2 == 0))
        return 10 * number

    pairs = ahead.in_order(late_if_even, range(20), num_threads=num_threads, most=most)
    assert [(n, future.result()) for n, future in pairs] == [
        (n, 10 * n) for n in range(20)
    ]
    assert not threads()


def test_no_more_than_the_bound_are_begun():
    taken, most = [], 5

    def items():
        for number in itertools.count():
            taken.append(number)
            yield number

    pairs = ahead.in_order(lambda number: number, items(), num_threads=3, most=most)
    for number, _ in itertools.islice(pairs, 30):
        # The consumer has this one, and `most - 1` wait.
        assert len(taken) == number + most
    pairs.close()


def test_an_error_belongs_to_its_item():
    def refuse_three(number):
        if number == 3:
            raise ImageError("three")
        return number

    pairs = ahead.in_order(refuse_three, range(6), num_threads=2, most=3)
    errors = {number: future.exception() for number, future in pairs}
    assert [number for number, error in errors.items() if error] == [3]
    assert str(errors[3]) == "three"


def test_an_error_of_the_items_ends_the_threads():
    def items():
        yield 1
        raise OSError("the list is gone")

    with pytest.raises(OSError, match="the list is gone"):
        list(ahead.in_order(abs, items(), num_threads=2, most=1))
    assert not threads()


@pytest.mark.parametrize("leave", ["close", "drop", "raise"])
def test_no_thread_outlives_its_consumer(leave):
    begun = []

    def slow(number):
        begun.append(number)
        time.sleep(0.01)
        return number

    pairs = ahead.in_order(slow, range(1000), num_threads=3, most=9)
    assert next(pairs)[0] == 0 and threads()
    match leave:
        case "close":
            pairs.close()
        case "drop":
            del pairs
        case _:
            with pytest.raises(KeyboardInterrupt):
                pairs.throw(KeyboardInterrupt)
    assert not threads()
    assert len(begun) <= 10


def test_a_result_is_dropped_with_its_consumer():
    """Otherwise the generator would keep an image that nobody wants any more."""
    pairs = ahead.in_order(
        lambda number: np.zeros(number), range(4), num_threads=1, most=1
    )
    dead = []
    for _, future in pairs:
        dead.append(weakref.ref(future.result()))
        del future
    assert [reference() for reference in dead[:-1]] == [None] * 3


def test_bounds_below_one_are_refused():
    with pytest.raises(ValueError, match="0 threads"):
        next(ahead.in_order(abs, [1], num_threads=0, most=1))


@pytest.fixture
def photographs(tmp_path: pathlib.Path):
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "05.png").write_bytes(b"")
    return sources.find(str(tmp_path))


def test_images_are_those_that_are_loaded_one_by_one(photographs):
    pairs = ahead.read_ahead(photographs, np.mean, num_threads=3)
    for (source, future), expected in zip(pairs, photographs, strict=True):
        assert source == expected
        if source.name == "05":
            with pytest.raises(reading.UnreadableImage, match="05.png.*empty"):
                future.result()
        else:
            assert future.result() == np.mean(sources.load(source))
    assert not threads()


def test_large_images_are_decoded_in_turn(photographs, monkeypatch):
    """Two of 600 pixels have room in 1,300, a third has not."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1300)
    now: list[int] = []
    most = []

    def use(image):
        now.append(1)
        most.append(len(now))
        time.sleep(0.005)
        now.pop()

    for _ in ahead.read_ahead(photographs, use, num_threads=6):
        pass
    assert max(most) == 2


def test_one_image_larger_than_the_room_is_decoded_alone():
    room = ahead._Room(10)
    with room.share() as claim:
        claim(50)
    with room.share() as claim:
        claim(4)
        with room.share() as second:
            second(6)


def test_warnings_of_decoders_are_nobodys_business(tmp_path):
    """Filters belong to the process, and threads would change them for all."""
    tiff = Image.new("RGB", (4, 4))
    tiff.save(tmp_path / "a.tif", tiffinfo={270: "x" * 50})
    data = bytearray((tmp_path / "a.tif").read_bytes())
    # The description says that it is longer than the file.
    at = data.index(b"\x0e\x01\x02\x00")
    data[at + 4 : at + 8] = (60_000).to_bytes(4, "little")
    for number in range(8):
        (tmp_path / f"{number}.tif").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Image.open(tmp_path / "0.tif").close()
        except UnidentifiedImageError:
            pytest.skip("this Pillow is older, and does not read such a file")
    listed = sources.find(f"{tmp_path}/?.tif")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        for _, future in ahead.read_ahead(listed, np.mean, num_threads=4):
            assert future.result() == 0
        assert warnings.filters == before and not caught
        with Image.open(tmp_path / "0.tif") as picture:
            picture.load()
        assert caught
