"""Shallow representations with their gradients, beside scikit-image's HOG."""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from experiments.benchmarks.report import MILLISECONDS, Report, Subject
from experiments.benchmarks.timing import Contestant, print_left_out
from invjax.images import pixels, sources
from invjax.representations import dsift, hog
from invjax.representations.dsift import DsiftConfig
from invjax.representations.hog import HogConfig

_SIZE = 256
_PEER = "scikit-image hog, forward only"


def run(report: Report, *, batch: int, rounds: int, only_first: bool) -> None:
    """Times value and gradient of |phi(x) - phi0|^2 for a vmapped batch of images.

    Args:
      report: where the records go.
      batch: number of grey images.
      rounds: number of turns of every side.
      only_first: leave out all representations but the first.
    """
    if importlib.util.find_spec("skimage") is None:
        print_left_out("shallow", "scikit-image has the photographs and the peer")
        return
    subject = Subject("shallow", f"{_SIZE} px, per image", batch, "float32")
    sides = _contestants(batch)
    if only_first:
        sides = [sides[0], sides[-1]]
    report.race(subject, sides, MILLISECONDS, baselines=(_PEER,), rounds=rounds)


def _contestants(batch: int) -> list[Contestant]:
    from skimage import feature

    grey = [
        pixels.to_grey(pixels.centre_crop(sources.sample(name), _SIZE))
        for name in sources.SAMPLES
    ]
    turned = [image[::flip] for flip in (1, -1) for image in grey]
    stack = jnp.asarray(np.stack([turned[i % len(turned)] for i in range(batch)]))
    functions: dict[str, Callable] = {
        "hog (VLFeat)": hog.hog,
        "hogb (VLFeat)": _with(hog.hog, HogConfig(assignment="bilinear")),
        "dsift (VLFeat, Gaussian)": dsift.dsift,
        "dsift (VLFeat, flat)": _with(dsift.dsift, DsiftConfig(window="flat")),
        "hog (paper)": invjax.representation("hog"),
        "hogb (paper)": invjax.representation("hogb"),
        "dsift (paper)": invjax.representation("dsift"),
    }
    planes = np.asarray(stack)[..., 0]

    def forward() -> None:
        for plane in planes:
            feature.hog(plane, orientations=9, pixels_per_cell=(8, 8))

    return [
        *(
            Contestant(name, _value_and_gradient(function, stack), batch)
            for name, function in functions.items()
        ),
        Contestant(_PEER, forward, batch),
    ]


def _with(function: Callable, config: Any) -> Callable[[jax.Array], jax.Array]:
    return lambda image: function(image, config=config)


def _value_and_gradient(phi: Callable, stack: jax.Array) -> Callable[[], None]:
    targets = jax.lax.map(phi, stack[::-1])

    def loss(image: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.sum((phi(image) - target) ** 2)

    run = jax.jit(jax.vmap(jax.value_and_grad(loss)))

    def call() -> None:
        jax.block_until_ready(run(stack, targets))

    return call
