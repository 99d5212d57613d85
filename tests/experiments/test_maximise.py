"""Activation maximisation: neurons, weights, and the binary as a user runs it."""

import json
import pathlib

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import maximise, studies
from invjax import callables, identity
from invjax.images import reading
from invjax.inversion import api, objective, presets
from invjax.runs.errors import Refusal
from invjax.sensitivity import neurons
from invjax.sensitivity.neurons import Neuron, Peak
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
        ({"preset": "cvpr2015"}, "ijcv2016 and fast"),
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


def test_a_picture_is_as_large_as_a_cell_of_the_mosaic():
    # conv2 of the micro network: field 17 and stride 4; 1.1 field / stride is 5 places
    # when rounded, and 17 px, 9 after conv1, have 5 after the pool.
    phi = micro_representation("conv2")
    assert (phi.geometry.receptive_field, phi.geometry.stride) == (17, 4)
    side = neurons.image_side(phi)
    assert callables.code_shape(phi, (side, side, 3)) == (5, 5, 12)
    assert callables.code_shape(phi, (side + 1, side + 1, 3))[0] > 5
    assert neurons.image_side(micro_representation("fc3")) == 32
    assert neurons.place((5, 5, 12), 7) == (2, 2, 7)
    assert neurons.place((10,), 7) == (7,)


def test_the_direction_is_the_published_one():
    phi = micro_representation("conv2")
    side = neurons.image_side(phi)
    weights = neurons.direction(phi, Neuron("7", 7), side, 4.0)
    assert np.count_nonzero(weights) == 1
    assert weights[2, 2, 7] == pytest.approx(1e4 / 17**2 / 4.0)


def test_peaks_are_where_photographs_excite_a_unit():
    phi = micro_representation("conv2")
    generator = np.random.default_rng(1)
    photographs = {
        name: generator.uniform(size=(32, 32, 3)).astype(np.float32)
        for name in ("one", "two")
    }
    found = neurons.peaks(phi, photographs)
    codes = {name: np.asarray(phi(image)) for name, image in photographs.items()}
    for channel, peak in enumerate(found):
        largest = {name: code[..., channel].max() for name, code in codes.items()}
        assert peak.image == max(largest, key=lambda name: largest[name])
        assert peak.activation == pytest.approx(max(largest.values()), rel=1e-6)
        assert max(peak.patch.shape[:2]) <= 17


def test_the_scale_of_a_unit_that_photographs_hardly_excite():
    patch = np.zeros((1, 1, 3), np.float32)
    found = [Peak(value, "one", patch) for value in (0.1, 4.0, -1.0)]
    assert neurons.scale(found, 0, has_places=True) == 0.1
    assert neurons.scale(found, 0, has_places=False) == 4.0
    assert neurons.scale(found, 2, has_places=True) == 4.0
    with pytest.raises(ValueError, match="photographs"):
        neurons.scale(found[2:], 0, has_places=True)


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
