"""What the page on large runs says to type is typed on small images, and ends a run.

Blocks run in a shell and in the order of the page. Schedulers and clouds are scripts
here that set what those set; see `typed`.
"""

import os
import pathlib
import re
from collections.abc import Iterator

import pytest

from invjax.runs import processes, shards, units
from tests.docs import typed
from tests.docs.typed import Call

PAGE = typed.DOCS / "large_runs.md"
NUM_WORKERS = 4
SCRIPTS = {
    **typed.SCRIPTS,
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
    typed.prepare(tmp_path, monkeypatch, SCRIPTS)
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


def _called(block: str, workplace: pathlib.Path) -> list[Call]:
    """How a block calls commands, under each environment; sorted by the words."""
    found = [
        call
        for environment in _environments(block)
        for call in typed.calls(block, workplace, environment)
    ]
    return sorted(found, key=lambda call: call.words)


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
            workdir = typed.carry_out(call, monkeypatch, images=None)
            assert workdir is not None
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
