"""Which of several processes this one is, that share the units of a run.

Processes share nothing but the folder of the run: none waits for another, and one that
is killed costs the others nothing. So `jax.distributed` is not used.
"""

import dataclasses
import itertools
from collections.abc import Mapping

from invjax.runs.errors import Refusal

_RANKS = (
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)
_ARRAY = "SLURM_ARRAY_TASK_"
_INDEX = "JOB_COMPLETION_INDEX"


@dataclasses.dataclass(frozen=True)
class Process:
    """One of the processes that share a run.

    Attributes:
      number: its number, from 0; it takes the units whose number modulo `count` this
        is.
      count: how many there are; it may be another one at every start of a run.
      source: what said so, for people; empty where nothing did.
    """

    number: int = 0
    count: int = 1
    source: str = ""


def find(
    environment: Mapping[str, str], number: int | None, count: int | None
) -> Process:
    """The number of this process: from flags, or from what started it.

    Understood are tasks of `srun` (SLURM_PROCID, SLURM_NTASKS), Slurm's job arrays
    (SLURM_ARRAY_TASK_ID, _COUNT, _MIN, _STEP), both of them together, Open MPI
    (OMPI_COMM_WORLD_RANK, _SIZE), and Kubernetes' indexed jobs (JOB_COMPLETION_INDEX),
    which do not say how many there are: --num_processes does.

    Args:
      environment: the variables of this process.
      number: value of --process_id; None where it is not given.
      count: value of --num_processes; None where it is not given.

    Raises:
      Refusal: a number or count is missing, or they contradict each other.

    Examples:
      >>> find({"SLURM_PROCID": "2", "SLURM_NTASKS": "8"}, None, None)
      Process(number=2, count=8, source='SLURM_PROCID')
      >>> find({"SLURM_PROCID": "2", "SLURM_NTASKS": "8"}, 0, 1)
      Process(number=0, count=1, source='--process_id')
    """
    if number is not None:
        if count is None:
            raise Refusal(
                f"--process_id={number}: of how many? Give --num_processes, too"
            )
        if not 0 <= number < count:
            raise Refusal(
                f"--process_id={number}: numbers from 0 to {count - 1} are accepted "
                f"with --num_processes={count}"
            )
        return Process(number, count, "--process_id")
    found = _of_environment(environment, count)
    if count is None:
        return found or Process()
    if count == 1:
        return Process(0, 1, "--num_processes")
    if found is None:
        raise Refusal(
            f"--num_processes={count}: which of them is this? Give --process_id, from "
            f"0 to {count - 1}"
        )
    if found.number >= count:
        raise Refusal(
            f"--num_processes={count}: but {found.source} says that this is number "
            f"{found.number}, counted from 0"
        )
    return dataclasses.replace(found, count=count)


def without_numbers(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables without those that `find` looks at, for a process that is alone."""
    names = {*itertools.chain(*_RANKS), _INDEX}
    return {
        name: value
        for name, value in environment.items()
        if name not in names and not name.startswith(_ARRAY)
    }


def _of_environment(
    environment: Mapping[str, str], count: int | None
) -> Process | None:
    """What the variables say; None where they say nothing of several processes."""
    found = None
    for rank, size in _RANKS:
        if rank in environment and size in environment:
            total = _number(environment, size)
            if total > 1:
                found = Process(_number(environment, rank), total, rank)
                break
    if f"{_ARRAY}ID" in environment:
        of_array = _of_array(environment)
        if found is None:
            return of_array
        return Process(
            of_array.number * found.count + found.number,
            of_array.count * found.count,
            f"{of_array.source} and {found.source}",
        )
    if found is None and _INDEX in environment:
        if count is None:
            raise Refusal(
                f"{_INDEX}={environment[_INDEX]}: of how many? Give --num_processes"
            )
        return Process(_number(environment, _INDEX), count, _INDEX)
    return found


def _of_array(environment: Mapping[str, str]) -> Process:
    """The task of a job array; its numbers begin anywhere, at equal distances."""
    task = _number(environment, f"{_ARRAY}ID")
    first = _number(environment, f"{_ARRAY}MIN", default=0)
    step = max(_number(environment, f"{_ARRAY}STEP", default=1), 1)
    total = _number(environment, f"{_ARRAY}COUNT")
    number, rest = divmod(task - first, step)
    if rest or not 0 <= number < total:
        raise Refusal(
            f"{_ARRAY}ID={task}: of an array of {total} tasks from {first} on, whose "
            "numbers have gaps; give --process_id and --num_processes"
        )
    return Process(number, total, f"{_ARRAY}ID")


def _number(
    environment: Mapping[str, str], name: str, *, default: int | None = None
) -> int:
    word = environment.get(name, "" if default is None else str(default))
    # Other spellings of a number, such as "٣", are none of a scheduler's.
    if not (word.isascii() and word.isdigit()):
        raise Refusal(
            f"{name}={word}: a whole number is accepted; or give --process_id and "
            "--num_processes"
        )
    return int(word)
