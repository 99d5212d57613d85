"""Which process this is, by flags and by what schedulers say."""

import pytest

from invjax.runs import processes
from invjax.runs.errors import Refusal

ARRAY = {
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_MIN": "3",
    "SLURM_ARRAY_TASK_STEP": "2",
    "SLURM_ARRAY_TASK_COUNT": "4",
}
SRUN = {"SLURM_PROCID": "1", "SLURM_NTASKS": "3"}


@pytest.mark.parametrize(
    ("environment", "number", "count", "expected"),
    [
        ({}, None, None, (0, 1)),
        ({}, 2, 3, (2, 3)),
        ({}, None, 1, (0, 1)),
        (SRUN, None, None, (1, 3)),
        (SRUN, 0, 2, (0, 2)),
        (SRUN, None, 5, (1, 5)),
        # Every batch script of Slurm has these.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None, None, (0, 1)),
        ({"SLURM_PROCID": "0"}, None, None, (0, 1)),
        (ARRAY, None, None, (2, 4)),
        (ARRAY | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None, None, (2, 4)),
        (ARRAY | SRUN, None, None, (7, 12)),
        (
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "9"},
            *(None, None, (3, 9)),
        ),
        (
            {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"},
            *(None, None, (3, 4)),
        ),
        ({"JOB_COMPLETION_INDEX": "3"}, None, 8, (3, 8)),
        ({"JOB_COMPLETION_INDEX": "3"}, 0, 8, (0, 8)),
        # The tasks of an array that failed, started again.
        (
            {
                "SLURM_ARRAY_TASK_ID": "5",
                "SLURM_ARRAY_TASK_MIN": "5",
                "SLURM_ARRAY_TASK_COUNT": "1",
            },
            *(None, None, (0, 1)),
        ),
    ],
)
def test_number_and_count(
    environment: dict[str, str],
    number: int | None,
    count: int | None,
    expected: tuple[int, int],
):
    found = processes.find(environment, number, count)
    assert (found.number, found.count) == expected


@pytest.mark.parametrize(
    ("environment", "number", "count", "words"),
    [
        ({}, 1, None, "--process_id=1: of how many"),
        ({}, 3, 3, "--process_id=3: numbers from 0 to 2"),
        ({}, None, 3, "--num_processes=3: which of them"),
        ({"JOB_COMPLETION_INDEX": "3"}, None, None, "JOB_COMPLETION_INDEX=3: of how"),
        ({"JOB_COMPLETION_INDEX": "8"}, None, 8, "--num_processes=8: but"),
        ({"SLURM_PROCID": "x", "SLURM_NTASKS": "3"}, None, None, "SLURM_PROCID=x"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "-3"}, None, None, "SLURM_NTASKS=-3"),
        ({"SLURM_ARRAY_TASK_ID": "7"}, None, None, "SLURM_ARRAY_TASK_COUNT="),
        # --array=1,3,9 has gaps.
        (ARRAY | {"SLURM_ARRAY_TASK_STEP": "1"}, None, None, "have gaps"),
        (ARRAY | {"SLURM_ARRAY_TASK_ID": "8"}, None, None, "have gaps"),
    ],
)
def test_what_is_missing_is_refused_in_one_line(
    environment: dict[str, str], number: int | None, count: int | None, words: str
):
    with pytest.raises(Refusal, match=words) as caught:
        processes.find(environment, number, count)
    assert "\n" not in str(caught.value)
