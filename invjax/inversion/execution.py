"""How lanes are run on a backend: the width of compiled calls, loops, threads."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Execution:
    """How lanes are run. It changes how results are rounded, and nothing else.

    Attributes:
      width: number of lanes that one compiled call advances; a shorter chunk is padded
        to it.
      scan: whether the loop over steps is compiled (`jax.lax.scan`) or runs on the
        host, one compiled step at a time.
      num_threads: number of chunks that run side by side, each in a host thread.
    """

    width: int = 1
    scan: bool = False
    num_threads: int = 1

    def __post_init__(self) -> None:
        for name in ("width", "num_threads"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"execution.{name} is {getattr(self, name)}; it must be positive"
                )

    @property
    def lanes_at_once(self) -> int:
        """Number of lanes that run side by side, over all threads."""
        return self.width * self.num_threads


def default_execution() -> Execution:
    """What suits JAX's default backend.

    On CPU single lanes with a host loop, in one thread per core and at most 16 threads:
    XLA does not parallelise convolutions inside its loops there, and wider programs are
    no faster. Elsewhere 16 lanes with a compiled loop, which fit every device. Large
    GPUs are faster with more (512 lanes of AlexNet on an H100): the width is part of a
    result's identity, so it is not chosen by the device but given by the caller.
    """
    if jax.default_backend() == "cpu":
        return Execution(num_threads=min(num_cores(), 16))
    return Execution(width=16, scan=True)


def num_cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def jit_unoptimised(function: Callable, **options: Any) -> Callable:
    """`jax.jit` for programs that run once per chunk: on CPU without optimisation.

    On CPU their compile time dominates, so that they are done sooner although they run
    slower. On other backends, where level 0 also concerns how kernels are assembled and
    was not measured, it is plain `jax.jit`.

    Args:
      function: the function to compile.
      **options: keywords of `jax.jit`.
    """
    optimised = jax.jit(function, **options)
    unoptimised = jax.jit(
        function, compiler_options={"xla_backend_optimization_level": 0}, **options
    )

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        compiled = unoptimised if jax.default_backend() == "cpu" else optimised
        return compiled(*args, **keywords)

    return call
