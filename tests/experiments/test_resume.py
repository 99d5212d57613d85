"""Every study goes on where it was interrupted, and ends as one that was not."""

import pathlib
from types import ModuleType
from typing import Any

import pytest

from experiments import (
    channel_groups,
    invariance,
    layer_progression,
    locality,
    naturalness,
    recognition,
    regulariser_sweep,
    shallow_table,
)
from invjax import representations
from invjax.commands import caricature, maximise, studies
from invjax.images import reading
from invjax.metrics import identification
from invjax.runs import classifiers, loading
from invjax.runs.settings import Request
from tests.conftest import micro_representation
from tests.experiments import inputs, outputs
from tests.runs import made_up

SLOW = pytest.mark.slow
STUDIES: list[Any] = [
    (caricature, {"preset": "ijcv2016"}, {}),
    (invariance, {"num_starts": 2}, {}),
    (recognition, {"num_starts": 2}, {"presets": ["fast", "adam"]}),
    pytest.param(
        maximise,
        {"representations": ("micro/conv2",), "preset": "ijcv2016"},
        {"units": ("0", "7")},
        marks=SLOW,
    ),
    pytest.param(channel_groups, {}, {"channel_split": "halves"}, marks=SLOW),
    pytest.param(layer_progression, {"tv_weight": (0.5, 5.0)}, {}, marks=SLOW),
    pytest.param(locality, {"num_starts": 2}, {}, marks=SLOW),
    pytest.param(naturalness, {"tv_weight": (0.0, 5.0)}, {}, marks=SLOW),
    pytest.param(regulariser_sweep, {}, {"betas": (1.0, 2.0)}, marks=SLOW),
    pytest.param(shallow_table, {"representations": ("hogb",)}, {}, marks=SLOW),
]


@pytest.fixture(autouse=True)
def _micro(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are the micro network's, also the judge's; no other weights are there."""
    whole = representations.representation

    def load(name: str, **options: Any) -> Any:
        del options
        network, _, layer = name.partition("/")
        is_micro = network in ("micro", "judge")
        return micro_representation(layer) if is_micro else whole(name)

    monkeypatch.setattr(representations, "representation", load)
    monkeypatch.setattr(identification, "JUDGES", ("judge/conv2",))
    monkeypatch.setattr(loading, "load_lpips", lambda groups, settings: None)
    monkeypatch.setattr(classifiers, "_load", lambda name, settings: None)


@pytest.mark.parametrize(("module", "values", "options"), STUDIES)
def test_a_study_ends_as_if_it_was_never_interrupted(
    tmp_path: pathlib.Path, module: ModuleType, values: dict, options: dict
):
    for name, image in made_up.images().items():
        reading.write_png(tmp_path / "photographs" / f"{name}.png", image)
    given: dict[str, Any] = {"representations": ("micro/relu1",), "num_steps": 2}
    given |= values
    photographs = str(tmp_path / "photographs")
    if module is recognition:
        given["identify_among"] = photographs
    settings = made_up.settings(images=photographs, **given)

    def run(name: str) -> None:
        request = Request(settings, str(tmp_path / name), False, False)
        studies.run(module.STUDY, request, options=options)

    run("whole")
    workdir = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        inputs.interrupt_after_units(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run("run")
    assert (workdir / "table.csv").exists()
    (first,) = (workdir / "metrics").glob("part-*.jsonl")
    before = first.stat().st_mtime_ns
    run("run")
    assert first.stat().st_mtime_ns == before
    found = outputs.everything(workdir)
    assert found == outputs.everything(tmp_path / "whole")
    assert "table.csv" in found and "figure.png" in found
    assert len(found["metrics.jsonl"]) > 1
