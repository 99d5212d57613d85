"""What only GPUs and TPUs run, made to run on CPU.

There the steps of a chunk are one compiled loop that takes its states over, operations
have other forms, and a chunk's numbers cross to the device and back once.
"""

import threading

import jax
import numpy as np
import pytest

import invjax
from experiments.benchmarks import networks
from invjax.inversion import batch, dead_starts, execution, loop, request
from invjax.inversion.execution import Execution
from invjax.inversion.request import Plan
from invjax.networks.layers import (
    Conv,
    Dense,
    DepthwiseConv,
    LocalResponseNorm,
    MaxPool,
    Network,
    Relu,
)
from tests.conftest import micro_representation

SHAPE = (32, 32, 3)
SCAN = Execution(width=3, scan=True)

# Every operation that has a form of its own on GPU.
FORMS = Network(
    name="forms",
    input_size=32,
    layers=(
        Conv("conv1", 8, kernel=7, stride=4, padding=2),
        Relu("relu1"),
        LocalResponseNorm("norm1", size=5, kappa=1.0, alpha=0.1, beta=0.75),
        MaxPool("pool1", window=3, stride=2, padding=(0, 1)),
        DepthwiseConv("depthwise", kernel=3, padding=1),
        Dense("fc", 10),
    ),
)


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch):
    """invjax takes the device for a GPU; programs of other tests are not reused."""
    jax.clear_caches()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    yield
    jax.clear_caches()


def _plan(num_lanes: int, **settings) -> tuple[jax.Array, Plan]:
    phi = micro_representation("relu2")
    code = np.asarray(phi(jax.random.uniform(jax.random.key(9), SHAPE)))
    codes = np.stack([code * (1 + 0.1 * n) for n in range(num_lanes)])
    keys = jax.random.split(jax.random.key(0), num_lanes)
    return keys, request.prepare(codes, phi, num_lanes, **settings)


def test_the_default_on_a_gpu_finds_what_a_cpu_finds(as_on_gpu, monkeypatch):
    phi = networks.random(FORMS, "fc")
    codes = networks.random_codes(phi, 3)
    keys = jax.random.split(jax.random.key(0), 3)
    found = invjax.invert_batch(keys, codes, phi, num_steps=12)
    assert execution.default_execution() == Execution(width=16, scan=True)
    text = str(jax.make_jaxpr(phi)(jax.numpy.zeros(SHAPE)))
    assert "window_strides=(4, 4)" not in text
    assert "feature_group_count=8" in text
    jax.clear_caches()
    monkeypatch.undo()
    expected = invjax.invert_batch(keys, codes, phi, num_steps=12)
    assert "window_strides=(4, 4)" in str(jax.make_jaxpr(phi)(jax.numpy.zeros(SHAPE)))
    # Twelve steps of a descent carry the rounding of other forms along.
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-3)
    np.testing.assert_allclose(found.image, expected.image, atol=2e-3)


def test_a_compiled_loop_takes_its_states_over():
    keys, plan = _plan(3, num_steps=7)
    part = plan.on_device()
    states = dead_starts.begin(keys, part)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(states.solver))
    (steps,) = loop.compile_phases(keys, part, states, scan=True)
    (program,) = steps.by_num_steps.values()
    memory = program.memory_analysis()
    assert memory is not None and memory.alias_size_in_bytes >= size
    moved, _ = steps(states, part.phases[0].pace)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(states.solver))
    assert moved.num_steps.tolist() == [7, 7, 7]


@pytest.mark.parametrize("settings", [{}, {"preset": "ijcv2016", "jitter": 2}])
def test_nothing_crosses_to_the_device_between_steps(settings, monkeypatch):
    """120 steps in three calls: their paces go there before the first of a phase."""
    keys, plan = _plan(3, num_steps=120, **settings)
    part = plan.on_device()
    states = dead_starts.begin(keys, part)
    steps = loop.compile_phases(keys, part, states, scan=True)
    called: list[str] = []

    def note(name):
        function = getattr(jax, name)

        def noted(*arguments):
            called.append(name)
            return function(*arguments)

        monkeypatch.setattr(jax, name, noted)

    note("device_put")
    note("device_get")
    with jax.transfer_guard("disallow"):
        descent = loop._descend(
            keys,
            part,
            steps,
            states,
            history_every=10,
            scan=True,
            is_over=threading.Event(),
        )
    assert called == ["device_put"] * len(plan.phases) + ["device_get"]
    assert np.all(np.isfinite(descent.history[:, :-1]))


def test_the_next_chunk_descends_while_one_is_finished(monkeypatch):
    keys, plan = _plan(9, num_steps=5)
    began = [threading.Event() for _ in range(3)]
    numbers = iter(range(3))
    descend, finish = loop._descend, loop._finish
    waited: list[bool] = []

    def noted_descend(*args, **options):
        began[next(numbers)].set()
        return descend(*args, **options)

    def noted_finish(*args):
        # Before this chunk is fetched, and while the caller still has nothing of it.
        following = min(len(waited) + 1, 2)
        waited.append(began[following].wait(timeout=60))
        return finish(*args)

    monkeypatch.setattr(loop, "_descend", noted_descend)
    monkeypatch.setattr(loop, "_finish", noted_finish)
    stream = loop.stream(keys, plan, execution=SCAN, history_every=10)
    assert [lanes.tolist() for lanes, _ in stream] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert waited == [True, True, True]


def test_only_lanes_that_have_ended_leave_the_device(monkeypatch):
    """Lane 0 takes all its steps; the others converge and give their slots away."""
    take, sizes = batch.take_lanes, []

    def noted(tree, lanes):
        sizes.append(len(lanes))
        return take(tree, lanes)

    monkeypatch.setattr(batch, "take_lanes", noted)
    tolerance = np.array([0.0, *[4.0] * 5], np.float32)
    keys, plan = _plan(6, num_steps=100, tolerance=tolerance)
    ended = [
        lanes.tolist()
        for lanes, _ in invjax.inversion.slots.stream(
            keys, plan, execution=Execution(width=4, scan=True), history_every=10
        )
    ]
    assert sorted(sum(ended, [])) == list(range(6))
    # Three lanes converge together, and four rows are fetched for them.
    assert len(ended[0]) == 3
    assert sizes == [1 << (len(lanes) - 1).bit_length() for lanes in ended]


@pytest.mark.parametrize(
    ("backend", "level"),
    [("cpu", {"xla_backend_optimization_level": 0}), ("gpu", None)],
)
def test_programs_that_run_once_are_optimised_off_the_cpu(monkeypatch, backend, level):
    called = []

    def jit(function, compiler_options=None, **options):
        assert options == {"static_argnames": "n"}

        def call(x, n):
            called.append(compiler_options)
            return function(x, n)

        return call

    monkeypatch.setattr(jax, "jit", jit)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert execution.jit_unoptimised(lambda x, n: x + n, static_argnames="n")(1, 2) == 3
    assert called == [level]
