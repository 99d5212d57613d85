"""The benchmark runs through in small, and compares like with like."""

import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import benchmark
from experiments.benchmarks import networks, precisions, timing
from experiments.benchmarks.stock import StockRepresentation
from experiments.benchmarks.timing import Contestant
from invjax import callables
from invjax.inversion import execution, objective, request
from invjax.inversion.execution import Execution
from invjax.inversion.request import Plan
from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAveragePool,
    LocalResponseNorm,
    MaxPool,
    Network,
    Relu,
    Residual,
)
from invjax.networks.ops import convolution
from invjax.representations.cnn import CnnRepresentation
from invjax.runs.errors import Refusal
from tests.conftest import MICRO, micro_representation

# Every kind of layer, with paddings that differ by side.
_BLOCK = Block(
    "block",
    (
        Conv("expand", 16, kernel=1),
        Relu("relu", ceiling=6.0),
        DepthwiseConv("depthwise", kernel=3, padding=1),
        Conv("project", 8, kernel=1),
    ),
)
ALL_KINDS = Network(
    name="all_kinds",
    input_size=32,
    layers=(
        Conv("conv1", 8, kernel=3, stride=2, padding=(0, 1)),
        Relu("relu1"),
        LocalResponseNorm("norm1", size=5, kappa=1.0, alpha=0.1, beta=0.75),
        MaxPool("pool1", window=3, stride=2, padding=(0, 1)),
        Conv("conv2", 8, kernel=3, padding=1, groups=2),
        Residual("residual", (_BLOCK,), (Conv("short", 8, kernel=1),)),
        DepthwiseConv("depthwise", kernel=3, stride=2, padding=(0, 1)),
        MaxPool("pool2", window=2, stride=2),
        Dense("fc", 10),
        Relu("relu2"),
    ),
)
POOLED = Network(
    name="pooled",
    input_size=32,
    layers=(
        Conv("conv1", 8, kernel=3, stride=2),
        GlobalAveragePool("mean"),
        Dense("fc", 10),
    ),
)
CUTS = [(MICRO, "relu2"), (MICRO, "fc3"), (ALL_KINDS, "relu2"), (POOLED, "fc")]

OURS = ("invjax fast", "invjax adam")
"""Our own sides of a step."""


