"""The study of recognition: presets side by side, judged by other networks."""

import csv
import pathlib
from collections.abc import Iterator

import pytest
from absl.testing import flagsaver

from experiments import recognition
from invjax.inversion import presets
from invjax.metrics import identification as metric
from invjax.representations.paper import SHALLOW
from invjax.runs import identification, loading
from invjax.runs.errors import Refusal
from tests.conftest import micro_representation


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two small judges, no LPIPS, and a short descent."""
    judge = micro_representation("relu1")
    monkeypatch.setattr(metric, "JUDGES", ("one/relu1", "other/relu1"))
    monkeypatch.setattr(
        identification.representations, "representation", lambda *_, **__: judge
    )
    monkeypatch.setattr(loading, "load_lpips", lambda groups, settings: None)
    with flagsaver.flagsaver(
        representations=["hogb"], num_steps=3, image_size=32, presets=["fast", "adam"]
    ):
        yield


def _table(folder: pathlib.Path) -> list[dict[str, str]]:
    with open(folder / "table.csv") as stream:
        return list(csv.DictReader(stream))


def test_a_row_for_each_preset_and_judge(tmp_path, photographs):
    folder = tmp_path / "run"
    with flagsaver.flagsaver(workdir=str(folder), images=str(photographs)):
        recognition.main()
    rows = _table(folder)
    assert [(row["preset"], row["judge"]) for row in rows] == [
        (preset, judge)
        for preset in ("fast", "adam")
        for judge in ("one/relu1", "other/relu1")
    ]
    for row in rows:
        assert row["steps"] == "3"
        for column in ("identified %", "percentile", "relative error %"):
            value, low, high = (
                float(part) for part in row[column].translate(_NO_BRACKETS).split()
            )
            assert low <= value <= high
    # Two centred reconstructions are opposite: both are identified, or neither.
    assert rows[0]["identified %"].split()[0] in ("0", "100")
    for preset in ("fast", "adam"):
        assert (folder / "reconstructions" / preset / "one/hogb/start_000.png").exists()
    assert (folder / "figure.png").exists()


_NO_BRACKETS = str.maketrans("[],", "   ")


def test_one_photograph_is_ranked_but_not_centred(tmp_path, photographs):
    folder = tmp_path / "run"
    with flagsaver.flagsaver(
        workdir=str(folder),
        images=str(photographs / "one.png"),
        identify_among=str(photographs),
    ):
        recognition.main()
    for row in _table(folder):
        assert row["identified %"] == "–"
        assert row["plainly identified %"] in ("0", "100")


@pytest.mark.parametrize("names", [["fast", "quick"], ["fast", "fast"], []])
def test_presets_that_do_not_exist_or_repeat(tmp_path, photographs, names):
    with (
        flagsaver.flagsaver(
            workdir=str(tmp_path / "run"), images=str(photographs), presets=names
        ),
        pytest.raises(Refusal, match="--presets="),
    ):
        recognition.main()
    assert not (tmp_path / "run").exists()


def test_shallow_codes_have_no_views_under_natural():
    found = presets.find("natural", phi=SHALLOW["hogb"])
    assert found.views is None and found.solver == presets.PRESETS["natural"].solver
    assert presets.tv_weight(SHALLOW["hogb"], preset="natural") == 0.5
