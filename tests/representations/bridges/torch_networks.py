"""Small PyTorch networks of the kinds that people study."""

from typing import Any

import torch
from torch import nn


class Block(nn.Module):
    """A residual block, as ResNets have."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(ins, outs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outs, outs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outs)
        self.shortcut = nn.Conv2d(ins, outs, 1, stride)

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """A ResNet of two blocks for images of 32 px, with a dropout before its head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 5, 2, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        self.layer1 = Block(6, 8, 1)
        self.layer2 = Block(8, 10, 2)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(10 * 4 * 4, 7)

    def forward(self, x: Any) -> Any:
        x = self.layer2(self.layer1(self.stem(x)))
        return self.head(self.dropout(x.flatten(1)))


class ConvNeXt(nn.Module):
    """Patches, and one block with a depthwise convolution and a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))
        return x + (self.scale * y).permute(0, 3, 1, 2)


class ViT(nn.Module):
    """A transformer of two blocks with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.register_buffer("places", torch.randn(1, 17, 16))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token, x], dim=1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


class UNet(nn.Module):
    """One step down and one up, with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GroupNorm(2, 6))
        self.down = nn.Sequential(nn.SiLU(), nn.Conv2d(6, 8, 3, 2, 1))
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.back = nn.ConvTranspose2d(8, 4, 2, 2)
        self.last = nn.Conv2d(18, 3, 1)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        y = self.down(x)
        return self.last(torch.cat([x, self.up(y), self.back(y)], dim=1))


class Recurrent(nn.Module):
    """Layers of several outputs, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        x = x.flatten(2).mT
        return self.lstm(self.attention(x, x, x)[0])


def seeded(kind: type[nn.Module]) -> Any:
    """A network with random weights and random statistics of batch normalisation."""
    torch.manual_seed(0)
    network = kind()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network
