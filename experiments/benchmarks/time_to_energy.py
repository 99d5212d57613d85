"""How long each side takes to reach one energy, real weights, one photograph.

The energy is what preset `fast` reaches in a given number of steps. The baseline is
plain Adam on the pixels in PyTorch, rate 8 with a cosine to zero, from the same start;
noise of the paper's norm suits it less. Its budgets grow by the square root of two from
a quarter of our steps until it gets there; each budget is a run of its own, with a
cosine of that length. Then both whole runs are timed in turns.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from experiments.benchmarks import precisions
from experiments.benchmarks.conditions import one_chunk
from experiments.benchmarks.report import SECONDS, Report, Subject
from experiments.benchmarks.timing import Contestant, print_left_out
from invjax import callables, identity
from invjax.images import pixels, sources
from invjax.inversion import batch, loop, presets, request
from invjax.inversion.request import Plan
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
      report: where the records go.
      phi: the network's layer, with real weights.
      precision: a word of `precisions.PRECISIONS`.
      baselines: sides to compare with, as in `precisions.BASELINES`.
      num_steps: number of steps of `fast`.
      rounds: number of turns of every side.
      is_short: give the baseline no more than twice the steps.
    """
    photograph = pixels.centre_crop(sources.sample(_PHOTOGRAPH), phi.image_shape[0])
    with precisions.in_jax(precision):
        code = np.asarray(callables.encode(phi, photograph))
    plan = request.prepare(code[None], phi, 1, num_steps=num_steps)
    key = identity.lane_key(0, pixels.image_id(photograph), 0)
    keys = jax.numpy.stack([key])

    def ours() -> float:
        with precisions.in_jax(precision):
            ((_, result),) = loop.stream(
                keys, plan, execution=one_chunk(1), history_every=10
            )
        return float(result.energy[0])

    def call() -> None:
        ours()

    wanted = ours()
    notes = {"steps": num_steps, "energy": wanted, "photograph": _PHOTOGRAPH}
    sides = [Contestant("invjax", call, notes=notes)]
    start = np.asarray(batch.start(plan.phases[0].program, keys, plan.start_scale).last)
    most = num_steps * (2 if is_short else _MOST_TIMES)
    first = max(num_steps // 4, 1)
    torch_sides = [side for side in baselines if side != precisions.STOCK]
    for side in torch_sides:
        descend = _descent(phi, plan, start, precision, side)
        found = _smallest_budget(descend, wanted, first, most)
        if found is None:
            print_left_out(side, f"not at energy {wanted:.4g} in {most} steps")
            continue
        # Where one form got there, the next need not try less.
        first, energy = found
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
    # Here, since PyTorch may not be installed.
    from experiments.benchmarks import torch_descent

    energy = torch_descent.prepare(
        phi, plan.shared, plan.settings.problem, precision, side
    )

    def descend(num_steps: int) -> float:
        descent = torch_descent.Descent(
            energy, start, learning_rate=torch_descent.LEARNING_RATE
        )
        for rate_scale in presets.PRESETS["adam"].rate_scale(num_steps):
            descent.step(float(rate_scale))
        return descent.energy()

    return descend


def _smallest_budget(
    descend: Callable[[int], float], wanted: float, first: int, most: int
) -> tuple[int, float] | None:
    """The first budget whose final energy is at most `wanted`, and that energy."""
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
