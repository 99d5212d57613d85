"""Identification among a folder's images, as columns of a run."""

import json
import pathlib

import numpy as np
import pytest

from invjax.images import pixels, reading
from invjax.metrics import identification as metric
from invjax.runs import identification, lanes, records, runner
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.identification import COLUMNS, Identifier
from tests.conftest import micro_representation
from tests.runs import made_up

NAMES = ("one", "two", "three", "four", "five")


@pytest.fixture(autouse=True)
def _a_small_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric, "JUDGES", ("judge/relu2",))
    # Of one channel mean per filter of the inverted layer: what it keeps, it judges.
    judge = micro_representation("relu1")
    monkeypatch.setattr(
        identification.representations, "representation", lambda *_, **__: judge
    )


@pytest.fixture
def group():
    return made_up.group(micro_representation("relu1"), "micro/relu1", NAMES)


def _folder(path: pathlib.Path, names: tuple[str, ...]) -> str:
    for name, image in made_up.images(NAMES).items():
        if name in names:
            reading.write_png(path / f"{name}.png", image)
    return str(path)


def _lane(group, number: int = 0):
    (lane,) = [
        lane
        for lane in lanes.plan([group], made_up.settings())
        if lane.target is group.targets[number]
    ]
    return lane


@pytest.mark.parametrize("names", [NAMES, NAMES[1:]])
def test_the_original_is_among_the_candidates_once(tmp_path, group, names):
    """In the folder or not: there are four others, or three and the original."""
    identifier = Identifier(_folder(tmp_path, names), made_up.settings())
    original = group.targets[0].original
    assert original is not None
    found = identifier.measure(_lane(group), original)
    assert found == {"identification_rank": 0, "identification_percentile": 1.0}
    other = group.targets[1].original
    found = identifier.measure(_lane(group), other)
    assert found["identification_rank"] >= 1
    assert found["identification_percentile"] <= 1 - 1 / 4


def test_images_of_the_folder_are_quantised_as_files_are(tmp_path, group):
    """The id of a candidate is that of its pixels, as the original's is."""
    identifier = Identifier(_folder(tmp_path, NAMES), made_up.settings())
    identifier.measure(_lane(group), group.targets[0].original)
    _, ids = identifier._of("judge/relu2")
    wanted = [pixels.image_id(image) for image in made_up.images(NAMES).values()]
    assert sorted(ids) == sorted(wanted)


def test_grey_pictures_and_what_has_no_rank(tmp_path, group):
    identifier = Identifier(_folder(tmp_path, NAMES), made_up.settings())
    lane = _lane(group)
    grey = np.zeros((40, 36, 1), np.float32) + np.float32(0.5)
    assert identifier.measure(lane, grey)["identification_rank"] in range(5)
    assert identifier.measure(lane, None) == dict.fromkeys(COLUMNS)
    recorded = lane._replace(target=lane.target._replace(original=None))
    assert identifier.measure(recorded, grey) == dict.fromkeys(COLUMNS)


def test_a_run_has_the_columns_and_says_how_many(tmp_path, group):
    folder = RunFolder.claim(str(tmp_path / "run"), overwrite=False)
    settings = made_up.settings(
        num_steps=200,
        tv_weight=(0.002,),
        identify_among=_folder(tmp_path / "images", NAMES),
    )
    planned = lanes.plan([group], settings)
    finished = runner.run(planned, settings, folder, weights={})
    found = [lane.record for lane in finished]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ranks = [json.loads(line)["identification_rank"] for line in lines]
    percentiles = [record.measured["identification_percentile"] for record in found]
    assert ranks.count(0) >= 4 and np.mean(percentiles) > 0.9
    (remark,) = records.remarks(found)
    assert remark == (
        f"{ranks.count(0)} of 5 lanes identified, mean percentile "
        f"{np.mean(percentiles):.2f}"
    )
    assert records.remarks([made_up.record()]) == []


def test_one_candidate_is_refused(tmp_path):
    spec = _folder(tmp_path, NAMES[:1])
    with pytest.raises(Refusal, match="--identify_among=.*one image"):
        Identifier(spec, made_up.settings())
