"""Sampling the set of images of a code, on a network of milliseconds."""

import csv
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver

from invjax.commands import invert, sample
from invjax.images import reading
from invjax.metrics import diversity, labels
from invjax.preimages import mcmc
from invjax.preimages.kernels import Hmc
from invjax.runs import loading
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane
from invjax.runs.sets import measures, sensitivity, summary
from invjax.runs.sets.measures import Measured
from invjax.runs.sets.methods import SampleSet
from invjax.runs.targets import Target
from tests.conftest import micro_representation
from tests.experiments import inputs, outputs
from tests.runs import made_up

pytestmark = pytest.mark.slow

_FEW = ("shift", "brightness", "contrast")


@pytest.fixture(scope="module", autouse=True)
def _micro():
    """Representations are layers of the micro network; no other weights are there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loading,
            "load_representation",
            lambda name, settings: micro_representation(name.partition("/")[2]),
        )
        patch.setattr(loading, "load_lpips", lambda groups, settings: None)
        patch.setattr(labels, "load", made_up.no_weights)
        # Each transformation is a program of its own.
        few = {name: sensitivity.AMOUNTS[name] for name in _FEW}
        patch.setattr(sensitivity, "AMOUNTS", few)
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        coarse = generator.uniform(size=(4, 4, 3)).astype(np.float32)
        photograph = np.kron(coarse, np.ones((8, 8, 1), np.float32))
        reading.write_png(folder / f"{name}.png", photograph)
    return folder


def _run(workdir: pathlib.Path, photographs: pathlib.Path, **values: object) -> None:
    defaults = {
        "workdir": str(workdir),
        "images": str(photographs),
        "representations": ["micro/relu1"],
        "num_samples": 3,
        "num_steps": 10,
        "save_arrays": True,
    }
    with flagsaver.flagsaver(**(defaults | values)):
        sample.main()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, photographs: pathlib.Path):
    """A run of independent starts at two depths."""
    workdir = tmp_path_factory.mktemp("runs") / "starts"
    names = ["micro/relu1", "micro/relu2"]
    _run(workdir, photographs, representations=names)
    return workdir


def _lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path) as stream:
        return list(csv.DictReader(stream))


def _array(workdir: pathlib.Path, path: str) -> np.ndarray:
    return np.load(workdir / "arrays" / f"{path}.npz")["image"]


def _set(workdir: pathlib.Path, code: str) -> np.ndarray:
    paths = sorted((workdir / "arrays" / code).glob("*.npz"))
    return np.stack([np.load(path)["image"] for path in paths])


def test_outputs_of_a_run(started):
    records = _lines(started / "metrics.jsonl")
    assert len(records) == 2 * 2 * 3
    for record in records:
        layer = record["representation"].replace("/", "_")
        path = f"{record['image']}/{layer}/start_{record['start']:03d}"
        picture = reading.read(started / "samples" / f"{path}.png")
        clipped = np.clip(_array(started, path), 0, 1)
        np.testing.assert_allclose(picture, clipped, atol=0.5 / 255 + 1e-6)
        assert 0 < record["relative_error"] < 1
    config = json.loads((started / "config.json").read_text())
    assert config["settings"]["method"] == "starts"
    assert config["settings"]["num_samples"] == 3
    assert (started / "figure.png").stat().st_size > 10_000
    assert "| micro/relu2 |" in (started / "table.md").read_text()


def test_measures_are_of_the_samples(started):
    originals = [_set_original(started, name) for name in ("one", "two")]
    unrelated = np.sqrt(np.mean((originals[0] - originals[1]) ** 2))
    sets = _lines(started / "sets.jsonl")
    assert len(sets) == 4
    for record in sets:
        layer = record["representation"].replace("/", "_")
        code = f"{record['image']}/{layer}"
        pictures = np.clip(_set(started, code), 0, 1)
        distances = [
            np.sqrt(np.mean((pictures[i] - pictures[j]) ** 2))
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        assert record["num_pairs"] == 3
        assert record["rms"] == pytest.approx(np.mean(distances), rel=1e-4)
        ratio = np.mean(distances) / unrelated
        assert record["rms_ratio"] == pytest.approx(ratio, rel=1e-4)
        original = originals[("one", "two").index(record["image"])]
        away = np.sqrt(np.mean((pictures - original) ** 2, axis=(1, 2, 3)))
        assert record["nearest_rms"] == pytest.approx(np.min(away), rel=1e-3)
        assert record["nearest"] == f"samples/{code}/start_00{np.argmin(away)}.png"
        variances = diversity.spectrum(pictures)
        rank = float(diversity.effective_rank(variances))
        assert 1 < record["effective_rank"] == pytest.approx(rank, rel=1e-4)
        assert sum(record["leading_fractions"]) == pytest.approx(1, rel=1e-4)
        assert record["lpips"] is None and record["label"] is None
        maps = started / "maps" / code
        assert len(list(maps.glob("component_*.png"))) == 2
        mean = reading.read(maps / "mean.png")
        np.testing.assert_allclose(mean, pictures.mean(0), atol=1 / 255)
        assert (maps / "deviation.png").exists()


def _set_original(workdir: pathlib.Path, name: str) -> np.ndarray:
    config = json.loads((workdir / "config.json").read_text())
    return reading.read(pathlib.Path(config["settings"]["images"]) / f"{name}.png")


def test_the_table_has_means_and_intervals(started):
    rows = _rows(started / "table.csv")
    sets = _lines(started / "sets.jsonl")
    assert [row["representation"] for row in rows] == ["micro/relu1", "micro/relu2"]
    for row, pair in zip(rows, (sets[:2], sets[2:]), strict=True):
        assert (row["images"], row["samples"], row["failed"]) == ("2", "6", "0")
        values = [record["rms"] for record in pair]
        low, high = sorted(values)
        assert row["RMS"] == f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"
        assert row["LPIPS"] == "–"


def test_a_start_is_the_same_in_any_batch_and_as_an_inversion(
    tmp_path: pathlib.Path, photographs: pathlib.Path, started: pathlib.Path
):
    # Without the other image and the other codes, and with another number of starts.
    one = str(photographs / "one.png")
    alone = tmp_path / "alone"
    _run(alone, photographs, images=one, geometry=True)
    with flagsaver.flagsaver(
        workdir=str(tmp_path / "inverted"),
        images=one,
        representations=["micro/relu1"],
        num_starts=2,
        num_steps=10,
        save_arrays=True,
    ):
        invert.main()
    for start in (0, 1):
        path = f"one/micro_relu1/start_{start:03d}"
        expected = _array(started, path)
        np.testing.assert_array_equal(_array(alone, path), expected)
        np.testing.assert_array_equal(_array(tmp_path / "inverted", path), expected)
    assert not np.array_equal(expected, _array(started, "one/micro_relu1/start_000"))

    looks = _lines(alone / "geometry.jsonl")
    assert [look["at"] for look in looks] == ["original", "sample"]
    for look in looks:
        assert np.all(np.diff(look["singular_values"]) <= 0)
        assert 0 < look["ignored_fraction"] <= 1
        assert look["ignored_gain"] < look["natural_gain"]
        # To first order: the smallest step is ignored best.
        assert look["code_change_ignored"][0] < look["code_change_natural"][0]
    records = _lines(alone / "invariances.jsonl")
    assert [record["transformation"] for record in records] == list(_FEW)
    assert all(record["samples_deviation"] >= 0 for record in records)
    assert len(_rows(alone / "invariances.csv")) == len(_FEW)
    assert len(_rows(alone / "geometry.csv")) == 2
    for name in ("seen", "ignored"):
        assert (alone / "maps" / "one" / "micro_relu1" / f"{name}.png").exists()


def test_images_that_keep_apart_come_in_sets(
    tmp_path: pathlib.Path, photographs: pathlib.Path
):
    workdir = tmp_path / "run"
    values = {"method": "repulsion", "num_samples": 6, "set_size": 4}
    _run(workdir, photographs, images=str(photographs / "one.png"), **values)
    records = _lines(workdir / "metrics.jsonl")
    assert [record["set"] for record in records] == [0, 0, 0, 1, 1, 1]
    for record in records:
        terms = record["data_term"] + record["alpha_term"] + record["tv_term"]
        assert record["energy"] == pytest.approx(terms, rel=1e-4)
        assert record["relative_error"] ** 2 == pytest.approx(
            record["data_term"], rel=1e-3
        )
        assert (record["dead_start"], record["num_revivals"]) == (False, 0)
    (found,) = _lines(workdir / "sets.jsonl")
    assert found["num_samples"] == 6 and found["rms_ratio"] is None
    (row,) = _rows(workdir / "table.csv")
    # One image, and samples that depend on each other: no interval.
    assert row["RMS"] == f"{found['rms']:.3f}"


def test_chains_say_how_they_mix(tmp_path: pathlib.Path, photographs: pathlib.Path):
    workdir = tmp_path / "run"
    _run(
        workdir,
        photographs,
        images=str(photographs / "one.png"),
        method="mala",
        target_error=0.5,
        error_band=0.5,
        num_samples=5,
        num_chains=2,
        num_warmup=100,
        thin=1,
    )
    records = _lines(workdir / "metrics.jsonl")
    assert [record["draw"] for record in records] == [0, 1, 2] * 2
    assert len({record["temperature"] for record in records}) == 2
    for record in records:
        path = f"one/micro_relu1/start_{record['start']:03d}_draw_{record['draw']:04d}"
        code = np.load(workdir / "arrays" / f"{path}.npz")["code"]
        assert code.shape and record["tv_term"] > 0
        terms = record["data_term"] + record["alpha_term"] + record["tv_term"]
        assert record["energy"] == pytest.approx(terms, rel=1e-4)
        # Those of the inversion that the chain starts from.
        assert (record["dead_start"], record["num_revivals"]) == (False, 0)
    everything, matched = _lines(workdir / "sets.jsonl")
    assert everything["num_samples"] == 6
    assert 0 < everything["acceptance"] <= 1
    assert everything["start_error"] > 0 and np.isfinite(everything["heating"])
    # Three draws are too few to tell.
    assert everything["energy_ess"] is None and everything["projection_rhat"] is None
    assert "acceptance" not in matched
    errors = [record["relative_error"] for record in records]
    assert matched["num_samples"] == sum(0.25 <= error <= 0.75 for error in errors)
    assert "acceptance" in _rows(workdir / "table.csv")[0]


@pytest.mark.parametrize(
    "values",
    [
        {"num_samples": 2},
        {"method": "repulsion", "num_samples": 3, "set_size": 3},
        {
            "method": "mala",
            "target_error": 0.5,
            "num_samples": 4,
            "num_chains": 2,
            "num_warmup": 40,
            "thin": 1,
        },
    ],
    ids=["starts", "repulsion", "mala"],
)
def test_samples_that_were_drawn_are_not_drawn_again(
    tmp_path: pathlib.Path, photographs: pathlib.Path, values: dict
):
    _run(tmp_path / "whole", photographs, **values)
    workdir = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        inputs.interrupt_after_units(1, patch)
        with pytest.raises(KeyboardInterrupt):
            _run(workdir, photographs, **values)
    (first,) = (workdir / "metrics").glob("part-*.jsonl")
    before = first.stat().st_mtime_ns
    assert not (workdir / "metrics.jsonl").exists()
    _run(workdir, photographs, **values)
    assert first.stat().st_mtime_ns == before
    assert outputs.everything(workdir) == outputs.everything(tmp_path / "whole")


def test_chains_are_of_the_kernel_asked_for(
    tmp_path: pathlib.Path, photographs: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*arguments, kernel, temperature, target_error, **options):
        assert kernel == Hmc(num_leaps=3)
        assert (temperature, target_error) == (0.1, None)
        raise Refusal("asked for it")

    monkeypatch.setattr(mcmc, "sample", stop)
    values = {"method": "hmc", "num_leaps": 3, "temperature": 0.1, "num_chains": 1}
    with pytest.raises(Refusal, match="asked for it"):
        _run(tmp_path / "run", photographs, **values)


def test_depths_are_compared_at_one_error(
    tmp_path: pathlib.Path, photographs: pathlib.Path
):
    workdir = tmp_path / "run"
    _run(
        workdir,
        photographs,
        tv_weight=["0.5", "500"],
        target_error=0.6,
        error_band=0.3,
        save_arrays=False,
    )
    records = _lines(workdir / "metrics.jsonl")
    matched = [
        record
        for record in _lines(workdir / "sets.jsonl")
        if record["selection"] == "matched"
    ]
    assert len(matched) == 2
    chosen = 0
    for found in matched:
        counts = {}
        for tv_weight in (0.5, 500.0):
            counts[tv_weight] = sum(
                abs(record["relative_error"] - 0.6) <= 0.18
                for record in records
                if record["image"] == found["image"]
                and record["tv_weight"] == tv_weight
            )
        assert found["num_samples"] == counts[found["tv_weight"]] > 0
        assert found["num_samples"] == max(counts.values())
        chosen += found["num_samples"]
    row = _rows(workdir / "table.csv")[-1]
    assert (row["lambda_V"], row["selection"]) == ("any", "matched")
    assert row["samples"] == str(chosen)


def test_of_a_recorded_code_nothing_else_is_known(
    tmp_path: pathlib.Path, started: pathlib.Path
):
    recorded = tmp_path / "mine.npy"
    path = started / "arrays" / "one" / "micro_relu1" / "start_000.npz"
    np.save(recorded, np.load(path)["code"])
    values = {"images": None, "code": str(recorded), "geometry": True}
    _run(tmp_path / "run", tmp_path, **values)
    (found,) = _lines(tmp_path / "run" / "sets.jsonl")
    assert found["image"] == "mine" and found["num_samples"] == 3
    assert found["rms"] > 0 and found["rms_ratio"] is None
    assert found["nearest_rms"] is None
    (look,) = _lines(tmp_path / "run" / "geometry.jsonl")
    assert look["at"] == "sample"
    assert not (tmp_path / "run" / "invariances.jsonl").exists()


def _made_up(
    pixels: np.ndarray, errors: list[float], logits: np.ndarray | None = None
) -> SampleSet:
    target = Target("made_up", 7, None, np.ones(3), pixels.shape[1:])
    group = Group("plain", jnp.ravel, [target], float("nan"))
    records = [
        made_up.record(image="made_up", start=start, relative_error=error)
        for start, error in enumerate(errors)
    ]
    lane = Lane(group, target, 0, 1.0, "made_up/plain/start_000")
    paths = [f"{number}.png" for number in range(len(errors))]
    return SampleSet(lane, pixels, records, paths, 0, 0, {"acceptance": 0.5}, logits)


def test_a_band_is_a_fraction_of_the_target():
    pixels = np.random.default_rng(0).uniform(size=(5, 4, 4, 3))
    logits = np.arange(5.0)[:, None] * np.ones((1, 1000))
    found = _made_up(pixels, [0.17, 0.181, 0.2, 0.219, 0.221], logits)
    near = measures.within(found, 0.2, 0.1)
    assert near.paths == ["1.png", "2.png", "3.png"]
    np.testing.assert_array_equal(near.images, pixels[1:4])
    assert near.logits is not None
    np.testing.assert_array_equal(near.logits[:, 0], [1, 2, 3])
    assert not near.diagnostics
    assert len(measures.within(found, 0.5, 0.1).images) == 0


def test_labels_agree_with_the_original_and_among_each_other():
    logits = np.zeros((6, 1000))
    logits[np.arange(6), [5, 5, 5, 8, 5, 2]] = 1
    truth = np.zeros(1000)
    truth[8] = 1
    pixels = np.random.default_rng(0).uniform(size=(6, 32, 32, 3))
    found = measures.measure(
        _made_up(pixels, [0.1] * 6, logits),
        made_up.settings(),
        method="starts",
        selection="all",
        num_pairs=2,
        null=None,
        lpips_parameters=None,
        truth=truth,
    )
    assert found.record["label_consensus"] == pytest.approx(4 / 6)
    assert found.record["label_top1"] == pytest.approx(1 / 6)
    np.testing.assert_array_equal(found.per_sample["label_top1"], [0, 0, 0, 1, 0, 0])
    assert found.record["num_pairs"] == 2
    assert found.record["acceptance"] == 0.5


def test_one_sample_has_no_distance():
    pixels = np.zeros((1, 32, 32, 3), np.float32)
    found = measures.measure(
        _made_up(pixels, [0.1]),
        made_up.settings(),
        method="starts",
        selection="all",
        num_pairs=2,
        null=None,
        lpips_parameters=None,
        truth=None,
    )
    assert found.record["relative_error"] == 0.1
    assert found.record["rms"] is None and found.record["effective_rank"] is None


def test_independent_samples_are_drawn_again_as_well_as_images(key):
    generator = np.random.default_rng(0)

    def item(image: str, mean: float) -> Measured:
        values = mean + generator.normal(size=20)
        record = dict.fromkeys(measures._UNDEFINED) | {
            "image": image,
            "representation": "plain",
            "tv_weight": 1.0,
            "selection": "all",
            "num_samples": 20,
            "num_failed": 0,
            "num_dead_starts": 0,
            "to_original_rms": float(np.mean(values)),
        }
        return Measured(record, {"to_original_rms": values})

    def width(method: str, items: list[Measured]) -> float:
        table = summary.rows(key, items, method)
        place = summary.header(method).index("to original RMS")
        low, high = table[0][place].partition("[")[2].rstrip("]").split(", ")
        return float(high) - float(low)

    alike = [item("one", 0.0), item("two", 0.0)]
    # Equal images: their means alone promise too much.
    assert width("starts", alike) > 1.3 * width("repulsion", alike)
    (row,) = summary.rows(key, alike[:1], "repulsion")
    assert "[" not in row[summary.header("repulsion").index("to original RMS")]
    (row,) = summary.rows(key, alike[:1], "starts")
    assert "[" in row[summary.header("starts").index("to original RMS")]


def test_samples_show_what_was_done_to_them():
    rows, columns = np.indices((32, 32))
    wave = 0.5 + 0.2 * np.sin(rows / 4) * np.cos(columns / 5 + 0.3)
    original = np.repeat(wave[..., None], 3, axis=2).astype(np.float32)
    brighter = np.stack([original + amount for amount in (-0.03, 0.0, 0.03)])
    phi = micro_representation("relu1")
    found = sensitivity.invariances(phi, original, brighter.astype(np.float32))
    records = {record["transformation"]: record for record in found}
    assert records["brightness"]["samples_mean"] == pytest.approx(0, abs=1e-4)
    assert records["brightness"]["samples_deviation"] == pytest.approx(0.03, rel=1e-3)
    assert records["brightness"]["code_per_unit"] > 0
    for name in ("shift", "contrast"):
        assert records[name]["samples_deviation"] < 1e-3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_starts": "3"}, "--num_samples"),
        ({"thin": "3"}, "--thin means nothing with --method=starts"),
        ({"method": "mala"}, "--target_error"),
        ({"method": "mala", "target_error": "0.1", "temperature": "1"}, "not both"),
        ({"method": "mala", "temperature": "-1"}, "--temperature=-1"),
        ({"target_error": "nan"}, "--target_error=nan"),
        ({"error_band": "0"}, "--error_band=0"),
        ({"method": "mala", "temperature": "1", "num_leaps": "3"}, "it is for hmc"),
        ({"method": "repulsion", "repulsion": "-1"}, "--repulsion=-1"),
        ({"method": "repulsion", "preset": "ijcv2016"}, "other than ijcv2016"),
        ({"method": "repulsion", "tolerance": "0.1"}, "--tolerance means nothing"),
    ],
)
def test_refuses_in_one_line(tmp_path: pathlib.Path, values: dict, words: str):
    with flagsaver.as_parsed(workdir=str(tmp_path / "run"), **values):
        with pytest.raises(Refusal, match=words) as caught:
            sample.main()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
