"""Lanes: which a run has, and the keywords that those of one program share."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from invjax.inversion import objective, presets
from invjax.inversion.execution import Execution
from invjax.representations import paper
from invjax.representations.cnn import CnnRepresentation
from invjax.runs import lanes, targets, variants
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.settings import SMOKE_STEPS
from invjax.runs.targets import Target
from tests.conftest import micro_representation
from tests.runs import made_up


def _group(name: str, *codes: list[float]) -> Group:
    """Targets a, b, ... of an 8 x 8 image, one for each code."""
    found = [
        Target(word, number, None, np.array(code, np.float32), (8, 8, 3))
        for number, (word, code) in enumerate(zip("abcdef", codes, strict=False))
    ]
    return Group(name, jnp.ravel, found, float("nan"), skipped=("z",))


def _paths(planned: list[Lane]) -> list[str]:
    return [lane.path for lane in planned]


def test_a_lane_for_every_target_weight_and_start():
    groups = [_group("net/one", [1, 2], [3, 4]), _group("two", [1])]
    planned = lanes.plan(groups, made_up.settings(num_starts=2, tv_weight=(0.5, 5.0)))
    assert _paths(planned) == [
        f"{image}/{name}/start_{start:03d}_tv_{weight}"
        for image, name in (("a", "net_one"), ("b", "net_one"), ("a", "two"))
        for weight in ("0.5", "5")
        for start in (0, 1)
    ]
    assert [lane.tv_weight for lane in planned[:4]] == [0.5, 0.5, 5.0, 5.0]
    assert all(lane.variant is lane.initial is None for lane in planned)
    # One lambda, here the preset's, is not in the names.
    planned = lanes.plan(groups, made_up.settings())
    assert _paths(planned)[:2] == ["a/net_one/start_000", "b/net_one/start_000"]
    assert planned[0].tv_weight == presets.tv_weight(groups[0].phi)


def test_smoke_is_two_lanes():
    groups = [_group("one", [1.0], [2.0])]
    settings = made_up.settings(num_starts=2, smoke=True)
    assert _paths(lanes.plan(groups, settings)) == _paths(
        lanes.plan(groups, dataclasses.replace(settings, smoke=False))[:2]
    )
    both = [Variant("x", {}), Variant("y", {})]
    found = variants.plan(groups, settings, lambda group, target: both)
    assert _paths(found) == ["a/one/start_000_x", "a/one/start_001_x"]


def test_a_variant_takes_the_place_of_settings():
    (lane, *_) = lanes.plan([_group("one", [1.0, 0.0])], made_up.settings())
    settings = made_up.settings(alpha_weight=7.0, tolerance=0.1, num_steps=None)
    keywords = lane.keywords(settings)
    assert keywords["image_shape"] == (8, 8, 3)
    assert (keywords["preset"], keywords["alpha_weight"]) == ("fast", 7.0)
    assert keywords["tolerance"] == 0.1 and keywords["dead_relu"] is None
    assert keywords["num_steps"] == presets.PRESETS["fast"].num_steps
    assert lane.alpha_weight(settings) == 7.0 and lane.preset(settings) == "fast"
    assert lane.mask is None and lane.variant_name is None
    assert lane.data_term is objective.squared_error
    mask = np.array([1.0, 0.0], np.float32)
    varied = lane._replace(
        variant=Variant(
            "own", {"mask": mask, "preset": "ijcv2016", "alpha_weight": 0.0}
        )
    )
    keywords = varied.keywords(settings)
    assert keywords["mask"] is mask and keywords["tolerance"] == 0.1
    assert (keywords["preset"], keywords["alpha_weight"]) == ("ijcv2016", 0.0)
    # The steps are those of the variant's preset.
    assert keywords["num_steps"] == presets.PRESETS["ijcv2016"].num_steps
    assert presets.PRESETS["ijcv2016"].num_steps != presets.PRESETS["fast"].num_steps
    assert (varied.preset(settings), varied.alpha_weight(settings)) == ("ijcv2016", 0)
    assert varied.mask is mask and varied.variant_name == "own"
    assert varied.code_key != lane.code_key


def test_steps_of_a_lane():
    phi = paper.SHALLOW["hog"]
    settings = made_up.settings(num_steps=None, preset="ijcv2016")
    linear = settings.steps(phi, data_term=objective.activation_maximisation)
    assert linear == 300
    assert settings.steps(phi, preset="cvpr2015") == 800
    assert made_up.settings(num_steps=7).steps(phi, preset="cvpr2015") == 7
    assert made_up.settings(num_steps=7, smoke=True).steps(phi) == SMOKE_STEPS


def test_lanes_of_one_variant_run_together():
    groups = [_group("one", [1.0], [2.0]), _group("two", [3.0])]
    shared, own = Variant("shared", {}), Variant("own", {})
    planned = variants.plan(
        groups,
        made_up.settings(num_starts=2),
        lambda group, target: [shared, own] if target.name == "a" else [shared],
    )
    assert _paths(planned) == [
        *("a/one/start_000_shared", "a/one/start_001_shared"),
        *("b/one/start_000_shared", "b/one/start_001_shared"),
        *("a/one/start_000_own", "a/one/start_001_own"),
        *("a/two/start_000_shared", "a/two/start_001_shared"),
        *("a/two/start_000_own", "a/two/start_001_own"),
    ]


def test_targets_that_are_zero_under_a_mask_are_left_out(
    capsys: pytest.CaptureFixture[str],
):
    group = _group("one", [1.0, 0.0], [0.0, 2.0], [3.0, 4.0])
    first = Variant("first", {"mask": np.array([1.0, 0.0], np.float32)})
    second = Variant("second", {"mask": np.array([0.0, 1.0], np.float32)})
    planned = variants.plan(
        [group],
        made_up.settings(num_starts=2, tv_weight=(0.5, 5.0)),
        lambda group, target: [first, second],
    )
    kept, left_out = variants.without_zero_targets(planned)
    assert sorted(_paths(kept) + _paths(left_out)) == sorted(_paths(planned))
    assert {(lane.target.name, lane.variant_name) for lane in left_out} == {
        ("a", "second"),
        ("b", "first"),
    }
    said = capsys.readouterr().out
    assert said.startswith("left out 8 of 24 lanes, whose target is zero under the ")
    assert said.endswith(", ...\n") and said.count("start_") == 4
    # One image for each of the two lambdas, and the one whose code is zero everywhere.
    assert variants.num_left_out(group, left_out, "first", 5.0) == 2
    assert variants.num_left_out(group, left_out, "other", 5.0) == 1
    kept, left_out = variants.without_zero_targets(kept)
    assert not left_out and not capsys.readouterr().out
    with pytest.raises(Refusal, match="nothing to invert"):
        variants.without_zero_targets([])


def test_a_code_that_squares_to_zero_asks_for_nothing():
    target = _group("one", [1e-30, 0.0]).targets[0]
    assert target.is_zero()
    target = _group("one", [1e-10, 2.0]).targets[0]
    assert not target.is_zero()
    assert not target.is_zero(np.array([1.0, 0.0], np.float32))
    assert target.is_zero(np.array([0.0, 0.0], np.float32))


def test_no_more_threads_than_lanes_at_once(monkeypatch: pytest.MonkeyPatch):
    for default, expected in (
        (Execution(num_threads=8), Execution(num_threads=3)),
        (Execution(num_threads=2), Execution(num_threads=2)),
        (Execution(width=16, scan=True), Execution(width=3, scan=True)),
    ):
        monkeypatch.setattr(lanes, "default_execution", lambda found=default: found)
        assert lanes.execution(made_up.settings(batch_size=3)) == expected


def test_the_float32_representation():
    phi = dataclasses.replace(micro_representation("relu1"), compute_dtype="bfloat16")
    exact = lanes.in_float32(phi)
    assert isinstance(exact, CnnRepresentation) and exact.compute_dtype == "float32"
    assert exact.params is phi.params and phi.compute_dtype == "bfloat16"
    assert lanes.in_float32(paper.SHALLOW["hog"]) is paper.SHALLOW["hog"]


def test_how_photographs_are_prepared():
    settings = made_up.settings(resize="stretch")
    network, hog = micro_representation("relu1"), paper.SHALLOW["hog"]
    assert targets.preparation(network, settings) == ("stretch", 32)
    assert targets.preparation(hog, settings) == ("grey", None)
    settings = made_up.settings(image_size=24)
    assert targets.preparation(network, settings) == ("crop", 24)
    photograph = np.random.default_rng(0).uniform(size=(40, 60, 3)).astype(np.float32)
    assert targets.prepare(photograph, network, settings).shape == (24, 24, 3)
    grey = targets.prepare(photograph, hog, settings)
    assert grey.shape == (24, 36, 1)
    # 8-bit levels, as the paper's inputs are.
    np.testing.assert_array_equal(
        grey, np.rint(255 * grey).astype("f4") / np.float32(255)
    )
