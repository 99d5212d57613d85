"""The precisions of a benchmark, and the baselines that can run in them here.

float32: every product in full float32. On GPUs that has to be asked for: JAX's own
default there, and so that of an inversion, is tf32.
tf32: float32 arrays whose convolutions and matrix products round their inputs to ten
bits of mantissa. NVIDIA GPUs alone have it.
bfloat16: the network's arithmetic in bfloat16; image, energy and solver in float32.
"""

import contextlib
import importlib.util
from collections.abc import Iterator

import jax

from experiments.benchmarks.timing import print_left_out

PRECISIONS = ("float32", "tf32", "bfloat16")


def compute_dtype(precision: str) -> str:
    """The dtype of a network's arrays."""
    return "bfloat16" if precision == "bfloat16" else "float32"


@contextlib.contextmanager
def in_jax(precision: str) -> Iterator[None]:
    """Programs traced inside have this precision; on CPU float32 is always full."""
    names = {"float32": "float32", "tf32": "tensorfloat32"}
    if jax.default_backend() == "cpu" or precision not in names:
        yield
        return
    with jax.default_matmul_precision(names[precision]):
        yield


def in_torch(precision: str) -> None:
    """Sets PyTorch's switches for what runs from now on, on CUDA."""
    import torch

    if not torch.cuda.is_available():
        return
    is_allowed = precision != "float32"
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = is_allowed
    torch.backends.cuda.matmul.allow_tf32 = is_allowed


STOCK = "stock primitives"
BASELINES = {
    "stock": STOCK,
    "eager": "torch eager",
    "compile": "torch compile",
    "autotune": "torch autotune",
}
"""Word of --baselines -> name of the side."""


def available(words: tuple[str, ...]) -> tuple[str, ...]:
    """The baselines that can run here; prints why others are left out.

    Args:
      words: keys of `BASELINES`.

    Returns:
      Their values.
    """
    sides = tuple(BASELINES[word] for word in words)
    if all(side == STOCK for side in sides):
        return sides
    reason = _without_torch()
    if reason is None:
        return sides
    print_left_out("PyTorch baselines", reason)
    return tuple(side for side in sides if side == STOCK)


def _without_torch() -> str | None:
    """Why PyTorch cannot be compared with; None if it can."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed: pip install torch"
    import torch

    backend = jax.default_backend()
    if backend not in ("cpu", "gpu"):
        return f"no PyTorch on {backend}"
    if torch.cuda.is_available() != (backend == "gpu"):
        return f"JAX runs on {backend} and PyTorch on another device"
    return None
