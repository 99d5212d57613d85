"""The refusal of chunks that the device cannot hold, with a limit that is made up."""

import pathlib

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from invjax.commands import invert
from invjax.inversion import api, batch, loop, memory
from invjax.inversion.execution import Execution
from invjax.representations import paper
from invjax.runs import capacity, lanes, runner, shards
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.lanes import Lane
from invjax.runs.plans import LoadedPlan
from tests.conftest import micro_representation
from tests.runs import made_up


@pytest.fixture
def run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the main binary on a code of HOG, two lanes wide, as an accelerator does."""
    path = tmp_path / "mine.npy"
    image = jax.random.uniform(jax.random.key(0), (48, 48, 1))
    np.save(path, paper.SHALLOW["hogb"](image))
    execution = Execution(width=2, scan=True)
    monkeypatch.setattr(lanes, "execution", lambda settings: execution)
    values = {
        "workdir": str(tmp_path / "run"),
        "code": str(path),
        "representations": ["hogb"],
        "num_steps": 2,
        "batch_size": 2,
    }

    def call() -> None:
        with flagsaver.flagsaver(**values):
            invert.main()

    return call


def test_a_chunk_that_cannot_fit_is_refused_in_a_line(
    run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "device_limit", lambda: 1000)
    with pytest.raises(Refusal, match="--batch_size=2: 2 lanes of hogb") as caught:
        run()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_so_is_one_that_the_compiler_cannot_place(run, monkeypatch: pytest.MonkeyPatch):
    def compile(*args, **keywords):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nwhile")

    monkeypatch.setattr(memory, "device_limit", lambda: 2**30)
    monkeypatch.setattr(api, "chunk_bytes", compile)
    with pytest.raises(Refusal, match="take more than there is, and") as caught:
        run()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [None, 2**40])
def test_what_fits_runs(
    limit, run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    """The prediction is of the program that then runs, compiled once."""
    compiled: list[object] = []
    scan = batch.scan_steps

    class Noting:
        def lower(self, *args, **options):
            lowered = scan.lower(*args, **options)
            compiled.append(lowered.compile().runtime_executable())
            return lowered

    monkeypatch.setattr(batch, "scan_steps", Noting())
    monkeypatch.setattr(memory, "device_limit", lambda: limit)
    run()
    assert (tmp_path / "run" / "metrics.jsonl").exists()
    assert len(compiled) == (1 if limit is None else 2)
    assert all(each is compiled[0] for each in compiled)


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> Execution:
    execution = Execution(width=16, scan=True)
    for module in (capacity, lanes):
        monkeypatch.setattr(module, "default_execution", lambda: execution)
    return execution


def _example() -> Lane:
    (_, lane) = lanes.plan(
        [made_up.group(micro_representation("relu1"), "made_up")], made_up.settings()
    )
    return lane


def test_the_width_is_what_fits(as_on_gpu, monkeypatch: pytest.MonkeyPatch):
    """Every limit has the largest power of two below it, and few are compiled."""
    asked: list[int] = []

    def chunk_bytes(code, phi, *, execution, **settings):
        asked.append(execution.width)
        return 1000 + 100 * execution.width

    monkeypatch.setattr(api, "chunk_bytes", chunk_bytes)
    settings = made_up.settings(batch_size=None)

    def chosen(limit: int, num_lanes: int = 10_000) -> int:
        asked.clear()
        monkeypatch.setattr(memory, "device_limit", lambda: round(limit / 0.9) + 1)
        return capacity.batch_size([_example()], settings, num_lanes=num_lanes)

    assert chosen(10**6) == 512 and asked == [512]
    assert chosen(1000 + 100 * 64) == 64 and len(asked) < 4
    assert chosen(1000 + 100 * 63) == 32
    assert chosen(1100) == 1
    # No more lanes than there are.
    assert chosen(10**6, num_lanes=5) == 8 and asked == [8]
    with pytest.raises(Refusal, match="made_up: one lane does not fit: JAX may use"):
        chosen(1099)
    given = made_up.settings(batch_size=48)
    assert capacity.batch_size([_example()], given, num_lanes=5) == 48


def test_cpus_run_as_many_lanes_as_they_have_cores():
    settings = made_up.settings(batch_size=None)
    assert capacity.batch_size([_example()], settings, num_lanes=5) == 16


def test_cpus_have_no_limit():
    assert memory.device_limit() is None


def _chunk_bytes(code, phi, *, execution, **settings) -> int:
    """A byte for each lane."""
    return execution.width


def _begun(workdir: pathlib.Path, num_starts: int) -> runner.Run:
    """A run that does not say how many lanes are side by side."""
    settings = made_up.settings(batch_size=None, num_starts=num_starts)
    group = made_up.group(micro_representation("relu1"), "made_up")
    return runner.begin(
        RunFolder.claim(str(workdir), overwrite=False),
        LoadedPlan(lanes.plan([group], settings)),
        settings,
        weights={},
        lanes_per_unit=[4],
    )


def test_a_run_keeps_the_width_it_was_begun_with(
    as_on_gpu, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api, "chunk_bytes", _chunk_bytes)
    widths: list[int] = []
    for limit in (3, 100, 100):
        monkeypatch.setattr(memory, "device_limit", lambda limit=limit: limit)
        workdir = tmp_path / ("run" if len(widths) < 2 else "other")
        run = _begun(workdir, num_starts=2)
        config = run.folder.config()
        assert config is not None and config["settings"]["batch_size"] is None
        assert config["lanes"]["batch_size"] == run.settings.batch_size
        widths.append(lanes.execution(run.settings).width)
    # The second one goes on with the first, on a larger device.
    assert widths == [2, 2, 4]


def test_a_run_goes_on_where_memory_runs_out(
    as_on_gpu,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """With half the width, and later lanes begin with that."""
    stream, tried = loop.stream, []

    def exhausted(keys, plan, *, execution, **keywords):
        tried.append(execution.width)
        if execution.width > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        yield from stream(keys, plan, execution=execution, **keywords)

    monkeypatch.setattr(api, "chunk_bytes", _chunk_bytes)
    monkeypatch.setattr(memory, "device_limit", lambda: 3)
    monkeypatch.setattr(loop, "stream", exhausted)
    monkeypatch.setattr(runner, "_lanes_per_window", lambda run, todo: [2])
    run = _begun(tmp_path / "run", num_starts=2)
    assert run.settings.batch_size == 2
    assert runner.carry_out(run, lambda todo: runner.compute(run, todo), lambda _: None)
    assert len(list(shards.read_records(tmp_path / "run"))) == 4
    assert tried == [2, 1, 1]
    said = capsys.readouterr().out
    assert said.count("out of memory with 2 lanes per device; going on with 1") == 1
