"""The drill notices what a kill could do, and a real one ends well."""

import pathlib

import numpy as np
import pytest

from experiments.drills import kill
from invjax.images import reading
from invjax.runs.folder import RunFolder


@pytest.mark.slow
def test_processes_that_are_killed_end_as_one_that_is_not(tmp_path: pathlib.Path):
    done = kill.Drill(tmp_path, seed=1).run()
    assert done.differences == [] and done.num_kills > 0 and done.num_starts > 1


def test_what_differs_is_noticed(tmp_path: pathlib.Path):
    for name in ("whole", "other"):
        workdir = tmp_path / name
        folder = RunFolder.claim(str(workdir), overwrite=False)
        folder.write_config({}, {}, {"number": 2})
        (workdir / "metrics").mkdir()
        (workdir / "metrics" / "part-00000000.jsonl").write_text(name)
        (workdir / "metrics.jsonl").write_text('{"energy": 1, "seconds": 2}\n' * 2)
        reading.write_png(workdir / "a.png", np.zeros((4, 4, 3), np.float32))
    workdir = tmp_path / "other"

    def found() -> list[str]:
        return kill.differences(kill.contents(workdir), whole)

    whole = kill.contents(tmp_path / "whole")
    (workdir / "metrics.jsonl").write_text('{"energy": 1, "seconds": 3}\n' * 2)
    assert found() == []
    (workdir / "metrics.jsonl").write_text('{"energy": 2, "seconds": 2}\n' * 2)
    assert found() == ["metrics.jsonl differs"]
    (workdir / "metrics.jsonl").write_text('{"energy": 1, "seconds": 2}\n' * 3)
    (workdir / "metrics" / "part-00000000.jsonl").unlink()
    (workdir / ".a.png.left").write_text("")
    reading.write_png(workdir / "a.png", np.ones((4, 4, 3), np.float32))
    assert found() == [
        ".a.png.left should not be there",
        "a.png differs",
        "3 lanes, not 2",
        "metrics/part-00000000.jsonl is missing",
    ]
