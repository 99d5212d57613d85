"""Inversion in PyTorch as a careful user would write it: the peer. Imports torch.

The same energy as `invjax.inversion.objective.energy`, of a whole batch in one program:
channels_last, weights without gradients, plain Adam on the pixels in one fused kernel.
It keeps no best image, checks nothing for NaN and knows no mask, all of which our steps
do.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.benchmarks import precisions, torch_network
from invjax.inversion import execution
from invjax.inversion.objective import SIGMA, PerLane, Shared
from invjax.representations.cnn import CnnRepresentation

MODES = {
    "torch eager": None,
    "torch compile": "default",
    "torch autotune": "max-autotune-no-cudagraphs",
}
"""Side -> mode of torch.compile; None is without."""

LEARNING_RATE = 8.0
"""In grey levels, with a cosine: the best of plain Adam's at 400 steps."""

_ALPHA_OVER_TWO = 3


class Energy(nn.Module):
    """Energies of a batch: z [n, c, h, w] -> [n], float32.

    Args:
      phi: the network's layer; its weights are copied.
      shared: the centre around which z is taken; the mask is not used.
      problems: [n, ...], target and weights of each lane.
      bfloat16: whether the network's convolutions and matrix products are cast to it.
    """

    target: torch.Tensor
    target_norm: torch.Tensor
    shift: torch.Tensor
    scale: torch.Tensor
    tv_weight: torch.Tensor
    alpha_weight: torch.Tensor

    def __init__(
        self,
        phi: CnnRepresentation,
        shared: Shared,
        problems: PerLane,
        *,
        bfloat16: bool,
    ):
        super().__init__()
        self.network = torch_network.build(phi.layers, phi.params, phi.image_shape)
        self.network.eval().requires_grad_(False)
        self.is_bfloat16 = bfloat16
        target = np.array(problems.target)
        norm = np.sum(target.reshape(len(target), -1) ** 2, axis=1)
        shift = np.asarray(shared.centre) - np.asarray(phi.centre)
        arrays = {
            "target": _channels_first(target) if target.ndim == 4 else target,
            "target_norm": norm,
            "shift": _over_pixels(shift),
            "scale": _over_pixels(np.asarray(phi.scale)),
            "tv_weight": np.array(problems.tv_weight),
            "alpha_weight": np.array(problems.alpha_weight),
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.as_tensor(array))
        # Through Any, since torch's own annotations leave this keyword out.
        network: Any = self.network
        network.to(memory_format=torch.channels_last)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = (z + self.shift) / self.scale
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.is_bfloat16):
            code = self.network(x)
        data = (code.float() - self.target).square().flatten(1).sum(1)
        x = z / SIGMA
        right = (x[..., 1:] - x[..., :-1]).square().flatten(1).sum(1)
        lower = (x[..., 1:, :] - x[..., :-1, :]).square().flatten(1).sum(1)
        alpha = x.square().pow(_ALPHA_OVER_TWO).flatten(1).sum(1)
        regularisers = self.tv_weight * (right + lower) + self.alpha_weight * alpha
        return data / self.target_norm + regularisers


class Descent:
    """Adam on the pixels, from z [n, h, w, c].

    Args:
      energy: an `Energy`, or compiled from one.
      start: z of each image, grey levels minus the centre.
      learning_rate: largest step size, in grey levels.
      b2: as in `torch.optim.Adam`.
    """

    def __init__(
        self,
        energy: Callable[[torch.Tensor], torch.Tensor],
        start: np.ndarray,
        *,
        learning_rate: float,
        b2: float = 0.999,
    ):
        self._energy = energy
        self._rate = learning_rate
        z = _channels_first(np.array(start)).to(device())
        self.z = z.to(memory_format=torch.channels_last).requires_grad_()
        self._adam = torch.optim.Adam(
            [self.z], learning_rate, betas=(0.9, b2), eps=1e-8, fused=True
        )

    def step(self, rate_scale: float) -> torch.Tensor:
        """One step at `rate_scale` times the rate; returns the energies before it."""
        self._adam.param_groups[0]["lr"] = self._rate * rate_scale
        self._adam.zero_grad(set_to_none=True)
        energies = self._energy(self.z)
        energies.sum().backward()
        self._adam.step()
        return energies.detach()

    def energy(self) -> float:
        """The mean energy of the current images; waits for the device."""
        return float(self._energy(self.z).detach().mean())


def prepare(
    phi: CnnRepresentation,
    shared: Shared,
    problems: PerLane,
    precision: str,
    side: str,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The energy on the device, compiled as `MODES` says for the side."""
    precisions.in_torch(precision)
    torch.set_num_threads(execution.num_cores())
    energy = Energy(phi, shared, problems, bfloat16=precision == "bfloat16")
    energy = energy.to(device())
    mode = MODES[side]
    if mode is None:
        return energy
    # Else programs of earlier cases would count against the limit on recompilation.
    torch.compiler.reset()
    compiled: Any = torch.compile(energy, mode=mode, dynamic=False)
    return compiled


def device() -> torch.device:
    """The CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Waits until the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _channels_first(array: np.ndarray) -> torch.Tensor:
    """[n, h, w, c] -> [n, c, h, w] in the same memory, which is channels_last."""
    return torch.as_tensor(array).permute(0, 3, 1, 2)


def _over_pixels(array: np.ndarray) -> torch.Tensor:
    """A number, colour [c] or image [h, w, c], to broadcast against [n, c, h, w]."""
    if array.ndim == 3:
        return torch.as_tensor(array.transpose(2, 0, 1).copy())
    return torch.as_tensor(array.reshape(-1, 1, 1).copy())
