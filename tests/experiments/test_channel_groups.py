"""Groups of channels: which they are, what is left out, what the table says."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import channel_groups
from invjax.commands.studies import Bench
from invjax.images import sources
from invjax.metrics import naturalness
from invjax.runs import loading, targets, variants
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.targets import Target
from invjax.sensitivity import channel_split
from tests import conftest
from tests.experiments import inputs, outputs
from tests.experiments.inputs import needs_weights
from tests.runs import made_up

pytestmark = pytest.mark.slow


@needs_weights
def test_the_table_is_of_the_lanes(tmp_path: pathlib.Path):
    inputs.write_photographs(tmp_path / "mine")
    workdir = tmp_path / "run"
    with flagsaver.flagsaver(
        workdir=str(workdir),
        images=f"{tmp_path / 'mine'},sample:chelsea",
        representations=["alexnet/conv1"],
        num_steps=12,
        save_arrays=True,
    ):
        channel_groups.main()
    records = outputs.records(workdir)
    assert len(records) == 3 * 3
    for record in records:
        name = f"start_000_{record['variant']}.npz"
        folder = workdir / "arrays" / record["image"] / "alexnet_conv1"
        image = np.load(folder / name)["image"]
        chroma = float(naturalness.chroma_fraction(image))
        assert record["chroma_fraction"] == pytest.approx(chroma, rel=1e-5)
        high = float(naturalness.high_frequency_fraction(image, 0.125))
        assert record["high_frequency_fraction"] == pytest.approx(high, rel=1e-5)
        assert record["relative_error"] < 0.8
    rows = outputs.table(workdir)
    assert [(row["group"], row["channels"]) for row in rows] == [
        ("original", "–"),
        ("all", "64"),
        ("form", "32"),
        ("colour", "32"),
    ]
    by_group = {
        row["group"]: [r for r in records if r["variant"] == row["group"]]
        for row in rows[1:]
    }
    for row in rows[1:]:
        mine = by_group[row["group"]]
        assert row["relative error %"] == outputs.mean(mine, "relative_error", 100, 1)
        assert row["chroma %"] == outputs.mean(mine, "chroma_fraction", 100, 1)
        fraction = outputs.mean(mine, "high_frequency_fraction", 100, 1)
        assert row["high-frequency %"] == fraction
    more = sum(
        colour["chroma_fraction"] > form["chroma_fraction"]
        for form, colour in zip(by_group["form"], by_group["colour"], strict=True)
    )
    assert rows[3]["more chroma"] == f"{more} of 3"
    assert rows[2]["more chroma"] == f"{3 - more} of 3"
    assert (workdir / "figure.png").stat().st_size > 10_000


@needs_weights
def test_a_photograph_does_not_split_its_own_channels():
    settings = made_up.settings(
        images="sample:chelsea,sample:abstract",
        representations=("alexnet/conv1",),
        num_starts=2,
    )
    (group,) = loading.load_groups(settings)
    planned = channel_groups.plan(Bench(settings, {"channel_split": "auto"}, [group]))
    found = {target.name: _variants(planned, target) for target in group.targets}
    assert [variant.name for variant in found["chelsea"]] == ["all", "form", "colour"]
    samples = {
        name: targets.prepare(sources.sample(name), group.phi, settings)
        for name in sources.SAMPLES
    }
    expected = channel_split.find(
        group.phi, [image for name, image in samples.items() if name != "chelsea"]
    )
    mask = found["chelsea"][2].keywords["mask"]
    np.testing.assert_array_equal(np.flatnonzero(mask), expected.colour)
    everything = channel_split.find(group.phi, list(samples.values()))
    mask = found["abstract"][2].keywords["mask"]
    np.testing.assert_array_equal(np.flatnonzero(mask), everything.colour)
    # Three programs for each image, which its two starts share.
    assert len(planned) == 2 * len({lane.variant for lane in planned}) == 2 * 2 * 3


def _variants(planned: list[Lane], target: Target) -> list[Variant]:
    mine = [lane.variant for lane in planned if lane.target is target]
    return [variant for variant in dict.fromkeys(mine) if variant is not None]


def test_dead_groups_are_left_out_and_counted(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    phi = conftest.micro_representation("relu1")
    bias = jnp.asarray([-1e4] * 4 + [0.0] * 4)
    phi.params["conv1"]["bias"] = bias
    monkeypatch.setattr(loading, "load_representation", lambda name, settings: phi)
    inputs.write_photographs(tmp_path / "mine")
    with flagsaver.flagsaver(
        workdir=str(tmp_path / "run"),
        images=str(tmp_path / "mine"),
        representations=["micro/relu1"],
        channel_split="halves",
        num_steps=2,
    ):
        channel_groups.main()
    _, whole, first, second = outputs.table(tmp_path / "run")
    assert (whole["failed"], whole["left out"]) == ("0 of 2", "0")
    assert (first["group"], first["chroma %"], first["failed"]) == (
        "first",
        "–",
        "0 of 0",
    )
    assert (first["left out"], second["left out"]) == ("2", "0")
    assert "left out 2 of 6 lanes" in capsys.readouterr().out
    phi.params["conv1"]["bias"] = bias - 1e4
    with flagsaver.flagsaver(
        workdir=str(tmp_path / "dead"),
        images=str(tmp_path / "mine"),
        representations=["micro/relu1"],
        channel_split="halves",
    ):
        with pytest.raises(Refusal, match="zero everywhere"):
            channel_groups.main()
    assert not (tmp_path / "dead").exists()


def test_nothing_to_invert_is_refused():
    code = np.zeros((2, 2, 6), np.float32)
    target = Target("x", 1, None, code, (8, 8, 3))
    phi = conftest.micro_representation("relu1")
    group = Group("micro/relu1", phi, [target], 1.0)
    (_, first, _) = channel_groups.halves(group)
    lane = Lane(group, target, 0, 0.5, "x/micro_relu1/start_000", first)
    with pytest.raises(Refusal, match="nothing to invert"):
        variants.without_zero_targets([lane])


def test_grouped_networks_have_halves():
    assert channel_groups.is_grouped("caffenet/conv1")
    assert not channel_groups.is_grouped("alexnet/conv1")
    assert not channel_groups.is_grouped("efficientnet_lite0/block3")
    code = np.ones((2, 2, 6), np.float32)
    target = Target("x", 1, None, code, (8, 8, 3))
    phi = conftest.micro_representation("relu1")
    group = Group("caffenet/conv1", phi, [target], 1.0)
    bench = Bench(made_up.settings(), {"channel_split": "auto"}, [group])
    whole, first, second = _variants(channel_groups.plan(bench), target)
    assert whole.name == "all" and whole.keywords["mask"].ravel().tolist() == [1] * 6
    assert first.keywords["mask"].ravel().tolist() == [1, 1, 1, 0, 0, 0]
    assert second.keywords["mask"].ravel().tolist() == [0, 0, 0, 1, 1, 1]


def test_grey_representations_have_no_colour_to_split_by(tmp_path: pathlib.Path):
    pytest.importorskip("skimage", reason="the pretrained extra has the photographs")
    with flagsaver.flagsaver(
        workdir=str(tmp_path / "run"),
        images="sample:chelsea",
        representations=["hog"],
        image_size=64,
    ):
        with pytest.raises(Refusal, match="cannot be split by colour"):
            channel_groups.main()
    assert not (tmp_path / "run").exists()
