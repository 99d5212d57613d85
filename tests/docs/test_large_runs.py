"""What the page on large runs says to type is typed on small images, and ends a run.

Blocks run in a shell and in the order of the page. Schedulers and clouds are scripts
here that set what those set, and `python` writes down how it was called; then the same
commands run in this process, with another representation and fewer steps.
"""

import json
import os
import pathlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from absl import flags
from absl.testing import flagsaver

from invjax.commands import invert
from invjax.images import pixels
from invjax.runs import loading, processes, shards, units
from tests.runs import made_up

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "large_runs.md"
SMALL = ("--representations=hogb", "--image_size=32", "--num_steps=1")
MAINS = {"experiments.invert": invert.main}
NUM_WORKERS = 4
SCRIPTS = {
    "python": """#!/usr/bin/env -S python3 -S
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([sys.argv[1:], dict(os.environ)]) + "\\n")
""",
    "srun": '#!/bin/sh\nSLURM_PROCID=0 SLURM_NTASKS=1 exec "$@"\n',
    "gcloud": f"""#!/bin/sh
for argument; do
    case $argument in
    --command=*) command=${{argument#--command=}} ;;
    esac
done
for WORKER in $(seq 0 {NUM_WORKERS - 1}); do
    export WORKER
    sh -e -c "$command"
done
""",
    "curl": "#!/bin/sh\necho $WORKER\n",
}


@pytest.fixture
def workplace(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder with photographs, and scripts in place of schedulers on the path."""
    (tmp_path / "photos").mkdir()
    for name, image in made_up.images().items():
        pixels.to_pillow(image).save(tmp_path / "photos" / f"{name}.jpg")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in SCRIPTS.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_lpips", lambda groups, settings: None)
    # Several processes find something to do.
    monkeypatch.setattr(units, "MOST_ON_CPU", 2)
    return tmp_path


def _environments(block: str) -> Iterator[dict[str, str]]:
    """What a scheduler sets for every start of a block."""
    found = re.search(r"^#SBATCH --array=(\d+)-(\d+)$", block, re.MULTILINE)
    alone = processes.without_numbers(os.environ)
    if found is None:
        yield alone
        return
    first, last = map(int, found.groups())
    for number in range(first, last + 1):
        yield alone | {
            "SLURM_ARRAY_TASK_ID": str(number),
            "SLURM_ARRAY_TASK_COUNT": str(last - first + 1),
            "SLURM_ARRAY_TASK_MIN": str(first),
            "SLURM_ARRAY_TASK_MAX": str(last),
            "SLURM_ARRAY_TASK_STEP": "1",
        }


def _called(block: str, workplace: pathlib.Path) -> list[tuple[list[str], Any]]:
    """How a block calls Python: arguments and environment of each call, sorted."""
    calls = workplace / "calls"
    calls.write_text("")
    for environment in _environments(block):
        subprocess.run(
            ["sh", "-e", "-c", block],
            env=environment | {"CALLS": str(calls)},
            check=True,
        )
    found = [json.loads(line) for line in calls.read_text().splitlines()]
    return sorted(((argv, around) for argv, around in found), key=lambda call: call[0])


def _run(
    argv: list[str], around: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> pathlib.Path:
    """Runs `python -m` of one of our binaries here; returns its --workdir."""
    option, module, *given = argv
    assert option == "-m"
    with monkeypatch.context() as patch, flagsaver.flagsaver():
        for name in set(around) - set(os.environ):
            patch.setenv(name, around[name])
        flags.FLAGS([module, *given, *SMALL])
        MAINS[module]()
        return pathlib.Path(str(flags.FLAGS["workdir"].value))


def test_the_page_on_large_runs(
    workplace: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    namespace: dict = {}
    num_processes = {}
    text = PAGE.read_text().replace("gs://bucket/", "")
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL):
        if language == "python":
            exec(compile(block, str(PAGE), "exec"), namespace)
            continue
        calls = _called(block, workplace)
        for number, call in enumerate(calls):
            workdir = _run(*call, monkeypatch)
            is_last = number == len(calls) - 1
            assert (workdir / shards.WHOLE).exists() == is_last
            num_processes[workdir.name] = len(calls)
    assert num_processes == {
        "laptop": 1,
        "gpu": 1,
        "eight": 1,
        "shared": 2,
        "array": 4,
        "slice": NUM_WORKERS,
    }
    assert len(namespace["errors"]) == 8
    for name in ("gpu", "array", "slice"):
        places = [
            (record["image"], record["start"])
            for record in shards.read_records(workplace / "runs" / name)
        ]
        assert len(places) == len(set(places)) == 16
