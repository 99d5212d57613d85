"""Bytes on the device: as compiled programs predict them, and as they were."""

from typing import Any

import jax


def predicted(compiled: Any) -> int | None:
    """Arguments, temporaries and results of a compiled program, shared ones once."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return (
        analysis.argument_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def peak() -> int | None:
    """The most that JAX held in this process so far; CPUs keep no count."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")