def _run(workdir: pathlib.Path, **flags) -> list[dict]:
    with flagsaver.flagsaver(workdir=str(workdir), smoke=True, **flags):
        benchmark.main()
    lines = (workdir / "benchmark.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_sides_of_a_step(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Without PyTorch, which is not in the base install."""
    monkeypatch.setattr(precisions, "_without_torch", lambda: "not here")
    monkeypatch.setitem(networks.NETWORKS, "micro", MICRO)
    records = _run(tmp_path, cases=["throughput"], layers=["micro/relu2"])
    assert [record["side"] for record in records] == [*OURS, precisions.STOCK]
    ours, _, other = records
    ratio = other["seconds"] / ours["seconds"]
    assert ours["speed_ratios"][precisions.STOCK] == pytest.approx(ratio, rel=1e-5)
    for record in records:
        assert record["value"] == pytest.approx(1 / record["seconds"], rel=1e-5)
        assert record["seconds_least"] <= record["seconds"] <= record["seconds_most"]
        assert record["bytes_predicted"] > 0
        assert record["versions"]["jax"] == jax.__version__
        assert record["precision"] == "float32"
    assert "| micro/relu2 | 1 | float32 |" in (tmp_path / "table.md").read_text()


def test_steps_with_views_beside_plain_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(networks.NETWORKS, "micro", MICRO)
    layers = ["micro/fc3", "micro/relu2"]
    seeing, plain = _run(tmp_path, cases=["views"], layers=layers)
    assert (seeing["side"], plain["side"]) == (
        "invjax natural",
        "invjax natural without views",
    )
    assert seeing["what"] == plain["what"] == "micro/fc3"
    ratio = plain["seconds"] / seeing["seconds"]
    assert seeing["speed_ratios"][plain["side"]] == pytest.approx(ratio, rel=1e-5)
    # A program of its own: the canvas of views is larger.
    assert seeing["bytes_predicted"] > plain["bytes_predicted"] > 0
    assert "left out: views micro/relu2" in capsys.readouterr().out


@pytest.mark.slow
def test_precisions_and_batches(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(networks.NETWORKS, "micro", MICRO)
    records = _run(
        tmp_path,
        cases=["throughput"],
        layers=["micro/relu2"],
        batches=["1", "3"],
        precisions=["float32", "bfloat16"],
        baselines=["stock"],
    )
    assert len(records) == 3 * 2 * 2  # sides, batches, precisions
    assert {record["batch"] for record in records} == {1, 3}
    assert {record["precision"] for record in records} == {"float32", "bfloat16"}
    assert "throughput: micro/relu2 batch 3 bfloat16" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_sides_with_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "micro", MICRO)
    records = _run(tmp_path, cases=["throughput"], layers=["micro/relu2"])
    sides = [record["side"] for record in records]
    assert sides == [*OURS, precisions.STOCK, "torch eager"]
    assert records[0]["speed_ratios"]["torch eager"] > 0


@pytest.mark.slow
def test_chunks_of_the_batch_where_steps_are_scanned(tmp_path, monkeypatch):
    """As on GPU: one program for all lanes, its loop compiled."""
    monkeypatch.setattr(
        execution, "default_execution", lambda: Execution(width=16, scan=True)
    )
    monkeypatch.setitem(networks.NETWORKS, "micro", MICRO)
    _run(
        tmp_path,
        cases=["throughput", "samples"],
        layers=["micro/relu2"],
        batches=["3"],
        baselines=["stock"],
    )
    compiled = _run(tmp_path, cases=["compile"], layers=["micro/relu2"], overwrite=True)
    assert [record["case"] for record in compiled] == ["compile"]
    assert compiled[0]["bytes_predicted"] > 0


@pytest.mark.parametrize(
    ("precision", "wanted"),
    [("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", None)],
)
def test_precisions_are_asked_for_on_gpu(monkeypatch, precision, wanted):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, kernel = jnp.zeros((8, 8, 3)), jnp.zeros((3, 3, 3, 4))
    convolve = functools.partial(
        convolution.stock_strided_convolution, stride=1, padding=(1, 1)
    )
    with precisions.in_jax(precision):
        program = jax.make_jaxpr(convolve)(x, kernel)
    (found,) = (
        equation.params["precision"]
        for equation in program.eqns
        if equation.primitive.name == "conv_general_dilated"
    )
    assert found is None if wanted is None else {p.name for p in found} == {wanted}


def test_ops(tmp_path: pathlib.Path):
    records = _run(tmp_path, cases=["ops"])
    assert [record["side"] for record in records] == ["stock", "space to depth"]
    # On CPU the strided convolution is the stock one.
    assert [record["used"] for record in records] == [True, False]
    assert records[0]["speed_ratios"] == {"stock": 1.0}


@pytest.mark.slow
def test_whole_runs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(networks.NETWORKS, "micro", MICRO)
    records = _run(tmp_path, cases=["compile", "samples"], layers=["micro/relu2"])
    first, whole = records
    assert first["case"] == "compile" and first["value"] > 0
    assert first["bytes_predicted"] > 0
    assert whole["steps"] == 5 and whole["value"] > 0


@pytest.mark.slow
def test_shallow(tmp_path: pathlib.Path):
    pytest.importorskip("skimage", reason="the pretrained extra has the photographs")
    records = _run(tmp_path, cases=["shallow"])
    by_side = {record["side"]: record for record in records}
    peer = "scikit-image hog, forward only"
    assert by_side.keys() == {"hog (VLFeat)", peer}
    assert by_side[peer]["speed_ratios"] == {peer: 1.0}


def test_missing_weights_leave_a_case_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INVJAX_WEIGHTS", str(tmp_path / "none"))
    with flagsaver.flagsaver(
        workdir=str(tmp_path / "run"),
        smoke=True,
        cases=["time_to_energy"],
        layers=["caffenet/relu3"],
    ):
        benchmark.main()
    assert "left out: time_to_energy caffenet/relu3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "value", "accepted"),
    [
        ("cases", ["speed"], "throughput"),
        ("layers", ["alexnet/relu9"], "relu5"),
        ("layers", ["resnet19/stem"], "resnet50"),
        ("batches", ["0"], "from 1 up"),
        ("precisions", ["float16"], "bfloat16"),
        ("precisions", ["tf32"], "GPUs"),
        ("baselines", ["tensorflow"], "eager"),
    ],
)
def test_bad_flags_are_refused(tmp_path: pathlib.Path, flag, value, accepted):
    with flagsaver.flagsaver(workdir=str(tmp_path / "run"), **{flag: value}):
        with pytest.raises(Refusal, match=f"--{flag}.*{accepted}"):
            benchmark.main()
    assert not (tmp_path / "run").exists()


def test_a_benchmark_is_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "micro", MICRO)
    flags = {"cases": ["samples"], "layers": ["micro/relu1"]}
    _run(tmp_path, **flags)
    with pytest.raises(Refusal, match="--overwrite"):
        _run(tmp_path, **flags)


