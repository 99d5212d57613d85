"""The sweep over exponents, weights and jitter: its grid, its table, its lambdas."""

import pathlib

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import regulariser_sweep
from invjax.inversion.objective import SIGMA
from invjax.metrics import naturalness
from invjax.representations import paper
from invjax.runs import loading
from invjax.runs.errors import Refusal
from tests import conftest
from tests.experiments import inputs, outputs

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _micro(monkeypatch: pytest.MonkeyPatch) -> None:
    """Representations micro/LAYER."""

    def load(name, settings):
        return conftest.micro_representation(name.partition("/")[2])

    monkeypatch.setattr(loading, "load_representation", load)


def test_the_table_is_of_the_lanes(tmp_path: pathlib.Path):
    inputs.write_photographs(tmp_path / "mine")
    workdir = tmp_path / "run"
    with flagsaver.flagsaver(
        workdir=str(workdir),
        images=str(tmp_path / "mine"),
        representations=["micro/pool1"],
        tv_weight=["0.5", "50"],
        preset="adam",
        num_steps=5,
        save_arrays=True,
    ):
        regulariser_sweep.main()
    records = outputs.records(workdir)
    # pool1 has a stride of 4, which IJCV 2016 gives no jitter.
    assert len(records) == 2 * 2 * 2
    for record in records:
        assert (record["status"], record["jitter"]) == ("budget", 1)
        unit = SIGMA ** (record["beta"] - 2)
        assert record["tv_weight"] == pytest.approx(unit * record["lambda_V"], rel=1e-5)
        terms = record["data_term"] + record["alpha_term"] + record["tv_term"]
        assert terms == pytest.approx(record["energy"], rel=1e-4)
        (path,) = (workdir / "arrays" / record["image"]).glob(
            f"{record['representation'].replace('/', '_')}/start_000_tv_"
            f"{record['lambda_V']:g}_{record['variant']}.npz"
        )
        image = np.load(path)["image"]
        x = (255 * image) / SIGMA
        squared = np.diff(x, axis=1, append=x[:, -1:]) ** 2
        squared = squared + np.diff(x, axis=0, append=x[-1:]) ** 2
        variation = np.sum(squared ** (record["beta"] / 2))
        expected = record["tv_weight"] * variation
        assert record["tv_term"] == pytest.approx(expected, rel=1e-3)
        length = SIGMA * np.mean(np.sqrt(squared))
        assert record["mean_gradient"] == pytest.approx(length, rel=1e-3)
        spikes = naturalness.lattice_spikes(image, 4)
        assert record["spikes"] == pytest.approx(float(spikes), rel=1e-4)
    rows = outputs.table(workdir)
    assert [row["beta"] for row in rows] == ["original", "1", "1", "2", "2"]
    for row in rows:
        if row["beta"] == "original":
            continue
        mine = [
            record
            for record in records
            if record["representation"] == row["representation"]
            and f"{record['beta']:g}" == row["beta"]
            and f"{record['lambda_V']:g}" == row["lambda_V"]
        ]
        assert len(mine) == 2
        assert row["relative error %"] == outputs.mean(mine, "relative_error", 100, 1)
        assert row["spikes"] == outputs.mean(mine, "spikes", 1, 2)
        high = outputs.mean(mine, "high_frequency_fraction", 100, 2)
        assert row["high-frequency %"] == high
        assert row["TV"] == outputs.mean(mine, "mean_gradient", 1, 1)
        assert (row["failed"], row["code zero"]) == ("0 of 2", "0")
    assert (workdir / "figure.png").stat().st_size > 10_000


def test_failed_lanes_are_counted(tmp_path: pathlib.Path):
    inputs.write_photographs(tmp_path / "mine")
    with flagsaver.flagsaver(
        workdir=str(tmp_path / "run"),
        images=str(tmp_path / "mine" / "one.png"),
        representations=["micro/pool1"],
        preset="cvpr2015",
        betas=["2"],
        tv_weight=["0.5", "50000"],
        num_steps=40,
    ):
        regulariser_sweep.main()
    _, fine, wild = outputs.table(tmp_path / "run")
    assert wild["failed"] == "1 of 1" and wild["relative error %"] == "–"
    assert fine["lambda_V"] == "0.5"
    assert outputs.records(tmp_path / "run")[1]["spikes"] is None


def test_jitter_is_of_networks_with_a_large_stride():
    pool1 = conftest.micro_representation("pool1")
    assert [v.keywords["jitter"] for v in regulariser_sweep.grid(pool1, [2.0])] == [1]
    deep = _Deep()
    found = [variant.keywords for variant in regulariser_sweep.grid(deep, [1.0, 2.0])]
    assert found == [
        {"beta": beta, "jitter": jitter} for beta in (1.0, 2.0) for jitter in (1, 8)
    ]
    hog = regulariser_sweep.grid(paper.SHALLOW["hog"], [2.0])
    assert [variant.keywords["jitter"] for variant in hog] == [1]


@pytest.mark.parametrize("words", [["0"], ["two"], ["1", "1.0"], ["inf"], []])
def test_exponents_are_positive_and_differ(words: list[str]):
    with pytest.raises(Refusal, match="--betas"):
        regulariser_sweep.exponents(words)


class _Deep:
    """A layer of stride 32, where only that counts."""

    geometry = conftest.micro_representation("pool1").geometry._replace(stride=32)

    def __call__(self, image):
        return image
