"""Records of lanes: what is in them, what is undefined, and their JSON."""

import json
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from invjax.inversion import objective, presets
from invjax.inversion.objective import Terms
from invjax.inversion.result import BUDGET, CONVERGED, FAILED
from invjax.metrics import errors, lpips
from invjax.runs import records
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.records import Record
from invjax.runs.targets import Target
from tests.experiments.inputs import needs_weights
from tests.runs import made_up

FIELDS = (
    "image representation start seed preset tv_weight alpha_weight status num_steps "
    "dead_start num_revivals energy objective data_term alpha_term tv_term "
    "relative_error normalised_error psnr ssim lpips rms seconds"
).split()
CODE = np.array([3.0, 0.0, 4.0], np.float32)


def _strict(text: str) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not strict JSON")

    return json.loads(text, parse_constant=refuse)


def _lane(variant: Variant | None = None, *, is_recorded: bool = False) -> Lane:
    original = None if is_recorded else made_up.images()["one"]
    target = Target("one", 7, original, CODE, (32, 32, 3))
    group = Group("plain", jnp.ravel, [target], code_scale=2.0)
    return Lane(group, target, 3, 0.5, "one/plain/start_003", variant)


def _record_of(lane: Lane, **values: Any) -> Record:
    """The record of an image that is a little off, and of a code that is off by 3."""
    given: dict[str, Any] = {
        "image": made_up.images()["one"] + np.float32(0.25),
        "code": np.array([3.0, 3.0, 4.0], np.float32),
        "status": BUDGET,
        "num_steps": 20,
        "energy": 0.5,
        "terms": Terms(jnp.float32(0.25), jnp.float32(0.125), jnp.float32(0.125)),
    }
    settings = made_up.settings(seed=11, preset="adam", alpha_weight=7.0)
    return records.record_of(lane, settings, **(given | values))


def test_a_record_is_a_line_of_strict_json():
    record = made_up.record(energy=1 / 3, seconds=0.5).with_measured(
        {"label": "tench", "values": [0.25, math.nan, (math.inf, 2)], "is_kept": True}
    )
    found = _strict(records.lines([record.as_json()]))
    assert list(found) == [*FIELDS, "label", "values", "is_kept"]
    # Seven figures; not a word about variants.
    assert found["energy"] == 0.3333333
    assert found["seconds"] == 0.5 and found["status"] == "budget"
    assert found["dead_start"] is False and found["num_revivals"] == 0
    assert found["relative_error"] is found["lpips"] is None
    assert found["label"] == "tench" and found["is_kept"] is True
    assert found["values"] == [0.25, None, [None, 2]]


@pytest.mark.parametrize(
    ("status", "num_steps", "values", "expected"),
    [
        (BUDGET, 20, [1.01234, 0.5, 0.25], [[0, 1.012], [10, 0.5], [20, 0.25]]),
        (BUDGET, 3, [1.0, 0.5], [[0, 1.0], [3, 0.5]]),
        # Steps that were not taken are NaN, and so is the end of a failed lane.
        (CONVERGED, 12, [1.0, 0.5, math.nan, 0.4], [[0, 1.0], [10, 0.5], [12, 0.4]]),
        (FAILED, 12, [1.0, math.inf, math.nan, math.nan], [[0, 1.0]]),
        (FAILED, 0, [math.nan, math.nan], []),
    ],
)
def test_a_history_has_the_steps_that_were_taken(status, num_steps, values, expected):
    history = np.array(values, np.float32)
    record = _record_of(_lane(), status=status, num_steps=num_steps, history=history)
    found = _strict(records.lines([record.as_json()]))
    assert found["history"] == record.history == expected
    assert "history" not in _record_of(_lane()).as_json()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(value: float):
    record = made_up.record(energy=value, psnr=value).with_measured({"own": value})
    found = _strict(records.lines([record.as_json()]))
    assert found["energy"] is found["psnr"] is found["own"] is None
    # In memory it is what it was.
    assert record.energy is value and record.value("own") is value


def test_lines_are_one_each():
    rows = [made_up.record(start=start).as_json() for start in range(3)]
    lines = records.lines(rows).splitlines()
    assert [_strict(line)["start"] for line in lines] == [0, 1, 2]
    assert records.lines([]) == ""


def test_a_variant_is_said_by_name():
    found = made_up.record(variant="patch").with_measured({"side": 5}).as_json()
    assert list(found) == [*FIELDS, "variant", "side"]
    assert found["variant"] == "patch"


def test_measured_columns_are_added_and_replaced():
    first = made_up.record().with_measured({"growth": 1.0, "label": None})
    second = first.with_measured({"growth": 2.0})
    assert first.measured == {"growth": 1.0, "label": None}
    assert second.measured == {"growth": 2.0, "label": None}


