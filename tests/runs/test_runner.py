"""The runner: every lane once, in groups of one program, and gathered by code."""

import pathlib

import jax
import numpy as np
import pytest

from invjax import callables, identity
from invjax.images import reading
from invjax.inversion import api
from invjax.inversion.execution import Execution
from invjax.metrics import errors
from invjax.report import contrast
from invjax.runs import lanes, runner, shards
from invjax.runs.folder import RunFolder
from invjax.runs.lanes import Lane, Variant
from invjax.runs.plans import LoadedPlan
from invjax.runs.runner import Finished, Outcome
from tests.conftest import micro_representation
from tests.runs import made_up


@pytest.fixture(scope="module")
def groups():
    """Two layers of the micro network, two images each."""
    return [
        made_up.group(micro_representation(layer), f"micro/{layer}")
        for layer in ("relu1", "relu2")
    ]


@pytest.fixture
def planned(groups) -> list[Lane]:
    """Two lambdas and two starts of each code, the second layer under a mask, too."""
    settings = made_up.settings(num_starts=2, tv_weight=(0.5, 5.0))
    plain = lanes.plan(groups, settings)
    mask = np.zeros(groups[1].targets[0].code.shape, np.float32)
    mask[..., :6] = 1
    half = Variant("half", {"mask": mask})
    masked = [
        lane._replace(variant=half, path=f"{lane.path}_half")
        for lane in plain
        if lane.group is groups[1]
    ]
    return plain + masked


def _names(planned: list[Lane]) -> list[tuple]:
    return [(lane.path, lane.tv_weight, lane.variant_name) for lane in planned]


def test_every_lane_once_and_in_groups_of_one_program(planned: list[Lane]):
    chunks = list(runner.invert(planned, made_up.settings(num_steps=2)))
    for chunk in chunks:
        assert len({(o.lane.group.name, o.lane.variant) for o in chunk}) == 1
    found = [outcome for chunk in chunks for outcome in chunk]
    assert _names([outcome.lane for outcome in found]) == _names(planned)
    for outcome in found:
        lane, record = outcome.lane, outcome.record
        assert (record.image, record.start) == (lane.target.name, lane.start)
        assert (record.tv_weight, record.variant) == (lane.tv_weight, lane.variant_name)
        assert record.num_steps == 2 and record.seconds is not None
        assert record.dead_start is False and record.num_revivals == 0
        code = np.asarray(callables.encode(lane.group.phi, outcome.image))
        np.testing.assert_array_equal(outcome.code, code)
        assert outcome.picture is outcome.image
    assert len({outcome.record.energy for outcome in found}) == len(planned)


def test_lanes_that_converge_in_another_order(
    planned: list[Lane], monkeypatch: pytest.MonkeyPatch
):
    """A compiled loop with a tolerance hands lanes over as they converge."""
    monkeypatch.setattr(lanes, "execution", lambda _: Execution(width=2, scan=True))
    settings = made_up.settings(num_steps=120, tolerance=0.05)
    mine = planned[:8]
    chunks = list(runner.invert(mine, settings))
    found = {o.lane.path: o for chunk in chunks for o in chunk}
    assert sum(map(len, chunks)) == len(mine)
    assert sorted(found) == sorted(lane.path for lane in mine)
    assert len({outcome.record.num_steps for outcome in found.values()}) > 1
    for lane in mine:
        outcome = found[lane.path]
        # A result goes to the lane that asked for it.
        assert outcome.lane is lane
        error = errors.relative_error(outcome.code, lane.target.code)
        assert outcome.record.relative_error == pytest.approx(float(error))
        assert outcome.record.data_term == pytest.approx(float(error) ** 2, rel=1e-3)


def test_a_lane_is_what_invert_finds(planned: list[Lane]):
    lane = planned[-1]
    settings = made_up.settings(num_steps=4, seed=5)
    ((outcome,),) = runner.invert([lane], settings)
    assert lane.variant is not None
    key = identity.lane_key(5, lane.target.image_id, lane.start)
    expected = api.invert(
        key,
        lane.target.code,
        lane.group.phi,
        image_shape=(32, 32, 3),
        preset="fast",
        num_steps=4,
        tv_weight=lane.tv_weight,
        mask=lane.variant.keywords["mask"],
    )
    np.testing.assert_array_equal(outcome.image, expected.image)
    assert outcome.record.energy == float(expected.energy)


