"""The networks of the table of bridged networks, small, and the table itself."""

import csv
import importlib.util
import pathlib

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import bridged_networks
from experiments.benchmarks import bridged
from invjax.runs.errors import Refusal
from tests.representations.bridges.cutting import distance, picture


def _rows(folder: pathlib.Path, names: list[str]) -> dict[str, dict[str, str]]:
    with flagsaver.flagsaver(workdir=str(folder), smoke=True, networks=names):
        bridged_networks.main()
    with open(folder / "table.csv") as stream:
        return {row["network"]: row for row in csv.DictReader(stream)}


def test_the_table(tmp_path: pathlib.Path):
    names = ["CNN of Flax NNX", "plain function"]
    rows = _rows(tmp_path / "run", names)
    assert list(rows) == names
    network, function = rows.values()
    assert float(network["difference of codes"]) < 1e-5
    assert float(network["GFLOP"]) < float(network["GFLOP of the whole"])
    assert float(network["ratio"]) > 0
    assert all(0 < float(row["relative error %"]) for row in rows.values())
    assert function["CPU ms by the framework"] == function["difference of codes"] == "–"
    assert (tmp_path / "run" / "figure.png").stat().st_size > 1000
    with pytest.raises(Refusal, match="holds a table; pass --overwrite"):
        _rows(tmp_path / "run", names)


QUICK = ("ResNet-50", "ViT-S", "U-Net", "CNN of Flax NNX", "plain function")
"""Those that compile in a few seconds."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in bridged.KINDS
    ],
)
def test_networks_agree_with_their_framework(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    kind = bridged.KINDS[name]
    if not all(map(importlib.util.find_spec, kind.packages)):
        pytest.skip("needs its framework")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    subject = kind.build(True)
    image = picture(subject.image_shape)
    code, _ = bridged.step(subject.phi, image, np.zeros((), np.float32))()
    target = bridged.target(code)
    found = bridged.step(subject.phi, image, target)()
    assert np.linalg.norm(found[1]) > 0
    if subject.own is None:
        assert subject.whole is None
        return
    own = subject.own(image, target)()
    assert distance(found[0], own[0]) < 1e-5
    assert distance(found[1], own[1]) < 1e-4
    shape = subject.image_shape
    assert bridged.flops(subject.phi, shape) < bridged.flops(subject.whole, shape)


def test_unknown_networks_are_refused(tmp_path: pathlib.Path):
    with pytest.raises(Refusal, match="--networks=ResNet: ResNet-50, .* are accepted"):
        _rows(tmp_path, ["ResNet"])
