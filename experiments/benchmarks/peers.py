"""Our inversion beside plenoptic's Metamer: seconds to the same error.

Metamer minimises the squared error of the code by Adam on the pixels, with a penalty on
values out of range; its options are the defaults of the package, but that it takes all
its steps. Then preset `fast` with ever more steps, until the error is as small. One
photograph, one start, published weights. Imports torch where it runs.
"""

import contextlib
import io
import time
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
from invjax.metrics import errors
from invjax.representations.cnn import CnnRepresentation

_MOST_STEPS = 3200


def run(report: Report, conditions: Conditions) -> None:
    """Times both.

    Args:
      report: where the records go.
      conditions: as a trial, four steps of Metamer at relu1, of 48 px.
    """
    name, num_steps, size = ("alexnet/relu3", 3200, 224)
    if conditions.is_small:
        name, num_steps, size = ("alexnet/relu1", 4, 48)
    try:
        phi = invjax.representation(name, weights_dir=conditions.weights_dir)
        image = pixels.centre_crop(sources.sample("chelsea"), size)
    except (LookupError, ImageError) as error:
        print_left_out("peers", error)
        return
    assert isinstance(phi, CnnRepresentation)
    with precisions.in_jax("float32"):
        code = np.asarray(callables.encode(phi, image))
    seconds, found = _metamer(phi, image, num_steps)
    wanted = _relative_error(phi, found, code)
    subject = Subject("peers", f"{name}, one photograph", 1, default_precision())
    report.add(
        subject,
        "plenoptic Metamer",
        value=seconds,
        unit=SECONDS.name,
        steps=num_steps,
        relative_error=wanted,
        note=f"{num_steps} steps, relative error {100 * wanted:.1f} %",
        headline=True,
    )
    key = identity.lane_key(0, pixels.image_id(image), 0)
    budget = 4 if conditions.is_small else 25
    while budget <= _MOST_STEPS:
        # Twice, since the first run compiles.
        for _ in range(2):
            began = time.perf_counter()
            result = invjax.invert(
                key,
                code,
                phi,
                image_shape=image.shape,
                num_steps=budget,
                execution=one_chunk(1),
            )
            jax.block_until_ready(result.image)
            ours = time.perf_counter() - began
        reached = _relative_error(phi, np.asarray(result.image), code)
        if reached <= wanted or conditions.is_small:
            break
        budget *= 2
    reason = "" if reached <= wanted else "; not as small as Metamer's"
    report.add(
        subject,
        "invjax fast",
        value=ours,
        unit=SECONDS.name,
        speed_ratios={"plenoptic Metamer": seconds / ours},
        steps=budget,
        relative_error=reached,
        note=f"{budget} steps, relative error {100 * reached:.1f} %{reason}; "
        f"{seconds / ours:.1f} times as fast",
        headline=True,
    )


def _relative_error(
    phi: CnnRepresentation, image: np.ndarray, code: np.ndarray
) -> float:
    with precisions.in_jax("float32"):
        found = np.asarray(callables.encode(phi, image))
    return float(errors.relative_error(found, code))


def _metamer(
    phi: CnnRepresentation, image: np.ndarray, num_steps: int
) -> tuple[float, np.ndarray]:
    """Seconds of a synthesis, and the image [h, w, 3] that it found."""
    import plenoptic
    import torch
    from torch import nn

    from experiments.benchmarks import torch_descent, torch_network

    class Layer(nn.Module):
        """The layer as a model [n, 3, h, w] in [0, 1] -> [n, c, h, w]."""

        mean: torch.Tensor
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = torch_network.build(phi.layers, phi.params, image.shape)
            for name, value in (("mean", phi.centre), ("scale", phi.scale)):
                colour = torch.as_tensor(np.array(value)).reshape(-1, 1, 1)
                self.register_buffer(name, colour)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network((255 * x - self.mean) / self.scale)

    device = torch_descent.device()
    precisions.in_torch(default_precision())
    model = Layer().eval().to(device)
    plenoptic.remove_grad(model)
    plenoptic.set_seed(0)
    target = torch.as_tensor(image.transpose(2, 0, 1)[None].copy()).to(device)
    # The first steps choose kernels. The progress bar goes nowhere.
    for number in (2, num_steps):
        metamer: Any = plenoptic.Metamer(target, model)
        with contextlib.redirect_stderr(io.StringIO()):
            began = time.perf_counter()
            metamer.synthesize(max_iter=number, stop_criterion=0.0)
            torch_descent.wait()
            seconds = time.perf_counter() - began
    found = metamer.metamer.detach().cpu().numpy()[0].transpose(1, 2, 0)
    return seconds, found
