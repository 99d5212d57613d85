"""Runs in bfloat16: targets and errors are those of the float32 network.

The descent alone computes in bfloat16, whatever method samples or maximises.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from invjax import callables
from invjax.commands import maximise, studies
from invjax.images import pixels, reading
from invjax.metrics import errors
from invjax.representations.cnn import CnnRepresentation
from invjax.runs import lanes, loading, records, runner
from invjax.runs.folder import RunFolder
from invjax.runs.lanes import Group
from invjax.runs.plans import LoadedPlan
from invjax.runs.records import Record
from invjax.runs.sets import methods
from invjax.runs.sets.options import Options
from invjax.runs.settings import Request, Settings
from invjax.sensitivity import neurons
from tests.conftest import micro_representation
from tests.runs import made_up


@pytest.fixture
def settings(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings in bfloat16; representations are layers of the micro network."""

    def load(name: str, settings: Settings) -> CnnRepresentation:
        phi = micro_representation(name.partition("/")[2])
        return dataclasses.replace(phi, compute_dtype=settings.compute_dtype)

    monkeypatch.setattr(loading, "load_representation", load)
    for name, image in made_up.images().items():
        reading.write_png(tmp_path / "mine" / f"{name}.png", image)
    return made_up.settings(
        images=str(tmp_path / "mine"),
        representations=("micro/relu2",),
        compute_dtype="bfloat16",
        num_starts=2,
    )


@pytest.fixture
def group(settings: Settings) -> Group:
    """The group of the run, whose targets are those of the float32 network."""
    (group,) = loading.load_groups(settings)
    exact, rounded = _codes(group, group.targets[0].original)
    np.testing.assert_array_equal(group.targets[0].code, exact)
    assert np.any(exact != rounded)
    return group


def _codes(group: Group, image: Any) -> tuple[np.ndarray, np.ndarray]:
    """The code of an image in float32, and in bfloat16 as the descent has it."""
    assert isinstance(group.phi, CnnRepresentation)
    assert group.phi.compute_dtype == "bfloat16"
    exact = dataclasses.replace(group.phi, compute_dtype="float32")
    return (
        np.asarray(callables.encode(exact, image)),
        np.asarray(callables.encode(group.phi, image)),
    )


def _check(group: Group, record: Record, image: np.ndarray) -> None:
    """The errors of a record are those of the float32 code, not of the other one."""
    (target,) = (t for t in group.targets if t.name == record.image)
    exact, rounded = (
        float(errors.relative_error(code, target.code)) for code in _codes(group, image)
    )
    assert record.relative_error == pytest.approx(exact, rel=1e-6)
    assert abs(rounded - exact) > 1e-5 * exact
    (code, _) = _codes(group, image)
    normalised = float(errors.normalised_error(code, target.code, group.code_scale))
    assert record.normalised_error == pytest.approx(normalised, rel=1e-6)


def _options(method: str) -> Options:
    return Options(
        method=method,
        num_samples=4,
        num_pairs=4,
        target_error=None,
        error_band=0.1,
        temperature=1e-6,
        num_chains=2,
        num_warmup=40,
        thin=1,
        num_leaps=1,
        set_size=3,
        repulsion=0.03,
        geometry=False,
    )


def test_an_inversion(settings: Settings, group: Group):
    planned = lanes.plan([group], settings)
    found = [outcome for chunk in runner.invert(planned, settings) for outcome in chunk]
    for outcome in found:
        _check(group, outcome.record, outcome.image)
        exact, _ = _codes(group, outcome.image)
        np.testing.assert_array_equal(outcome.code, exact)
    # The descent is another than in float32.
    exactly = group._replace(phi=lanes.in_float32(group.phi))
    lane = planned[0]._replace(group=exactly)
    ((outcome,),) = runner.invert([lane], settings)
    assert np.any(outcome.image != found[0].image)


@pytest.mark.parametrize(
    "method", ["repulsion", pytest.param("mala", marks=pytest.mark.slow)]
)
def test_samples(method: str, settings: Settings, group: Group, tmp_path: pathlib.Path):
    settings = dataclasses.replace(settings, save_arrays=True)
    folder = RunFolder.claim(str(tmp_path / "run"), overwrite=False)
    planned = lanes.plan([group._replace(targets=group.targets[:1])], settings)
    plan, options = LoadedPlan(planned), _options(method)
    run = runner.begin(
        folder,
        plan,
        settings,
        weights={},
        lanes_per_unit=methods.lanes_per_unit(plan, options),
    )
    methods.compute(run, run.to_do(), options, None)
    assert run.to_do() == []
    (found,) = methods.sets(run, planned, run.shards())
    num_samples = 2 if method == "repulsion" else 4
    assert len(found.images) == len(found.records) == num_samples
    for record, image, path in zip(
        found.records, found.images, found.paths, strict=True
    ):
        _check(group, record, image)
        assert record.dead_start is False and record.num_revivals == 0
        arrays = folder.path / path.replace("samples/", "arrays/").replace("png", "npz")
        exact, _ = _codes(group, image)
        np.testing.assert_array_equal(np.load(arrays)["code"], exact)


def test_maximisation(settings: Settings, tmp_path: pathlib.Path):
    settings = dataclasses.replace(
        settings,
        representations=("micro/conv2",),
        preset="ijcv2016",
        num_starts=1,
        save_arrays=True,
    )
    request = Request(settings, str(tmp_path / "run"), dry_run=False, overwrite=False)
    findings = studies.run(maximise.STUDY, request, options={"units": ("0", "7")})
    assert findings is not None
    (group,) = findings.bench.groups
    layer = findings.bench.tools.layers["micro/conv2"]
    photographs = [reading.read(path) for path in sorted((tmp_path / "mine").iterdir())]
    for outcome in findings.shown:
        record, channel = outcome.record, outcome.record.value("channel")
        largest = max(
            _codes(group, photograph)[0][..., channel].max()
            for photograph in photographs
        )
        assert layer.peaks[channel].activation == pytest.approx(largest, rel=1e-6)
        assert record.value("photographs_largest") == pytest.approx(largest, rel=1e-6)
        assert outcome.image is not None
        exact, rounded = _codes(group, outcome.image)
        place = neurons.place(exact.shape, channel)
        arrays = tmp_path / "run" / "arrays" / f"{outcome.path}.npz"
        np.testing.assert_array_equal(np.load(arrays)["code"], exact)
        assert record.value("activation") == _as_written(exact[place])
        assert rounded[place] != exact[place]
        written = pixels.quantise(outcome.image).astype(np.float32) / np.float32(255)
        exact, _ = _codes(group, written)
        assert record.value("activation_written") == _as_written(exact[place])


def _as_written(value: np.float32) -> float:
    """A number as records have it."""
    return records.strict({"value": float(value)})["value"]