def test_lanes_may_start_from_images(planned: list[Lane]):
    first, second = planned[0], planned[5]
    starts = list(made_up.images().values())
    mine = [
        first,
        first._replace(initial=starts[0]),
        second._replace(initial=starts[1]),
    ]
    settings = made_up.settings(num_steps=1)
    found = [outcome for chunk in runner.invert(mine, settings) for outcome in chunk]
    assert [outcome.lane for outcome in found] == mine
    for outcome in found:
        lane = outcome.lane
        expected = api.invert(
            runner.lane_key(lane, settings),
            lane.target.code,
            lane.group.phi,
            image_shape=(32, 32, 3),
            num_steps=1,
            tv_weight=lane.tv_weight,
            initial_image=lane.initial,
        )
        np.testing.assert_array_equal(outcome.image, expected.image)
    assert np.any(found[0].image != found[1].image)


def test_a_consumer_that_stops_leaves_no_thread_behind(
    planned: list[Lane], monkeypatch: pytest.MonkeyPatch
):
    closed = []
    whole = api.invert_stream

    def watched(*args, **keywords):
        stream = whole(*args, **keywords)
        try:
            yield from stream
        finally:
            stream.close()
            closed.append(True)

    monkeypatch.setattr(api, "invert_stream", watched)
    outcomes = runner.invert(planned, made_up.settings(num_steps=1))
    next(outcomes)
    assert not closed
    outcomes.close()
    assert closed == [True]


def test_files_are_written_before_a_lane_is_yielded(
    planned: list[Lane],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
):
    settings = made_up.settings(num_steps=1, save_arrays=True)
    folder = RunFolder.claim(str(tmp_path / "run"), overwrite=False)
    mine = planned[:3]
    run = runner.run(
        mine,
        settings,
        folder,
        weights={},
        measure=lambda outcome: {"brightness": float(outcome.image.mean())},
        pictures="samples",
        stretched="shown",
    )
    for number, lane in enumerate(run, 1):
        assert lane.lane is mine[number - 1] and lane.path == lane.lane.path
        assert lane.image is not None and lane.picture is lane.image
        picture = reading.read(folder.path / "samples" / f"{lane.path}.png")
        clipped = np.clip(lane.image, 0, 1)
        np.testing.assert_allclose(picture, clipped, atol=0.5 / 255 + 1e-6)
        shown = reading.read(folder.path / "shown" / f"{lane.path}.jpg")
        # JPEG files are off by some levels, most where noise is strong.
        difference = np.abs(shown - contrast.stretched(lane.image))
        assert difference.mean() < 10 / 255
        arrays = np.load(folder.path / "arrays" / f"{lane.path}.npz")
        np.testing.assert_array_equal(arrays["image"], lane.image)
        code = callables.encode(lane.lane.group.phi, lane.image)
        np.testing.assert_array_equal(arrays["code"], code)
        lines = list(shards.read_records(folder.path))
        assert len(lines) >= number
        line = lines[number - 1]
        assert line == lane.record.as_json()
        assert line["brightness"] == pytest.approx(lane.image.mean(), rel=1e-5)
        assert not folder.is_finished
    assert folder.is_finished
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and said[0].startswith("[1/3, ")
    assert "micro/relu1 tv 0.5 start 0: relative error" in said[0]


