"""Types what a page of the documentation says to type.

Shell blocks run in a shell, where `python`, `invjax` and what would install or schedule
something are scripts that write down how they were called. Then `invert` and `sample`
run in this process, in small: on one photograph of 32 px, all of one size, so that
little is compiled. Their flags, images and representations must exist, and so must
those of other commands, which have tests of their own.
"""

import contextlib
import importlib
import json
import os
import pathlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import invjax
from invjax.commands import dispatcher, invert, sample
from invjax.images import pixels, sources
from invjax.runs import classifiers, identification, loading, processes
from tests.runs import made_up

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
STEPS = "--num_steps=1"
SMALL = ("--representations=hogb", "--image_size=32", STEPS)
RUN = {"invert": invert, "sample": sample}
WRITE_DOWN = """#!/usr/bin/env -S python3 -S
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    called = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
    file.write(json.dumps([called, dict(os.environ)]) + "\\n")
"""
SCRIPTS = {"python": WRITE_DOWN, "invjax": WRITE_DOWN}
SCRIPTS |= {name: "#!/bin/sh\n" for name in ("pip", "uv")}
MY_MODELS = """from flax import nnx

class ResNet(nnx.Module):
    def __init__(self):
        self.layer3 = nnx.Conv(3, 2, (3, 3), strides=2, rngs=nnx.Rngs(0))

    def __call__(self, image):
        return self.layer3(image)

resnet = ResNet
"""


class Call(NamedTuple):
    """How a block calls a program: its words, and the environment of the call."""

    words: list[str]
    around: Mapping[str, str]


def blocks(page: pathlib.Path) -> list[tuple[str, str]]:
    """Language and text of the blocks of code of a page, in order."""
    found = re.findall(r"^```(\S*)[^\n]*\n(.*?)^```", page.read_text(), re.S | re.M)
    return [(language, text) for language, text in found]


def links(page: pathlib.Path) -> list[str]:
    """Relative paths that a page links to or shows, without their anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    paths = [target.partition("#")[0] for target in found if "://" not in target]
    return [path for path in paths if path]


def prepare(
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    scripts: Mapping[str, str] = SCRIPTS,
) -> None:
    """Makes a folder with what pages take for granted, and scripts, and goes there.

    Pages take photographs for granted, a recorded code and a network.
    """
    np.save(folder / "relu3.npy", np.ones((13, 13, 384), np.float32))
    (folder / "my_models.py").write_text(MY_MODELS)
    (folder / "photos").mkdir()
    for name, image in made_up.images().items():
        pixels.to_pillow(image).save(folder / "photos" / f"{name}.jpg")
    (folder / "bin").mkdir()
    for name, script in scripts.items():
        (folder / "bin" / name).write_text(script)
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(loading, "load_lpips", lambda groups, settings: None)
    monkeypatch.setattr(classifiers, "_load", lambda name, settings: None)
    none = classmethod(lambda cls, settings: None)
    monkeypatch.setattr(identification.Identifier, "of", none)


def calls(
    block: str, folder: pathlib.Path, environment: Mapping[str, str] | None = None
) -> list[Call]:
    """What a shell block calls, in order."""
    written = folder / "calls"
    written.write_text("")
    around = environment or processes.without_numbers(os.environ)
    subprocess.run(
        ["sh", "-e", "-c", block],
        env={**around, "CALLS": str(written)},
        cwd=folder,
        check=True,
    )
    return [Call(*json.loads(line)) for line in written.read_text().splitlines()]


def carry_out(
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    *,
    images: str | None = "photos/one.jpg",
) -> pathlib.Path | None:
    """Runs a call in small, or checks it; returns the --workdir of what was run.

    Args:
      call: the call.
      monkeypatch: sets its environment.
      images: the images that are taken in place of those given; None for those.
    """
    name, given = command(call.words)
    if name not in RUN:
        check(name, given)
        return None
    check(name, given)
    is_recorded = any(word.startswith("--code=") for word in given)
    is_in_file = any(word.startswith("--flagfile=") for word in given)
    if images is not None and not is_recorded and not is_in_file:
        given = [word for word in given if not word.startswith("--images=")]
        given += [f"--images={images}"]
    given = [*given, STEPS] if is_recorded else [*given, *SMALL]
    given += ["--smoke"] if name == "sample" else []
    with monkeypatch.context() as patch, flagsaver.flagsaver():
        for variable in set(call.around) - set(os.environ):
            patch.setenv(variable, call.around[variable])
        flags.FLAGS([name, *given])
        RUN[name].main()
        workdir = flags.FLAGS["workdir"].value
        return pathlib.Path(workdir) if workdir else None


def command(words: list[str]) -> tuple[str, list[str]]:
    """Name and flags of a command: invjax NAME, or python -m experiments.NAME."""
    program, first, *rest = words
    if program == "invjax":
        assert first in dispatcher.COMMANDS, words
        return first, rest
    assert program == "python" and first == "-m", words
    package, _, name = rest[0].rpartition(".")
    if package in ("experiments", "weights"):
        assert (ROOT / package / f"{name}.py").exists(), words
        return name, rest[1:]
    # Such as `python -m hatchling`.
    assert package == "" and name in ("hatchling", "pytest"), words
    return rest[0], []


def check(name: str, given: list[str]) -> None:
    """Fails where a command is given a flag, a code's name or images that are not."""
    places = [ROOT / "invjax" / "commands", ROOT / "experiments"]
    files = [place / f"{name}.py" for place in places]
    files += [places[0] / f"{shared}.py" for shared in ("binary", "shared_flags")]
    files.append(places[1] / "flags.py")
    source = "".join(file.read_text() for file in files if file.exists())
    defined = re.findall(r'DEFINE\w*\(\s*(?:[\w.]+,\s*)?"(\w+)"', source)
    for word in given:
        flag = word.partition("=")[0].removeprefix("--").removeprefix("no")
        assert flag in {*defined, "flagfile"}, (name, word)
    known = {row.name for row in invjax.list_representations()}
    for word in given:
        flag, _, value = word.partition("=")
        if flag == "--representations":
            assert set(value.replace("+", ",").split(",")) <= known, word
        if flag in ("--images", "--identify_among"):
            assert sources.find(value), word


def run(page: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs all blocks of a page, in order; returns the names that Python defined."""
    namespace: dict[str, Any] = {}
    for language, text in blocks(page):
        if language == "python":
            with as_users_have_it():
                exec(compile(text, str(page), "exec"), namespace)
        elif language == "sh":
            for call in calls(text, pathlib.Path.cwd()):
                carry_out(call, monkeypatch)
    return namespace


@contextlib.contextmanager
def as_users_have_it() -> Iterator[None]:
    """JAX as it is outside of these tests, which refuse to promote ranks."""
    importlib.invalidate_caches()
    with jax.numpy_rank_promotion("allow"):
        yield
