"""Mean and deviation over starts, read back from the files."""

import numpy as np
import pytest

from invjax.images import reading
from invjax.metrics import diversity
from invjax.report import contrast, over_starts

EIGHT_BIT = 0.5 / 255 + 1e-6


def _pictures(folder, shapes):
    generator = np.random.default_rng(0)
    paths = []
    for number, shape in enumerate(shapes):
        # Around grey, so that few deviations are beyond white.
        picture = (0.5 + 0.08 * generator.normal(size=shape)).astype(np.float32)
        paths.append(f"r/start_{number:03d}.png")
        reading.write_png(folder / paths[-1], picture)
    return paths


@pytest.mark.parametrize("channels", [1, 3])
def test_they_are_those_of_the_pictures(tmp_path, channels):
    paths = _pictures(tmp_path, [(6, 9, channels)] * 4)
    found = over_starts.write(tmp_path, "cat/alexnet_relu1", paths)
    assert found == over_starts.OverStarts(
        4,
        "over_starts/cat/alexnet_relu1_mean.png",
        "over_starts/cat/alexnet_relu1_mean.jpg",
        "over_starts/cat/alexnet_relu1_deviation.png",
    )
    samples = np.stack([reading.read(tmp_path / path) for path in paths])
    mean, deviation = map(np.asarray, diversity.maps(samples))
    shown = reading.read(tmp_path / found.mean)
    np.testing.assert_allclose(shown, mean, atol=EIGHT_BIT)
    shown = reading.read(tmp_path / found.deviation)
    white = np.clip(deviation / contrast.WHITE_DEVIATION, 0, 1)
    assert 0.1 < white.mean() < 0.9
    np.testing.assert_allclose(shown, white, atol=EIGHT_BIT)
    stretched = reading.read(tmp_path / found.stretched)
    assert stretched.min() < 0.1 and stretched.max() > 0.9


def test_equal_pictures_have_no_deviation(tmp_path):
    reading.write_png(tmp_path / "a.png", np.full((4, 4, 3), 0.3, np.float32))
    found = over_starts.write(tmp_path, "cat", ["a.png"] * 7)
    assert found is not None
    assert reading.read(tmp_path / found.deviation).max() == 0


def test_names_are_portable_and_stay_in_the_folder(tmp_path):
    paths = _pictures(tmp_path, [(4, 4, 3)] * 2)
    found = over_starts.write(tmp_path, "../a: b/c", paths)
    assert found is not None
    assert found.mean == "over_starts/__/a_ b/c_mean.png"
    assert (tmp_path / found.mean).is_file()


@pytest.mark.parametrize("case", ["one", "none", "sizes", "absent", "damaged"])
def test_where_there_is_none_nothing_is_written(tmp_path, case):
    shapes = {"one": [(4, 4, 3)], "none": [], "sizes": [(4, 4, 3), (4, 5, 3)]}
    paths = _pictures(tmp_path, shapes.get(case, [(4, 4, 3)] * 2))
    if case == "absent":
        paths.append("r/absent.png")
    if case == "damaged":
        (tmp_path / paths[1]).write_bytes(b"no picture")
    assert over_starts.write(tmp_path, "cat", paths) is None
    assert not (tmp_path / "over_starts").exists()
