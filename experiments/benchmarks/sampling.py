"""Seconds that samples of one code take: independent starts, and Markov chains."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import invjax
from experiments.benchmarks import precisions
from experiments.benchmarks.conditions import (
    Conditions,
    default_precision,
    one_chunk,
)
from experiments.benchmarks.report import SECONDS, Report, Subject
from experiments.benchmarks.timing import print_left_out
from invjax import callables, identity
from invjax.images import pixels, sources
from invjax.images.pixels import ImageError
from invjax.preimages import mcmc
from invjax.preimages.kernels import Hmc, Mala

_TEMPERATURE = 1e-7
_WARMUP = 40


def run(report: Report, conditions: Conditions) -> None:
    """Times 64 inversions of a photograph's pool5, and chains that start at 16 of them.

    Args:
      report: where the records go.
      conditions: as a trial, two samples of relu1 at 48 px.
    """
    name, num_samples, num_chains, num_steps, num_draws, size = (
        ("alexnet/relu1", 2, 1, 5, 2, 48)
        if conditions.is_small
        else ("alexnet/pool5", 64, 16, 400, 20, 224)
    )
    try:
        phi = invjax.representation(name, weights_dir=conditions.weights_dir)
        image = pixels.centre_crop(sources.sample("chelsea"), size)
    except (LookupError, ImageError) as error:
        print_left_out("sample", error)
        return
    with precisions.in_jax("float32"):
        code = np.asarray(callables.encode(phi, image))
    image_id = pixels.image_id(image)
    keys = [identity.lane_key(0, image_id, start) for start in range(num_samples)]
    codes = np.repeat(code[None], num_samples, axis=0)

    def starts() -> np.ndarray:
        result = invjax.invert_batch(
            keys,
            codes,
            phi,
            image_shape=image.shape,
            num_steps=num_steps,
            execution=one_chunk(num_samples),
        )
        return np.asarray(result.image)

    precision = default_precision()
    for side in ("with compiling", "compiled"):
        seconds, images = _timed(starts)
        report.add(
            Subject("sample", f"{name}, {num_steps} steps", num_samples, precision),
            f"starts, {side}",
            value=seconds,
            unit=SECONDS.name,
            samples_per_second=num_samples / seconds,
            note=f"{num_samples / seconds:.3g} samples/s; wanted: below 30 s",
            headline=True,
        )
    for kernel in (Mala(), Hmc()):

        def chains(kernel: Any = kernel) -> mcmc.Samples:
            return mcmc.sample(
                jax.random.split(jax.random.key(1), num_chains),
                code,
                phi,
                images[:num_chains],
                kernel=kernel,
                temperature=_TEMPERATURE,
                num_samples=num_draws,
                num_warmup=_WARMUP,
                execution=one_chunk(num_chains),
            )

        first, _ = _timed(chains)
        seconds, samples = _timed(chains)
        drawn = num_chains * num_draws
        report.add(
            Subject("sample", f"{name}, chains of {num_draws}", num_chains, precision),
            type(kernel).__name__.upper(),
            value=drawn / seconds,
            unit="samples/s",
            seconds=seconds,
            seconds_compiling=first - seconds,
            acceptance=float(np.mean(samples.acceptance)),
            note=f"10 steps a sample, {_WARMUP} of warm-up counted in",
            headline=True,
        )


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    value = call()
    return time.perf_counter() - began, value
