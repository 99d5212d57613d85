"""Activation maximisation: neurons, weights, and the binary as a user runs it."""

import json
import pathlib

import numpy as np
import pytest
from absl.testing import flagsaver

from invjax import identity
from invjax.commands import maximise, studies
from invjax.images import reading
from invjax.inversion import api, objective, presets
from invjax.runs.errors import Refusal
from invjax.sensitivity import neurons
from invjax.sensitivity.neurons import Neuron
from tests.conftest import micro_representation
from tests.experiments import outputs
from tests.experiments.inputs import needs_weights

pytestmark = pytest.mark.slow


def _run(**values: object) -> None:
    with flagsaver.flagsaver(**values):
        maximise.main()


@needs_weights
def test_outputs_of_a_run(tmp_path: pathlib.Path, photographs: pathlib.Path):
    workdir = tmp_path / "run"
    _run(
        workdir=str(workdir),
        images=str(photographs),
        representations=["alexnet/conv1", "alexnet/conv2"],
        units=["3", "0"],
        num_steps=15,
        num_starts=2,
    )
    records = outputs.records(workdir)
    assert [(r["representation"], r["channel"], r["start"]) for r in records] == [
        (f"alexnet/conv{layer}", channel, start)
        for layer in (1, 2)
        for channel in (3, 0)
        for start in (0, 1)
    ]
    for record in records:
        assert record["status"] == "budget" and record["num_steps"] == 15
        assert record["preset"] == "ijcv2016"
        assert record["activation"] > 0 and record["photographs_largest"] > 0
        ratio = record["activation"] / record["photographs_largest"]
        assert record["relative_activation"] == pytest.approx(ratio, rel=1e-5)
        assert record["label"] is None
        assert record["image"] == f"unit_{record['channel']:04d}"
        assert record["variant"] == "maximisation"
        assert record["relative_error"] is record["psnr"] is None
        # w is one-hot: the data term is minus its size times the activation.
        field = 11 if record["representation"] == "alexnet/conv1" else 51
        product = 1e4 / field**2 / record["scale"] * record["activation"]
        assert record["data_term"] == pytest.approx(-product, rel=1e-4)
        path = f"unit_{record['channel']:04d}/{record['representation']}"
        path = path.replace("alexnet/", "alexnet_")
        picture = (
            workdir / "reconstructions" / f"{path}/start_{record['start']:03d}.png"
        )
        side = record["image_size"]
        assert reading.read(picture).shape == (side, side, 3)
    assert records[0]["activation"] != records[1]["activation"]
    # Blocks of random colour leave conv2 behind what fifteen steps find.
    assert all(record["relative_activation"] > 1 for record in records[4:])
    rows = outputs.table(workdir)
    assert [(row["representation"], row["unit"]) for row in rows] == [
        (f"alexnet/conv{layer}", unit) for layer in (1, 2) for unit in ("3", "0")
    ]
    mean = np.mean([record["activation"] for record in records[:2]])
    assert rows[0]["activation"].startswith(f"{mean:.1f} ±")
    assert rows[0]["failed"] == "0 of 2" and rows[0]["called by its name"] == "–"
    assert (workdir / "figure.png").stat().st_size > 10_000
    assert "| alexnet/conv2 | 3 |" in (workdir / "table.md").read_text()
    config = json.loads((workdir / "config.json").read_text())
    assert config["settings"]["units"]["alexnet/conv1"] == ["3", "0"]
    assert len(config["weights"]["alexnet/conv1"]) == 64


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"representations": ["hog"]}, "hog"),
        ({"units": ["tree frog"]}, "0 to 63"),
        ({"units": ["64"]}, "0 to 63"),
        ({"units": ["1", " 1"]}, "twice"),
        ({"image_size": 4}, "--image_size=4"),
        ({"preset": "cvpr2015"}, "ijcv2016, fast, natural"),
    ],
)
@needs_weights
def test_bad_settings_are_refused(
    tmp_path: pathlib.Path, photographs: pathlib.Path, values: dict, word: str
):
    defaults = {
        "workdir": str(tmp_path / "run"),
        "images": str(photographs),
        "representations": ["alexnet/conv1"],
    }
    # As if typed, so that the preset counts as given.
    typed = {
        name: ",".join(value) if isinstance(value, list) else str(value)
        for name, value in (defaults | values).items()
    }
    with flagsaver.as_parsed(**typed):
        with pytest.raises(Refusal, match=word) as caught:
            maximise.main()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@needs_weights
def test_flags_of_inversion_are_refused(tmp_path: pathlib.Path):
    with flagsaver.flagsaver(workdir=str(tmp_path / "run")):
        with flagsaver.as_parsed(tv_weight="5"):
            with pytest.raises(Refusal, match="--tv_weight"):
                maximise.main()


def test_presets_are_given_the_papers_weights():
    """What `fast` minimises is the paper's objective, but for R_alpha's form."""
    phi = micro_representation("conv1")
    shape = (32, 32, 3)
    direction = neurons.direction(phi, Neuron("7", 7), 32, 4.0)
    key = identity.lane_key(0, 1, 0)
    # Grey, so that of R_alpha's two forms one is 27 / 3 of the other.
    grey = np.random.default_rng(0).uniform(-0.2, 0.2, (32, 32, 1)).astype(np.float32)
    image = np.broadcast_to(grey + np.asarray(phi.centre) / 255, shape)
    results = {}
    for preset in studies.LINEAR_PRESETS:
        # A rate of zero stays where it began.
        results[preset] = api.invert(
            key,
            direction,
            phi,
            preset=preset,
            num_steps=1,
            learning_rate=0,
            jitter=1,
            initial_image=image,
            data_term=objective.activation_maximisation,
            **presets.linear_term_weights(preset, shape),
        )
    fast = results["fast"]
    terms = [float(term) for term in fast.terms]
    paper = terms[0] + 9 * terms[1] + terms[2]
    assert float(results["ijcv2016"].objective) == pytest.approx(paper, rel=1e-4)
    assert min(abs(term) for term in terms) > 1e-4