def test_values_and_numbers_by_name():
    record = made_up.record(num_steps=20).with_measured({"growth": 2, "label": None})
    assert record.value("num_steps") == 20 and record.value("psnr") is None
    assert record.value("growth") == 2 and record.value("label") is None
    assert record.number("num_steps") == 20.0 and record.number("growth") == 2.0
    assert math.isnan(record.number("psnr")) and math.isnan(record.number("label"))
    for name in ("grwoth", "measured", "as_json"):
        with pytest.raises(KeyError, match=name):
            record.value(name)
        with pytest.raises(KeyError, match=name):
            record.number(name)


def test_of_a_lane_with_an_original():
    record = _record_of(_lane(), status=CONVERGED, seconds=1.5)
    assert (record.image, record.representation, record.start) == ("one", "plain", 3)
    assert (record.seed, record.preset, record.num_steps) == (11, "adam", 20)
    assert (record.tv_weight, record.alpha_weight) == (0.5, 7.0)
    assert record.status == "converged" and not record.has_failed
    assert record.variant is None and record.measured == {}
    assert (record.energy, record.objective, record.seconds) == (0.5, 0.5, 1.5)
    terms = (record.data_term, record.alpha_term, record.tv_term)
    assert terms == (0.25, 0.125, 0.125)
    # Nobody looked.
    assert record.dead_start is record.num_revivals is None
    # 3 of 5, and of the code scale of 2.
    assert record.relative_error == pytest.approx(0.6)
    assert record.normalised_error == pytest.approx(1.5)
    original = made_up.images()["one"].astype(np.float64)
    error = np.mean((np.clip(original + 0.25, 0, 1) - original) ** 2)
    assert record.rms == pytest.approx(math.sqrt(error), rel=1e-5)
    assert record.psnr == pytest.approx(-10 * math.log10(error), rel=1e-5)
    assert record.ssim is not None and 0 < record.ssim < 1
    assert record.lpips is None
    found = _strict(records.lines([record.as_json()]))
    assert list(found) == FIELDS
    assert all(type(found[name]) is float for name in ("rms", "psnr", "data_term"))


def test_what_was_minimised_may_be_another_than_the_energy():
    record = _record_of(_lane(), objective_value=-3.0, dead_start=True, num_revivals=2)
    assert (record.energy, record.objective) == (0.5, -3.0)
    assert record.dead_start is True and record.num_revivals == 2


@needs_weights
def test_lpips_needs_weights():
    parameters = lpips.load()
    record = _record_of(_lane(), lpips_parameters=parameters)
    original = made_up.images()["one"]
    expected = errors.lpips_of(parameters, original + np.float32(0.25), original)
    assert record.lpips == pytest.approx(float(expected), rel=1e-4)
    assert record.number("lpips") > 1e-3


def test_of_a_recorded_code_no_likeness_is_known():
    record = _record_of(_lane(is_recorded=True))
    assert record.relative_error == pytest.approx(0.6)
    assert record.psnr is record.ssim is record.lpips is record.rms is None


def test_of_a_failed_lane_nothing_is_measured():
    record = _record_of(_lane(), status=FAILED, energy=math.nan)
    assert record.status == "failed" and record.has_failed
    for name in ("relative_error", "normalised_error", "psnr", "ssim", "lpips", "rms"):
        assert record.value(name) is None
    assert math.isnan(record.energy) and record.data_term == 0.25
    assert _strict(records.lines([record.as_json()]))["energy"] is None


def test_under_a_mask_only_what_is_asked_for_counts():
    mask = np.array([0.0, 1.0, 1.0], np.float32)
    record = _record_of(_lane(Variant("half", {"mask": mask})))
    assert record.variant == "half"
    # 3 of 4; the code scale is that of whole codes.
    assert record.relative_error == pytest.approx(0.75)
    assert record.normalised_error is None
    assert record.rms is not None


@pytest.mark.parametrize("data_term", objective.LINEAR_TERMS)
def test_a_linear_data_term_has_no_target_to_reach(data_term):
    record = _record_of(_lane(Variant("more", {"data_term": data_term})))
    assert record.relative_error is record.normalised_error is None
    assert record.rms is not None and record.data_term == 0.25


def test_keywords_of_a_variant_are_recorded():
    variant = Variant("bare", {"preset": "fast", "alpha_weight": 0.0})
    record = _record_of(_lane(variant))
    assert (record.preset, record.alpha_weight) == ("fast", 0.0)
    record = records.record_of(
        _lane(Variant("default", {"alpha_weight": None})),
        made_up.settings(alpha_weight=7.0),
        image=made_up.images()["one"],
        code=CODE,
        status=BUDGET,
        num_steps=1,
        energy=0.0,
        terms=Terms(*np.zeros(3, np.float32)),
    )
    assert record.alpha_weight == presets.ALPHA_WEIGHT
    assert record.relative_error == 0


def test_a_single_image_has_no_scale_to_normalise_by():
    lane = _lane()
    group = lane.group._replace(code_scale=math.nan)
    record = _record_of(lane._replace(group=group))
    assert record.relative_error == pytest.approx(0.6)
    assert _strict(records.lines([record.as_json()]))["normalised_error"] is None
