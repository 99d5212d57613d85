"""How many steps and seconds preset `fast` takes to the energy of plain Adam.

adam_energies.json has what plain Adam (rate 8, cosine, 4,000 steps, in full float32)
reached at each layer for four photographs, as means over two starts. Where it has none
for a layer, plain Adam takes its 4,000 steps here.
"""

import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from experiments.benchmarks import precisions
from experiments.benchmarks.conditions import (
    Conditions,
    default_precision,
    one_chunk,
)
from experiments.benchmarks.report import Report, Subject
from experiments.benchmarks.timing import print_left_out
from invjax import callables, identity
from invjax.images import pixels, sources
from invjax.images.pixels import ImageError
from invjax.representations.cnn import CnnRepresentation

REFERENCE = pathlib.Path(__file__).parent / "adam_energies.json"
_STARTS = 2
_BUDGETS = (200, 400)
_ADAM_STEPS = 4000


def run(report: Report, conditions: Conditions) -> None:
    """Inverts every layer of the reference with each budget.

    Args:
      report: where the records go.
      conditions: as a trial, one photograph at one layer with five steps.
    """
    reference: dict[str, dict[str, float] | None] = json.loads(REFERENCE.read_text())[
        "energies"
    ]
    photographs: tuple[str, ...] = sources.SAMPLES
    budgets: tuple[int, ...] = _BUDGETS
    if conditions.is_small:
        reference = {"alexnet/relu1": reference["alexnet/relu1"]}
        photographs = ("chelsea",)
        budgets = (5,)
    by_network: dict[str, list[str]] = {}
    for name in reference:
        by_network.setdefault(name.partition("/")[0], []).append(name)
    for network, names in by_network.items():
        found = []
        for name in names:
            try:
                record = _invert(
                    name, photographs, reference[name], budgets, conditions
                )
            except (LookupError, ImageError) as error:
                print_left_out(f"energy {name}", error)
                continue
            num_lanes = _STARTS * len(photographs)
            precision = default_precision()
            report.add(
                Subject("energy", name, num_lanes, precision),
                f"fast, {budgets[-1]} steps",
                value=record[f"ratio_{budgets[-1]}"],
                unit="of Adam's",
                **record,
            )
            found.append(record)
        if found:
            _add_summary(report, network, found, budgets, num_lanes)


def _add_summary(
    report: Report,
    network: str,
    found: list[dict[str, Any]],
    budgets: tuple[int, ...],
    num_lanes: int,
) -> None:
    """A record of the layers of a network together, one for each budget."""
    for num_steps in budgets:
        ratios = [record[f"ratio_{num_steps}"] for record in found]
        seconds = [record[f"seconds_{num_steps}"] for record in found]
        num_there = sum(ratio <= 1 for ratio in ratios)
        report.add(
            Subject(
                "energy", f"{network}, mean of layers", num_lanes, default_precision()
            ),
            f"fast, {num_steps} steps",
            value=float(np.mean(ratios)),
            unit="of Adam's",
            seconds=float(np.mean(seconds)),
            note=f"{num_there} of {len(ratios)} layers at Adam's energy or below; "
            f"largest {max(ratios):.2f}; {np.mean(seconds):.2f} s a layer",
            headline=True,
        )


def _invert(
    name: str,
    photographs: Sequence[str],
    reference: Mapping[str, float] | None,
    budgets: tuple[int, ...],
    conditions: Conditions,
) -> dict[str, Any]:
    phi = invjax.representation(name, weights_dir=conditions.weights_dir)
    assert isinstance(phi, CnnRepresentation)
    keys, codes = [], []
    for photograph in photographs:
        image = pixels.centre_crop(sources.sample(photograph), phi.image_shape[0])
        with precisions.in_jax("float32"):
            code = np.asarray(callables.encode(phi, image))
        for start in range(_STARTS):
            keys.append(identity.lane_key(0, pixels.image_id(image), start))
            codes.append(code)

    def energy_of(preset: str, num_steps: int) -> tuple[float, float]:
        """The mean energy of the lanes, and the seconds that they took."""
        began = time.perf_counter()
        result = invjax.invert_batch(
            keys,
            np.stack(codes),
            phi,
            preset=preset,
            num_steps=num_steps,
            execution=one_chunk(len(keys)),
        )
        energy = float(jnp.mean(jax.block_until_ready(result.energy)))
        return energy, time.perf_counter() - began

    if reference is None:
        with precisions.in_jax("float32"):
            adam, _ = energy_of("adam", _ADAM_STEPS)
    else:
        adam = float(np.mean([reference[photograph] for photograph in photographs]))
    found: dict[str, Any] = {
        "adam_energy": adam,
        "is_adam_stored": reference is not None,
        "seconds_to_adam": None,
    }
    for num_steps in budgets:
        # Twice, since the first run compiles.
        energy_of("fast", num_steps)
        energy, seconds = energy_of("fast", num_steps)
        found[f"ratio_{num_steps}"] = energy / adam
        found[f"seconds_{num_steps}"] = seconds
        if energy <= adam and found["seconds_to_adam"] is None:
            found["seconds_to_adam"] = seconds
    return found