@pytest.mark.parametrize("execution", [Execution(num_threads=2), Execution(2, True)])
def test_lanes_that_run_side_by_side_are_not_timed_first(
    execution: Execution,
    planned: list[Lane],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
):
    timed: list[None] = []

    def estimate(*_: object, **__: object) -> api.Estimate:
        timed.append(None)
        return api.Estimate(seconds_per_lane=10.0, num_bytes=0)

    monkeypatch.setattr(lanes, "execution", lambda _: execution)
    monkeypatch.setattr(api, "estimate", estimate)

    def sizes(count: int) -> list[int]:
        folder = RunFolder.claim(str(tmp_path / str(count)), overwrite=False)
        plan, settings = LoadedPlan(planned[:count]), made_up.settings()
        begun = runner.begin(folder, plan, settings, weights={})
        return [unit.num_lanes for unit in begun.units]

    each = execution.lanes_per_call
    assert sizes(2) == [each] * (2 // each) and timed == []
    # Three lanes in half a minute; whole calls where they are compiled.
    assert sizes(4) == ([3, 1] if each == 1 else [4]) and timed == [None]


def test_a_failed_lane_has_no_picture(groups):
    lane = lanes.plan(groups[:1], made_up.settings(tv_weight=(1e6,)))[0]
    settings = made_up.settings(preset="cvpr2015", num_steps=40)
    ((outcome,),) = runner.invert([lane], settings)
    assert outcome.record.has_failed and outcome.picture is None
    assert outcome.record.num_steps < 40
    assert np.all(np.isfinite(outcome.image))


def test_estimates_name_every_program(
    planned: list[Lane], capsys: pytest.CaptureFixture[str]
):
    runner.print_estimates(planned, made_up.settings(num_steps=7))
    first, second, total = capsys.readouterr().out.splitlines()
    assert first.startswith("micro/relu1: 8 lanes of 7 steps, about ")
    # The mask's program takes as many steps.
    assert second.startswith("micro/relu2: 16 lanes of 7 steps, about ")
    assert total.startswith("24 lanes, about ")


def _outcomes(planned: list[Lane]) -> list[Finished]:
    return [Finished(lane, lane.path, made_up.record(), None) for lane in planned]


def test_outcomes_are_gathered_by_code_in_any_order(planned: list[Lane]):
    outcomes = _outcomes(planned)
    order = np.random.default_rng(0).permutation(len(outcomes))
    by_code = runner.ByCode(planned)
    complete = []
    for number in order:
        found = by_code.add(outcomes[number])
        if found is not None:
            assert found[-1] is outcomes[number]
            complete.append(found)
    # 2 layers, 2 images, 2 lambdas; the second layer also under a mask.
    assert len(complete) == 8 + 4
    for found in complete:
        assert sorted(outcome.lane.start for outcome in found) == [0, 1]
        assert len({outcome.lane.code_key for outcome in found}) == 1
    assert by_code.incomplete() == []


def test_an_interruption_leaves_codes_incomplete(planned: list[Lane]):
    first, second, third = _outcomes([planned[number] for number in (0, 2, 1)])
    by_code = runner.ByCode(planned)
    assert by_code.add(first) is None
    assert by_code.add(second) is None
    assert by_code.add(third) == [first, third]
    assert by_code.incomplete() == [[second]]


def test_variants_without_a_name_are_codes_of_their_own(planned: list[Lane]):
    """Such as the two presets of the table of shallow representations."""
    mine = [
        planned[0]._replace(variant=Variant(None, {"preset": preset}))
        for preset in ("fast", "cvpr2015")
    ]
    by_code = runner.ByCode(mine)
    for outcome in _outcomes(mine):
        assert by_code.add(outcome) == [outcome]


def test_keys_are_of_seed_image_and_start(planned: list[Lane]):
    lane = planned[1]
    key = runner.lane_key(lane, made_up.settings(seed=3))
    expected = identity.lane_key(3, lane.target.image_id, 1)
    assert jax.random.key_data(key).tolist() == jax.random.key_data(expected).tolist()


def test_pictures_of_images_far_out_of_range_are_clipped(
    planned: list[Lane], tmp_path: pathlib.Path
):
    """A lane that diverges ends anywhere; its picture is written all the same."""
    folder = RunFolder.claim(str(tmp_path / "run"), overwrite=False)
    image = np.full((32, 32, 3), 1e30, np.float32)
    image[:16] = 0.5
    image[16:24] = 5e29
    outcome = Outcome(planned[0], made_up.record(status="failed"), image, np.zeros(3))
    runner.write_outcome(
        folder, outcome, made_up.settings(), pictures="samples", stretched="shown"
    )
    path = folder.path / "samples" / f"{planned[0].path}.png"
    np.testing.assert_allclose(reading.read(path), np.clip(image, 0, 1), atol=2e-3)
    # What was clipped there is kept apart in the stretched picture.
    shown = reading.read(folder.path / "shown" / f"{planned[0].path}.jpg")
    expected = np.repeat([0, 0.5, 1], [16, 8, 8])[:, None, None]
    np.testing.assert_allclose(shown, np.broadcast_to(expected, (32, 32, 3)), atol=0.01)
