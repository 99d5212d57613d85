"""Lanes of every kind, for comparing processes with different numbers of CPU devices.

    JAX_NUM_CPU_DEVICES=4 python -m tests.inversion.on_devices FILE.npz [NAME...]

writes the arrays of these results, by default of all. Under `collectives` it is how
many the compiled steps have. XLA eliminates common subexpressions of a program of
several devices more often and earlier, and what is then fused rounds differently: to
compare compiled loops, set XLA_FLAGS=--xla_disable_hlo_passes=cse for all processes.
"""

import re
import sys
from typing import Any

import jax
import numpy as np

import invjax
from invjax.inversion import api, loop, slots
from invjax.inversion.execution import Execution
from invjax.inversion.request import Keywords
from invjax.preimages import mcmc
from tests.conftest import micro_representation
from tests.inversion import test_dead_starts

TWO_WIDE = Execution(width=2, scan=True)
"""As on accelerators: a compiled loop, two lanes on each device."""

NUM_LANES = 11
TOLERANCES = np.array([4.0, 0.3, 2.0, 0.0, 1.0, 0.5, 4.0, 4.0, 0.3, 0.0, 1.0])
RATES = np.array([4e-6, 1.0, 1.0, 4e-6, 4e-6, 4e-6, 1.0, 1.0, 4e-6, 4e-6, 4e-6])
"""Under cvpr2015 a rate of 1 diverges."""

_COLLECTIVES = r"all-reduce|all-gather|all-to-all|collective-\w+|reduce-scatter|send\("


def _lanes(**settings: Any) -> invjax.Result:
    phi = micro_representation("relu2")
    generator = np.random.default_rng(0)
    codes = generator.uniform(0.1, 0.6, (NUM_LANES, 7, 7, 12)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), NUM_LANES)
    return invjax.invert_batch(keys, codes, phi, history_every=3, **settings)


def _failing(**settings: Any) -> invjax.Result:
    return _lanes(preset="cvpr2015", num_steps=8, learning_rate=RATES, **settings)


def _dead(way: str, execution: Execution) -> invjax.Result:
    """A quarter of these starts is dead."""
    numbers = range(NUM_LANES)
    phi = test_dead_starts._halves()
    return test_dead_starts._invert(
        phi, numbers, dead_relu=way, execution=execution, num_steps=3
    )


def _chains(**settings: Any) -> mcmc.Samples:
    phi = micro_representation("relu1")
    starts = np.random.default_rng(1).uniform(0.2, 0.8, (3, 16, 16, 3))
    starts = starts.astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    return mcmc.sample(
        keys,
        phi(starts[0]),
        phi,
        starts,
        num_samples=2,
        num_warmup=40,
        thin=2,
        **settings,
    )


def _collectives(execution: Execution, settings: Keywords) -> np.ndarray:
    """The number of collectives in the program of a chunk's steps."""
    phi = micro_representation("relu2")
    code = np.ones((7, 7, 12), np.float32)
    plan, states = api._chunk(code, phi, execution, settings)
    phase = plan.phases[0]
    if plan.has_tolerance:
        step = slots.compile_phase(phase, plan, states)
    else:
        step = loop.compile_phase(phase, plan, states, scan=execution.scan)
    found = []
    for program in step.by_num_steps.values():
        text = program.as_text()
        assert text is not None and "convolution" in text
        found += re.findall(_COLLECTIVES, text)
    return np.array(len(found))


ON_HOST = {
    "lanes": lambda: _lanes(num_steps=8),
    "converging": lambda: _lanes(num_steps=70, tolerance=TOLERANCES),
    "phases": lambda: _lanes(num_steps=14, preset="ijcv2016", jitter=2),
    "failing": _failing,
    "chains": lambda: _chains(target_error=0.2),
}
"""Loops on the host: name -> what computes a tree of arrays."""

COMPILED = {
    "scan": lambda: _lanes(num_steps=8, execution=TWO_WIDE),
    "slots": lambda: _lanes(num_steps=70, tolerance=TOLERANCES, execution=TWO_WIDE),
    "slots_of_phases": lambda: _lanes(
        num_steps=70,
        preset="ijcv2016",
        jitter=2,
        tolerance=TOLERANCES,
        execution=TWO_WIDE,
    ),
    "slots_failing": lambda: _failing(tolerance=0.0, execution=TWO_WIDE),
    "redrawn": lambda: _dead("restart", TWO_WIDE),
    "revived": lambda: _dead("leaky", TWO_WIDE),
    "chains_scan": lambda: _chains(target_error=0.2, execution=TWO_WIDE),
    "collectives_scan": lambda: _collectives(TWO_WIDE, {"num_steps": 8}),
    "collectives_slots": lambda: _collectives(
        TWO_WIDE, {"num_steps": 8, "tolerance": 0.1}
    ),
}
"""Compiled loops, which are spread over the devices, likewise."""


if __name__ == "__main__":
    found: Any = {"devices": np.array(jax.local_device_count())}
    results = ON_HOST | COMPILED
    for name in sys.argv[2:] or results:
        for path, leaf in jax.tree.leaves_with_path(results[name]()):
            found[name + jax.tree_util.keystr(path)] = np.asarray(leaf)
    np.savez(sys.argv[1], **found)