def test_turns(capsys):
    """One call each round, in order; a side that cannot run is left out."""
    calls = []

    def fail() -> None:
        raise RuntimeError("no\nmemory")

    timings = timing.take_turns(
        [
            Contestant("a", lambda: calls.append("a")),
            Contestant("broken", fail),
            Contestant("b", lambda: calls.append("b")),
        ],
        rounds=3,
    )
    assert calls == ["a", "b"] + 3 * ["a", "b"]
    assert timings.keys() == {"a", "b"}
    assert timings["a"].rounds == 3
    assert "left out: broken (no memory)" in capsys.readouterr().out


@pytest.mark.parametrize(("network", "layer"), CUTS)
def test_stock_network_equals_ours(network, layer):
    phi = networks.random(network, layer)
    image = np.random.default_rng(0).random(phi.image_shape, np.float32)

    def value_and_gradient(function):
        def norm(image):
            return jnp.sum(function(image) ** 2)

        return jax.jit(jax.value_and_grad(norm))(image)

    found = value_and_gradient(StockRepresentation(phi))
    for one, other in zip(found, value_and_gradient(phi), strict=True):
        scale = np.max(np.abs(other))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(("network", "layer"), CUTS)
def test_torch_minimises_the_same_energy(network, layer):
    """Energies and gradients of two lanes with weights of their own."""
    pytest.importorskip("torch", reason="needs PyTorch")

    from experiments.benchmarks import torch_descent

    phi = networks.random(network, layer)
    plan, z = _two_lanes(phi)
    problems = plan.settings.problem
    energy = torch_descent.prepare(phi, plan.shared, problems, "float32", "torch eager")
    descent = torch_descent.Descent(energy, z, learning_rate=0.0)
    found = descent.step(1.0).cpu().numpy()
    gradient = _gradient(descent)
    for lane in range(2):
        problem = jax.tree.map(lambda leaf, n=lane: jnp.asarray(leaf[n]), problems)
        (wanted, _), slope = jax.value_and_grad(objective.energy, has_aux=True)(
            jnp.asarray(z[lane]), phi, plan.shared, problem
        )
        np.testing.assert_allclose(found[lane], wanted, rtol=1e-4)
        scale = np.max(np.abs(slope))
        np.testing.assert_allclose(gradient[lane], slope, atol=1e-4 * scale, rtol=1e-3)


def test_torch_descends_as_adam_does():
    """Three steps against the formula, with a schedule."""
    pytest.importorskip("torch", reason="needs PyTorch")

    from experiments.benchmarks import torch_descent

    phi = micro_representation("relu2")
    plan, z = _two_lanes(phi)
    energy = torch_descent.prepare(
        phi, plan.shared, plan.settings.problem, "float32", "torch eager"
    )
    descent = torch_descent.Descent(energy, z, learning_rate=8.0)
    first, second, wanted = np.zeros_like(z), np.zeros_like(z), np.array(z)
    for number, rate_scale in enumerate((1.0, 0.5, 0.25), 1):
        descent.step(rate_scale)
        gradient = _gradient(descent)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = (first / (1 - 0.9**number)) / (
            np.sqrt(second / (1 - 0.999**number)) + 1e-8
        )
        wanted = wanted - 8 * rate_scale * step
    found = descent.z.detach().permute(0, 2, 3, 1).cpu().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_time_to_energy(tmp_path, monkeypatch):
    pytest.importorskip("skimage", reason="the pretrained extra has the photographs")
    pytest.importorskip("torch", reason="needs PyTorch")
    monkeypatch.setattr(
        benchmark.invjax,
        "representation",
        lambda name, **_: networks.random(MICRO, "relu2"),
    )
    records = _run(tmp_path, cases=["time_to_energy"], baselines=["eager"])
    ours = records[0]
    assert ours["steps"] == 5 and ours["value"] > 0
    for record in records[1:]:
        # Sides that do not get to the energy are left out.
        assert record["energy"] <= ours["energy"] and record["steps"] >= 5


def _gradient(descent) -> np.ndarray:
    return descent.z.grad.permute(0, 2, 3, 1).cpu().numpy()


def _two_lanes(phi: CnnRepresentation) -> tuple[Plan, np.ndarray]:
    random = np.random.default_rng(2)
    images = random.random((2, *phi.image_shape), np.float32)
    codes = np.stack([callables.encode(phi, image) for image in images])
    plan = request.prepare(
        codes,
        phi,
        2,
        tv_weight=np.array([0.5, 50.0]),
        alpha_weight=np.array([1e8, 1e9]),
    )
    return plan, (40 * random.standard_normal(images.shape)).astype(np.float32)
