"""The command `invjax`: from a checkout, and from a wheel that was installed."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from invjax.commands import dispatcher
from invjax.images import reading
from invjax.runs import shards
from tests.runs import made_up

ROOT = pathlib.Path(__file__).parents[2]
COMMANDS = ROOT / "invjax" / "commands"

SEVERAL = """
import contextlib, io, json, sys

from absl import flags

from invjax.commands import dispatcher

answers = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["invjax", *words]
    said, complained, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        # What the call before has parsed is forgotten.
        flags.FLAGS.unparse_flags()
        try:
            dispatcher.main()
        except SystemExit as ended:
            code = ended.code
    loaded = [name for name in dispatcher.COMMANDS if f"invjax.commands.{name}"
              in sys.modules]
    answers.append([code, said.getvalue(), complained.getvalue(), loaded])
sys.stdout.write(json.dumps(answers))
"""
"""Calls the command several times; each import of invjax takes seconds."""


class Answer(NamedTuple):
    """How a call ended, and which commands were imported by then."""

    code: int
    said: str
    complained: str
    loaded: list[str]


def _called(*calls: Sequence[str]) -> list[Answer]:
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps(calls)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [Answer(*answer) for answer in json.loads(done.stdout)]


def test_every_command_is_listed_with_its_purpose():
    binaries = {
        path.stem: ast.get_docstring(ast.parse(path.read_text()))
        for path in COMMANDS.glob("*.py")
        if "    binary.run(main)" in path.read_text()
    }
    assert dispatcher.COMMANDS == {
        name: (about or "").partition("\n")[0] for name, about in binaries.items()
    }
    for line in dispatcher.usage().splitlines():
        assert len(line) <= 88, line


MISTAKES = {
    ("--num_stepz=3",): (2, "--num_stepz: there is no such flag; did you mean"),
    ("--representation=hog",): (2, "did you mean --representations?"),
    ("--bananas=3",): (2, "--bananas: there is no such flag; see --help"),
    ("--preset=fasst",): (2, "did you mean fast?"),
    ("--representations=hogg",): (1, "did you mean hog?"),
    ("--representations=alexnet/relu33",): (1, "did you mean relu3?"),
    ("--representations=alxnet/relu3",): (1, "did you mean alexnet/relu3?"),
    ("--representations=relu4_3",): (1, "did you mean vgg16/relu4_3?"),
    ("--images=sample:chelse",): (1, "did you mean chelsea?"),
    ("stray",): (2, "unexpected argument 'stray'"),
}


def test_help_and_misspelt_commands():
    usage, none, meant, unknown, version = _called(
        ["--help"], [], ["invret"], ["banana"], ["--version"]
    )
    assert (usage.code, none.code) == (0, 2) and usage.said == none.said
    for name, purpose in dispatcher.COMMANDS.items():
        line = rf"^  {name} +{re.escape(purpose)}$"
        assert re.search(line, usage.said, re.MULTILINE)
    assert meant.code == unknown.code == 2
    assert meant.complained.count("\n") == unknown.complained.count("\n") == 1
    assert meant.complained.startswith("invjax: unknown command 'invret'; there are")
    assert meant.complained.endswith("did you mean invert?\n")
    assert "did you mean" not in unknown.complained
    assert version.code == 0 and re.fullmatch(r"\d+\.\d+\.\d+\S*\n", version.said)
    assert not version.loaded


def test_commands_explain_themselves(tmp_path: pathlib.Path):
    workdir = f"--workdir={tmp_path / 'run'}"
    calls = [[name, "--help"] for name in dispatcher.COMMANDS]
    calls += [["invert", workdir, *given] for given in MISTAKES]
    answers = _called(*calls)
    names = list(dispatcher.COMMANDS)
    for number, name in enumerate(names):
        answer = answers[number]
        assert answer.code == 0 and not answer.complained
        # Only those that were called are imported.
        assert answer.loaded == names[: number + 1]
        assert answer.said.startswith(dispatcher.COMMANDS[name])
        assert f"\n  invjax {name} " in answer.said
        assert "--flagfile=FILE" in answer.said
        assert max(map(len, answer.said.splitlines())) <= 88
        if number == 0:
            # Those that follow have the flags of all before them, too.
            assert answer.said.count("\n") < 75
    mistaken = zip(answers[len(names) :], MISTAKES.items(), strict=True)
    for answer, (given, (code, words)) in mistaken:
        line = answer.complained
        assert answer.code == code and not answer.said, (given, line)
        assert line.startswith("invjax invert: ") and line.count("\n") == 1, line
        assert words in line, line
    assert not (tmp_path / "run").exists()


def _picture(folder: pathlib.Path) -> pathlib.Path:
    name, image = next(iter(made_up.images().items()))
    reading.write_png(folder / f"{name}.png", image)
    return folder / f"{name}.png"


def _run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, **options
    )


def test_a_run_of_the_module_goes_on_with_the_command(tmp_path: pathlib.Path):
    """`python -m experiments.invert` and `invjax invert` are one command."""
    given = tmp_path / "flags.txt"
    given.write_text(
        f"--images={_picture(tmp_path)}\n--representations=hogb\n"
        f"--image_size=32\n--num_steps=2\n--workdir={tmp_path / 'run'}\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    flagfile = f"--flagfile={given}"
    first = _run("-m", "experiments.invert", flagfile, cwd=ROOT, env=environment)
    again = _run("-m", "invjax", "invert", flagfile, cwd=ROOT, env=environment)
    other = _run(
        *("-m", "invjax", "invert", flagfile, "--seed=1"), cwd=ROOT, env=environment
    )
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "finished already" in again.stdout
    assert other.returncode == 1 and other.stderr.startswith("invjax invert: ")
    assert "seed" in other.stderr and other.stderr.count("\n") == 1


def test_an_installed_wheel_inverts(tmp_path: pathlib.Path):
    pytest.importorskip("hatchling")
    pytest.importorskip("pip")
    dist, target = tmp_path / "dist", tmp_path / "target"
    built = _run("-m", "hatchling", "build", "-t", "wheel", "-d", str(dist), cwd=ROOT)
    assert built.returncode == 0, built.stderr
    [wheel] = dist.glob("*.whl")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    installed = _run(
        *("-m", "pip", "install", *options, "--target", str(target), str(wheel))
    )
    assert installed.returncode == 0, installed.stderr
    path = os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    script = str(target / "bin" / "invjax")
    usage = _run(script, "--help", cwd=tmp_path, env=environment)
    assert usage.returncode == 0 and usage.stdout == dispatcher.usage() + "\n"
    _picture(tmp_path)
    words = ["invert", "--workdir=run", "--images=*.png", "--representations=hogb"]
    words += ["--image_size=32", "--num_steps=2"]
    done = _run(script, *words, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    [record] = shards.read_records(tmp_path / "run")
    assert record["representation"] == "hogb" and record["num_steps"] == 2
    assert (tmp_path / "run" / "index.html").stat().st_size > 1000
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["command"].startswith("invjax invert --workdir=run ")
