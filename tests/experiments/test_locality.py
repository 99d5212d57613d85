"""Patches of codes: their fields, what is measured, what is drawn."""

import pathlib
from typing import Any

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import locality as study
from invjax.images import pixels, reading
from invjax.metrics import locality
from invjax.networks.receptive_fields import ReceptiveField, Window
from invjax.report import contrast
from invjax.report.contact_sheet import Cell
from invjax.runs.errors import Refusal
from tests.experiments import inputs, outputs
from tests.experiments.inputs import needs_weights
from tests.runs import made_up

pytestmark = pytest.mark.slow


@needs_weights
def test_the_table_is_of_the_lanes(tmp_path: pathlib.Path):
    inputs.write_photographs(tmp_path / "mine")
    workdir = tmp_path / "run"
    with flagsaver.flagsaver(
        workdir=str(workdir),
        images=str(tmp_path / "mine"),
        representations=["alexnet/conv1", "alexnet/pool1"],
        num_steps=12,
        save_arrays=True,
    ):
        study.main()
    records = outputs.records(workdir)
    assert len(records) == 2 * 2 * 2
    rows = outputs.table(workdir)
    # Five places with fields of 11 and 19 and strides of 4 and 8: CVPR 2015, Table 2.
    assert [row["field"] for row in rows] == ["27", "51"]
    for row in rows:
        name = row["representation"]
        mine = [record for record in records if record["representation"] == name]
        assert row["lambda_V"] == "50" and row["left out"] == "0"
        assert row["in the image"] == row["field"]
        assert row["relative error %"] == outputs.mean(mine, "relative_error", 100, 1)
        # Of 55 and 27 places; the sides are even for neither.
        centre = (111.0, 111.0)
        field = int(row["field"])
        effective, recovered = [], []
        for image in ("one", "two"):
            original = reading.read(tmp_path / "mine" / f"{image}.png")
            original = pixels.centre_crop(original, 224)
            folder = workdir / "arrays" / image / name.replace("/", "_")
            found = np.stack(
                [np.load(path)["image"] for path in sorted(folder.iterdir())]
            )
            assert len(found) == 2
            effective.append(_effective(found, original, field))
            maps = locality.unexplained(found, original)
            recovered.append(locality.extent(maps, centre).side)
            for start, record in enumerate(r for r in mine if r["image"] == image):
                assert record["field_side"] == field
                alone = found[start : start + 1]
                side = _effective(alone, original, field)
                assert record["effective_side"] == pytest.approx(side, abs=0.5)
                maps = locality.unexplained(alone, original)
                side = float(locality.extent(maps, centre).side)
                assert record["recovered_side"] == pytest.approx(side, abs=0.5)
        expected = f"{np.mean(effective):.1f} ± {np.std(effective):.1f}"
        assert row["effective side"] == expected
        ratios = np.array(effective) / field
        expected = f"{ratios.mean():.2f} ± {ratios.std():.2f}"
        assert row["effective / in the image"] == expected
        expected = f"{np.mean(recovered):.1f} ± {np.std(recovered):.1f}"
        assert row["recovered side"] == expected
        # Twelve steps bring the masked part of the code near, and not the rest.
        for record in mine:
            assert record["relative_error"] < 0.8 and record["normalised_error"] is None
    assert (workdir / "figure.png").stat().st_size > 10_000


def test_a_network_stands_for_its_layers_with_places():
    settings = made_up.settings(representations=("alexnet", "vgg16/fc6"))
    names = study.configure(settings).representations
    assert names[0] == "alexnet/conv1" and names[-2:] == ("alexnet/pool5", "vgg16/fc6")
    assert len(names) == 14


@needs_weights
@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"representations": ["hog"]}, "hog"),
        ({"code": "x.npy"}, "--code"),
    ],
)
def test_what_has_no_patch_is_refused(tmp_path: pathlib.Path, values, word: str):
    if "code" not in values:
        inputs.write_photographs(tmp_path / "mine")
        values["images"] = str(tmp_path / "mine")
    with flagsaver.flagsaver(workdir=str(tmp_path / "run"), **values):
        with pytest.raises(Refusal, match=word):
            study.main()
    assert not (tmp_path / "run").exists()


def test_a_box_lies_inside_its_window():
    image = np.zeros((9, 9, 3), np.float32)
    framed = study.outlined(image, Window(1, 0, 6, 8), (1.0, 0.5, 0.0))
    inside = framed[..., 0] == 1
    assert inside.sum() == 6 * 9 - 2 * 5
    assert not inside[3:5, 2:7].any() and not inside[0].any() and inside[1].all()


def test_frames_are_drawn_on_what_is_stretched():
    ramp = np.linspace(0.4, 0.5, 9 * 9 * 3, dtype=np.float32).reshape(9, 9, 3)
    whole = Window(0, 0, 8, 8)
    field = ReceptiveField(full=whole, inside=whole)
    no_lane: Any = None
    patch = study.Patch(no_lane, [], field, study.Sides(5.0, 5.0), ramp)
    cell = study.framed(patch, "relu1")
    # Two pixels of red, and within the green square one pixel that is left.
    assert cell.stretched is not None
    for picture, ground in (
        (cell.picture, ramp),
        (cell.stretched(), contrast.stretched(ramp)),
    ):
        assert picture is not None
        np.testing.assert_array_equal(
            picture[0, :], np.array([[0.9, 0.1, 0.1]] * 9, np.float32)
        )
        np.testing.assert_array_equal(picture[4, 4], ground[4, 4])
    assert study.framed(patch._replace(picture=None), "a") == Cell(None, "a")


def _effective(found: np.ndarray, original: np.ndarray, field: int) -> float:
    """Side of the square as large as what has over half the middle's detail."""
    maps = np.asarray(locality.detail(found, original))
    low, high = 111 - field // 4, 111 + field // 4
    middle = maps[low : high + 1, low : high + 1].mean()
    return float(np.sqrt(np.sum(maps > 0.5 * middle)))


def test_detail_of_a_known_square_is_measured():
    generator = np.random.default_rng(0)
    original, other = generator.uniform(size=(2, 96, 96, 3)).astype(np.float32)
    window = Window(28, 28, 67, 67)
    flat = np.full_like(other, 0.5)
    flat[28:68, 28:68] = 0.35 + 0.3 * other[28:68, 28:68]
    field = ReceptiveField(Window(8, 8, 87, 87), Window(8, 8, 87, 87))
    sides, _ = study.measured(flat[None], original, field)
    assert sides.effective == pytest.approx(window.height, abs=2)
    assert sides.recovered == 0
