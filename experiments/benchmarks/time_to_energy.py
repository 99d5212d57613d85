"""How long each side takes to reach one energy, real weights, one photograph.

The energy is what preset `fast` reaches in a given number of steps. The baseline is
plain Adam on the pixels in PyTorch, rate 8 with a cosine to zero, from the same start;
noise of the paper's norm suits it less. Its budgets grow by the square root of two from
a quarter of our steps until it gets there, each a run of its own with a cosine as long.
Then both runs are timed, whole, in turns.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from experiments.benchmarks import precisions, torch_descent
from experiments.benchmarks.report import SECONDS, Report, Subject
from experiments.benchmarks.timing import Contestant, print_left_out
from experiments.benchmarks.torch_descent import Descent
from invjax import callables, identity
from invjax.images import pixels, sources
from invjax.inversion import batch, loop, presets, request
from invjax.inversion.execution import default_execution
from invjax.inversion.request import Plan
from invjax.inversion.result import Result
from invjax.representations.cnn import CnnRepresentation

_PHOTOGRAPH = "chelsea"
_MOST_TIMES = 64


def run(
    report: Report,
    phi: CnnRepresentation,
    *,
    precision: str,
    baselines: Sequence[str],
    num_steps: int,
    rounds: int,
    is_short: bool,
) -> None:
    """Seconds and steps to the energy of `num_steps` steps of `fast`.

    Args:
      is_short: give the baseline no more than twice the steps.
    """
    photograph = pixels.centre_crop(sources.sample(_PHOTOGRAPH), phi.image_shape[0])
    with precisions.in_jax(precision):
        code = np.asarray(callables.encode(phi, photograph))
    plan = request.prepare(code[None], phi, 1, num_steps=num_steps)
    key = identity.lane_key(0, identity.image_id(photograph), 0)
    keys = jax.numpy.stack([key])
    execution = dataclasses.replace(default_execution(), width=1)

    def ours() -> Result:
        with precisions.in_jax(precision):
            return loop.run(keys, plan, execution=execution, history_every=10)

    def call() -> None:
        jax.block_until_ready(ours())

    wanted = float(ours().energy[0])
    notes = {"steps": num_steps, "energy": wanted, "photograph": _PHOTOGRAPH}
    sides = [Contestant("invjax", call, notes=notes)]
    start = np.asarray(batch.start(plan.phases[0].program, keys, plan.start_scale).last)
    most = num_steps * (2 if is_short else _MOST_TIMES)
    first = max(num_steps // 4, 1)
    torch_sides = [side for side in baselines if side != precisions.STOCK]
    for side in torch_sides:
        descend = _descent(phi, plan, start, precision, side)
        reached = _reach(descend, wanted, first, most)
        if reached is None:
            print_left_out(side, f"not at energy {wanted:.4g} in {most} steps")
            continue
        # Where one form got there, the next need not try less.
        first, energy = reached
        notes = {**notes, "steps": first, "energy": energy}
        repeat = functools.partial(_discard, descend, first)
        sides.append(Contestant(side, repeat, notes=notes))
    name = f"{phi.name}, to energy {wanted:.4g}"
    subject = Subject("time_to_energy", name, 1, precision)
    report.race(subject, sides, SECONDS, baselines=torch_sides, rounds=rounds)


def _descent(
    phi: CnnRepresentation,
    plan: Plan,
    start: np.ndarray,
    precision: str,
    side: str,
) -> Callable[[int], float]:
    """A run of plain Adam as a function: steps -> final energy."""

    energy = torch_descent.prepare(phi, plan.problems, precision, side)

    def descend(num_steps: int) -> float:
        descent = Descent(energy, start, learning_rate=torch_descent.LEARNING_RATE)
        for share in presets.PRESETS["adam"].schedule(num_steps):
            descent.step(float(share))
        return descent.energy()

    return descend


def _reach(
    descend: Callable[[int], float], wanted: float, first: int, most: int
) -> tuple[int, float] | None:
    """The first budget that ends at the energy or below, and where it ends."""
    budget = float(first)
    while budget <= most:
        energy = descend(round(budget))
        print(f"  {round(budget)} steps of Adam: energy {energy:.4g}", flush=True)
        if energy <= wanted:
            return round(budget), energy
        budget *= 2**0.5
    return None


def _discard(descend: Callable[[int], float], num_steps: int) -> None:
    descend(num_steps)
