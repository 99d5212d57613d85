"""How lanes are run on a backend: the width of compiled calls, loops, threads."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from invjax.inversion import devices


@dataclasses.dataclass(frozen=True)
class Execution:
    """How lanes are run. It changes how results are rounded, and nothing else.

    Attributes:
      width: number of lanes that one compiled call advances on a device; a shorter
        chunk is padded to it.
      scan: whether the loop over steps is compiled (`jax.lax.scan`) or runs on the
        host, one compiled step at a time.
      num_threads: number of chunks that run side by side, each in a host thread.
      num_devices: number of devices that a compiled loop is spread over, `width` lanes
        on each; None for all of this process. A loop on the host is on JAX's default
        device. See `devices`.
    """

    width: int = 1
    scan: bool = False
    num_threads: int = 1
    num_devices: int | None = None

    def __post_init__(self) -> None:
        for name in ("width", "num_threads", "num_devices"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"execution.{name} is {number}; it must be positive")

    @property
    def mesh(self) -> Mesh | None:
        """The devices that lanes are spread over; None for JAX's default one.

        Raises:
          ValueError: this process has fewer devices than are asked for.
        """
        return devices.mesh(self._num_devices)

    @property
    def lanes_per_call(self) -> int:
        """Number of lanes that one compiled call advances, over all devices."""
        return self.width * self._num_devices

    @property
    def lanes_at_once(self) -> int:
        """Number of lanes that run side by side, over all threads and devices."""
        return self.lanes_per_call * self.num_threads

    @property
    def _num_devices(self) -> int:
        available = jax.local_device_count()
        wanted = self.num_devices or available
        if wanted > available:
            raise ValueError(
                f"execution.num_devices is {wanted}; this process has {available}"
            )
        return wanted if self.scan else 1


def default_execution() -> Execution:
    """What suits JAX's default backend.

    On CPU single lanes with a host loop, in one thread per core and at most 16 threads:
    XLA does not parallelise convolutions inside its loops there, and wider programs are
    no faster. Elsewhere 16 lanes with a compiled loop, which fit every device, on each
    device of this process. Large GPUs are faster with more (512 lanes of AlexNet on an
    H100): the width is part of a result's identity, so it is given by the caller, who
    may ask `api.fitting_width` for it.
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
