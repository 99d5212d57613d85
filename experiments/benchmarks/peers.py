"""Which sides there are to compare with, and which of them can run here."""

import importlib.util

import jax

from experiments.benchmarks.timing import print_left_out

STOCK = "stock primitives"
BASELINES = {
    "stock": STOCK,
    "eager": "torch eager",
    "compile": "torch compile",
    "autotune": "torch autotune",
}
"""Word of --baselines -> name of the side."""


def available(words: tuple[str, ...]) -> tuple[str, ...]:
    """The sides asked for that can run here; says once what cannot."""
    sides = tuple(BASELINES[word] for word in words)
    if all(side == STOCK for side in sides):
        return sides
    reason = _without_torch()
    if reason is None:
        return sides
    print_left_out("PyTorch baselines", reason)
    return tuple(side for side in sides if side == STOCK)


def _without_torch() -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed: pip install torch"
    import torch

    backend = jax.default_backend()
    if backend not in ("cpu", "gpu"):
        return f"no PyTorch on {backend}"
    if torch.cuda.is_available() != (backend == "gpu"):
        return f"JAX runs on {backend} and PyTorch on another device"
    return None
