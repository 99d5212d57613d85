"""Dead starts, and pictures that excite nothing, mean the same in every binary."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import layer_progression, regulariser_sweep
from experiments import shallow_table as shallow
from invjax.commands import caricature, invert, maximise, sample, studies
from invjax.commands.studies import Study
from invjax.images import reading
from invjax.metrics import labels
from invjax.representations.cnn import CnnRepresentation
from invjax.runs import lanes, loading, records, runner
from invjax.runs.classifiers import Classifiers
from invjax.runs.errors import Refusal
from tests.conftest import micro_representation
from tests.experiments import outputs
from tests.runs import made_up


def _representation(layer: str, *, margin: float) -> CnnRepresentation:
    """A layer of the micro network, whose first ReLUs noise switches off.

    Args:
      layer: name of the layer, from conv1 on.
      margin: how far below zero the largest answer to noise is, in units of it.
    """
    phi = micro_representation("conv1")
    noise = np.random.default_rng(0).normal(0, 14 / 255, phi.image_shape)
    answer = phi(jnp.asarray(np.asarray(phi.centre) / 255 + noise, jnp.float32))
    around = np.asarray(answer) - np.asarray(phi.params["conv1"]["bias"])
    size = jnp.asarray(np.abs(around).max(axis=(0, 1)))
    whole = micro_representation(layer)
    conv1 = whole.params["conv1"] | {"bias": -margin * size}
    return dataclasses.replace(whole, params=whole.params | {"conv1": conv1})


@pytest.fixture(autouse=True)
def _micro(monkeypatch: pytest.MonkeyPatch):
    """Every representation is a layer of the micro network that noise switches off."""

    @functools.cache
    def load(name: str) -> CnnRepresentation:
        return _representation(name.partition("/")[2], margin=3.0)

    monkeypatch.setattr(loading, "load_representation", lambda name, _: load(name))
    monkeypatch.setattr(loading, "load_network_layer", lambda name, _: load(name))
    monkeypatch.setattr(loading, "load_lpips", lambda groups, settings: None)
    monkeypatch.setattr(labels, "load", made_up.no_weights)


@pytest.fixture
def photographs(tmp_path: pathlib.Path) -> str:
    for name, image in made_up.images().items():
        reading.write_png(tmp_path / "photographs" / f"{name}.png", image)
    return str(tmp_path / "photographs")


def _run(main: Any, workdir: pathlib.Path, **values: Any) -> list[dict]:
    given = {"num_steps": "3", "batch_size": "1", "workdir": str(workdir)}
    with flagsaver.as_parsed(**given | values):
        main()
    return outputs.records(workdir)


STARTS: Any = ("starts", {})
REPULSION: Any = ("repulsion", {})
MALA: Any = ("mala", {"temperature": "1", "num_chains": "2", "num_warmup": "40"})


@pytest.mark.parametrize("dead_relu", [None, "restart", "leaky"])
@pytest.mark.parametrize(
    "binary",
    [
        "invert",
        STARTS,
        REPULSION,
        pytest.param(MALA, marks=pytest.mark.slow),
        "maximise",
    ],
)
def test_every_descent_from_noise_tells_and_leaves_dead_starts(
    tmp_path: pathlib.Path,
    photographs: str,
    capsys: pytest.CaptureFixture[str],
    binary: Any,
    dead_relu: str | None,
):
    values = {"images": photographs, "representations": "micro/relu1"}
    if dead_relu is not None:
        values["dead_relu"] = dead_relu
    workdir = tmp_path / "run"
    if binary == "invert":
        found = _run(invert.main, workdir, num_starts="2", **values)
    elif binary == "maximise":
        values |= {"units": "1,2", "num_starts": "1", "preset": "fast"}
        found = _run(maximise.main, workdir, **values)
    else:
        method, options = binary
        values |= {"method": method, "num_samples": "3", **options}
        found = _run(sample.main, workdir, **values)
        lines = (workdir / "sets.jsonl").read_text().splitlines()
        for record in map(json.loads, lines):
            dead = sum(r["dead_start"] for r in found if r["image"] == record["image"])
            assert record["num_dead_starts"] == dead
    assert found
    is_dead = dead_relu != "leaky"
    for record in found:
        assert record["dead_start"] is is_dead
        assert record["status"] == "budget"
        if dead_relu == "leaky":
            assert record["num_revivals"] > 0
        else:
            assert record["num_revivals"] == (32 if dead_relu else 0)
    said = capsys.readouterr().out
    assert ("began at a dead start" in said) is is_dead
    assert ("left a dead start" in said) is not is_dead
    if binary != "invert":
        assert "dead starts" in (workdir / "table.md").read_text()


@pytest.mark.slow
def test_a_set_begins_where_its_lanes_were_led(
    tmp_path: pathlib.Path, photographs: str
):
    values = {
        "images": f"{photographs}/one.png",
        "representations": "micro/relu1",
        "method": "repulsion",
        "num_samples": "3",
        "num_steps": "1",
    }
    found = _run(sample.main, tmp_path / "none", **values)
    # One step from a dead start: nearly nothing of the code is there.
    assert all(record["relative_error"] > 0.99 for record in found)
    found = _run(sample.main, tmp_path / "leaky", dead_relu="leaky", **values)
    assert all(record["relative_error"] < 0.98 for record in found), found


def test_a_picture_that_excites_nothing_is_not_reported_as_done(
    tmp_path: pathlib.Path, photographs: str, capsys: pytest.CaptureFixture[str]
):
    workdir = tmp_path / "run"
    found = _run(
        maximise.main,
        workdir,
        images=photographs,
        representations="micro/relu1,micro/conv1",
        units="1,2,3",
        num_starts="2",
    )
    said = capsys.readouterr().out
    for name in ("micro/relu1", "micro/conv1"):
        mine = [record for record in found if record["representation"] == name]
        assert len(mine) == 6
        without = 0
        for record in mine:
            is_excited = record["activation"] > max(record["start_activation"], 0)
            assert record["is_excited"] is is_excited
            without += not is_excited
        line = f"{name}: {without} of 6 pictures do not excite their neuron"
        assert (line in said) is (without > 0)
        rows = [r for r in outputs.table(workdir) if r["representation"] == name]
        assert sum(int(row["not excited"][0]) for row in rows) == without
        assert all(row["not excited"].endswith(" of 2") for row in rows)
    dead = [record for record in found if record["dead_start"]]
    assert dead and all(r["representation"] == "micro/relu1" for r in dead)
    for record in dead:
        assert record["start_activation"] == 0


@pytest.mark.parametrize(
    ("activation", "start", "is_excited"),
    [
        (1.0, 0.0, True),
        (1.0, -1.0, True),
        (2.0, 1.0, True),
        (0.0, 0.0, False),
        (-0.5, -3.0, False),
        (1.0, 1.0, False),
        (1.0, 2.0, False),
    ],
)
def test_what_counts_as_excited(
    monkeypatch: pytest.MonkeyPatch, activation: float, start: float, is_excited: bool
):
    phi = micro_representation("fc3")
    layer = maximise.Layer(
        phi,
        32,
        [maximise.Peak(1.0, "one", np.zeros((1, 1, 3)))],
        {"unit_0000": maximise.Neuron("0", 0)},
    )
    target = maximise._target(layer, "unit_0000")
    group = lanes.Group("micro/fc3", phi, [target], float("nan"))
    lane = lanes.Lane(group, target, 0, 1.0, "unit_0000/micro_fc3/start_000")
    first, last = np.zeros((2, 32, 32, 3), np.float32)
    last[...] = 0.5
    monkeypatch.setattr(runner, "start_image", lambda *_, **__: first)
    answers = {0.0: start, 0.5: activation}
    monkeypatch.setattr(
        runner, "encode", lambda _, image: np.full(10, answers.get(image[0, 0, 0], 0.0))
    )
    outcome = runner.Outcome(
        lane, made_up.record(), last, np.full(10, activation, np.float32)
    )
    none = Classifiers([], made_up.settings(), words=("classifier",))
    tools = maximise.Tools({"micro/fc3": layer}, none)
    bench = studies.Bench(made_up.settings(), {}, [group], tools=tools)
    measured = maximise.measure(bench, outcome)
    assert measured["is_excited"] is is_excited
    assert measured["start_activation"] == start
    failed = outcome._replace(record=made_up.record(status="failed"))
    assert maximise.measure(bench, failed)["is_excited"] is None
    assert list(maximise.measure(bench, failed)) == list(measured)


@pytest.mark.parametrize(
    ("preset", "dead_relu"),
    [("fast", None), ("fast", "restart"), ("ijcv2016", "restart")],
)
def test_a_lane_begins_where_it_is_said_to(preset: str, dead_relu: str | None):
    # Noise of which some is dead: the neuron is off for three quarters of it.
    phi = _representation("relu1", margin=0.2)
    group = made_up.group(phi, "micro/relu1")
    settings = made_up.settings(preset=preset, num_starts=3, dead_relu=dead_relu)
    mask = np.zeros(group.targets[0].code.shape, np.float32)
    mask[8, 8, 3] = 1
    variant = lanes.Variant("one", {"mask": mask, "learning_rate": 0.0, "jitter": 1})
    target = group.targets[0]._replace(code=np.ones_like(mask))
    planned = lanes.plan([group._replace(targets=[target])], settings)
    planned = [lane._replace(variant=variant) for lane in planned]
    restarts = 0
    for outcomes in runner.invert(planned, settings):
        for outcome in outcomes:
            number = outcome.record.num_revivals or 0
            restarts += number
            found = runner.start_image(outcome.lane, settings, num_restarts=number)
            np.testing.assert_allclose(found, outcome.image, atol=2e-4)
            answer = float(runner.encode(outcome.lane, found)[8, 8, 3])
            assert (answer > 0) is not outcome.record.dead_start
    assert (restarts > 0) is (dead_relu is not None)


def test_caricatures_begin_at_photographs(tmp_path: pathlib.Path, photographs: str):
    values = {"images": photographs, "representations": "micro/relu1"}
    with pytest.raises(Refusal, match="--dead_relu: a caricature begins at its photog"):
        _run(caricature.main, tmp_path / "run", dead_relu="leaky", **values)
    found = _run(caricature.main, tmp_path / "run", **values)
    assert [(r["dead_start"], r["num_revivals"]) for r in found] == [(False, 0)] * 2


@pytest.mark.parametrize(
    "study",
    [module.STUDY for module in (layer_progression, regulariser_sweep, shallow)],
)
def test_every_table_counts_failed_lanes_and_dead_starts(study: Study):
    assert set(studies.COUNTS) <= set(study.columns)


def test_remarks_are_of_failed_lanes_and_dead_starts():
    fine = made_up.record()
    assert records.remarks([fine, fine]) == []
    assert records.remarks([made_up.record(dead_start=None, num_revivals=None)]) == []
    mixed = [
        fine,
        made_up.record(status="failed"),
        made_up.record(dead_start=True),
        made_up.record(dead_start=True, num_revivals=32),
        made_up.record(num_revivals=4),
    ]
    assert records.remarks(mixed) == [
        "1 of 5 lanes failed",
        "2 of 5 lanes began at a dead start",
        "1 of 5 lanes left a dead start",
    ]
    assert studies.counts(mixed) == ["1 of 5", "2 of 5"]
