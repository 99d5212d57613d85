"""The table of bridged networks, small."""

import csv
import importlib.util
import pathlib

import pytest
from absl.testing import flagsaver

from experiments import bridged_networks
from experiments.benchmarks import bridged
from invjax.runs.errors import Refusal


def _is_installed(name: str) -> bool:
    return all(map(importlib.util.find_spec, bridged.KINDS[name].packages))


def _rows(folder: pathlib.Path, names: list[str]) -> dict[str, dict[str, str]]:
    with flagsaver.flagsaver(workdir=str(folder), smoke=True, networks=names):
        bridged_networks.main()
    with open(folder / "table.csv") as stream:
        return {row["network"]: row for row in csv.DictReader(stream)}


def test_networks_of_jax(tmp_path: pathlib.Path):
    names = ["CNN of Flax NNX", "plain function", "HOG of three cell sizes"]
    rows = _rows(tmp_path / "run", names)
    assert list(rows) == names
    assert float(rows[names[0]]["GFLOP"]) < float(rows[names[0]]["whole GFLOP"])
    assert all(0 < float(row["relative error %"]) for row in rows.values())
    assert rows["plain function"]["ms by PyTorch"] == "–"
    assert (tmp_path / "run" / "figure.png").stat().st_size > 1000
    with pytest.raises(Refusal, match="holds a table; pass --overwrite"):
        _rows(tmp_path / "run", names)


@pytest.mark.parametrize(
    "name", ["ResNet-50", "ConvNeXt-T", "ViT-S", "Swin-T", "CLIP ViT-B", "U-Net"]
)
def test_networks_of_pytorch(tmp_path: pathlib.Path, name: str):
    if not _is_installed(name):
        pytest.skip("needs its framework")
    (row,) = _rows(tmp_path / "run", [name]).values()
    assert float(row["difference of codes"]) < 1e-4
    assert float(row["difference of gradients"]) < 1e-3
    assert float(row["GFLOP"]) < float(row["whole GFLOP"])
    assert float(row["ratio"]) > 0


@pytest.mark.parametrize(
    "name", ["ViT of Flax Linen", "CNN of Equinox", "MobileNetV2 of Keras"]
)
def test_networks_of_other_libraries(
    tmp_path: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    if not _is_installed(name):
        pytest.skip("needs its framework")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (row,) = _rows(tmp_path / "run", [name]).values()
    assert float(row["difference of codes"]) < 1e-4
    assert float(row["GFLOP"]) < float(row["whole GFLOP"])


def test_unknown_networks_are_refused(tmp_path: pathlib.Path):
    with pytest.raises(Refusal, match="--networks=ResNet: ResNet-50, .* are accepted"):
        _rows(tmp_path, ["ResNet"])
