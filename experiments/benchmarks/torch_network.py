"""Layer tables as PyTorch modules, with the same weights. Imports torch."""

from typing import Any

import numpy as np
import torch
from torch import nn

from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAveragePool,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Relu,
    Residual,
    geometry,
    sides,
)


def build(
    layers: tuple[Layer, ...], params: Any, image_shape: tuple[int, ...]
) -> nn.Sequential:
    """A table as a module, [n, c, h, w] -> [n, C, H, W] or [n, C].

    Args:
      layers: the table, already cut.
      params: {layer: {"kernel", "bias"}} as `modules.forward` takes them.
      image_shape: (h, w, c) of the images.
    """
    modules, shape = [], image_shape
    for layer in layers:
        modules.append(_module(layer, params.get(layer.name, {}), shape))
        shape = geometry((layer,), shape)[-1].shape
    return nn.Sequential(*modules)


class _Sum(nn.Module):
    """A residual layer."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch(x) + self.shortcut(x)


class _Flatten(nn.Module):
    """[n, c, h, w] -> [n, h w c], the order of our dense kernels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).flatten(1)


def _module(layer: Layer, params: Any, shape: tuple[int, ...]) -> nn.Module:
    match layer:
        case Conv() | DepthwiseConv():
            return _convolution(layer, params, shape[-1])
        case Relu(ceiling=ceiling):
            if ceiling is None:
                return nn.ReLU(inplace=True)
            return nn.Hardtanh(0, ceiling, inplace=True)
        case MaxPool(window=window, stride=stride, padding=padding):
            before, after = sides(padding)
            if before == after:
                return nn.MaxPool2d(window, stride, before)
            pad = nn.ConstantPad2d((before, after, before, after), -torch.inf)
            return nn.Sequential(pad, nn.MaxPool2d(window, stride))
        case GlobalAveragePool():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case LocalResponseNorm(size=size, kappa=kappa, alpha=alpha, beta=beta):
            # PyTorch divides its alpha by the size.
            return nn.LocalResponseNorm(size, alpha * size, beta, kappa)
        case Dense():
            dense = nn.Linear(int(np.prod(shape)), layer.features)
            _fill(dense, np.asarray(params["kernel"]).T, params)
            return nn.Sequential(_Flatten(), dense)
        case Block(layers=inner):
            return build(inner, params, shape)
        case Residual(layers=inner, shortcut=shortcut):
            branches = (build(part, params, shape) for part in (inner, shortcut))
            return _Sum(*branches)


def _convolution(layer: Conv | DepthwiseConv, params: Any, channels: int) -> nn.Module:
    features, groups = channels, channels
    if isinstance(layer, Conv):
        features, groups = layer.features, layer.groups
    before, after = sides(layer.padding)
    convolution = nn.Conv2d(
        channels,
        features,
        layer.kernel,
        layer.stride,
        padding=before if before == after else 0,
        groups=groups,
    )
    _fill(convolution, np.asarray(params["kernel"]).transpose(3, 2, 0, 1), params)
    if before == after:
        return convolution
    return nn.Sequential(nn.ZeroPad2d((before, after, before, after)), convolution)


def _fill(module: nn.Module, weight: np.ndarray, params: Any) -> None:
    arrays = {"weight": weight, "bias": np.asarray(params["bias"])}
    module.load_state_dict(
        {name: torch.tensor(array.copy()) for name, array in arrays.items()}
    )
