"""The original networks, built from torch.nn in torchvision's layout.

They are written from the published architectures. Their state dicts have torchvision's
names and can go through the converter of users' files. Import this module only after
`pytest.importorskip("torch")`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from invjax.networks.layers import Network, weighted


class Sequential(nn.Module):
    """`features`, flatten, `classifier`: AlexNet and the VGGs.

    torchvision's adaptive average pool between them is the identity at 224 px.
    """

    def __init__(
        self, features: Iterable[nn.Module], classifier: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)


def alexnet() -> Sequential:
    return Sequential(
        [
            nn.Conv2d(3, 64, 11, 4, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        ],
        [
            nn.Dropout(),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 1000),
        ],
    )


def vgg(depths: Sequence[int]) -> Sequential:
    """Configuration D is (2, 2, 3, 3, 3), E is (2, 2, 4, 4, 4)."""
    features: list[nn.Module] = []
    channels = 3
    for depth, width in zip(depths, (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            features += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        features.append(nn.MaxPool2d(2, 2))
    classifier = [
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 1000),
    ]
    return Sequential(features, classifier)


def vgg_m() -> Sequential:
    norm: Any = {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}
    return Sequential(
        [
            nn.Conv2d(3, 96, 7, 2),
            nn.ReLU(),
            nn.LocalResponseNorm(**norm),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(96, 256, 5, 2, padding=1),
            nn.ReLU(),
            nn.LocalResponseNorm(**norm),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(256, 512, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(512, 512, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(512, 512, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        ],
        _caffe_classifier(512 * 6 * 6),
    )


def caffe(*, pool_first: bool) -> Sequential:
    """CaffeNet, or AlexNet in Krizhevsky's order, as in Caffe's model zoo."""

    def reduce() -> list[nn.Module]:
        norm = nn.LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=1.0)
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        return [pool, norm] if pool_first else [norm, pool]

    return Sequential(
        [
            nn.Conv2d(3, 96, 11, 4),
            nn.ReLU(),
            *reduce(),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(),
            *reduce(),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        ],
        _caffe_classifier(256 * 6 * 6),
    )


def _caffe_classifier(inputs: int) -> list[nn.Module]:
    return [
        nn.Linear(inputs, 4096),
        nn.ReLU(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, 1000),
    ]


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False),
                nn.BatchNorm2d(4 * width),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for index, (depth, width) in enumerate(
            zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)
        ):
            blocks = []
            for place in range(depth):
                stride = 2 if index > 0 and place == 0 else 1
                blocks.append(Bottleneck(inputs, width, stride))
                inputs = 4 * width
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(2048, 1000)

    def activations(self, x: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        with torch.inference_mode():
            y = self.bn1(self.conv1(to_torch(x))).relu()
            y = nn.functional.max_pool2d(y, 3, 2, 1)
            found["stem"] = to_numpy(y)
            for name in ("layer1", "layer2", "layer3", "layer4"):
                y = self.get_submodule(name)(y)
                found[name] = to_numpy(y)
            y = y.mean((2, 3))
            found["pooled"] = to_numpy(y)
            found["logits"] = to_numpy(self.fc(y))
        return found


class LiteBlock(nn.Module):
    def __init__(
        self, inputs: int, expansion: int, kernel: int, stride: int, outputs: int
    ) -> None:
        super().__init__()
        middle = inputs * expansion
        self.stride = stride
        self.skip = stride == 1 and inputs == outputs
        self._expand_conv = None
        if expansion > 1:
            self._expand_conv = nn.Conv2d(inputs, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(
            middle, middle, kernel, stride, groups=middle, bias=False
        )
        self._bn1 = nn.BatchNorm2d(middle, eps=1e-3)
        self._project_conv = nn.Conv2d(middle, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        if self._expand_conv is not None:
            y = nn.functional.relu6(self._bn0(self._expand_conv(y)))
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(same(y, self))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skip else y


LITES = {
    "efficientnet_lite0": ((1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)),
    "efficientnet_lite1": ((1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320)),
    "efficientnet_lite2": ((1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352)),
}
"""Number of blocks of each stage, and of channels that its blocks put out."""


class EfficientNetLite(nn.Module):
    """In the layout of efficientnet_lite_pytorch's state dicts."""

    def __init__(self, depths: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        stages = [(1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 2)]
        stages += [(6, 5, 1), (6, 5, 2), (6, 3, 1)]
        rows: list[tuple[int, int, int, int, int]] = []
        inputs = 32
        for (expansion, kernel, stride), depth, outputs in zip(
            stages, depths, widths, strict=True
        ):
            rows.append((inputs, expansion, kernel, stride, outputs))
            rows += [(outputs, expansion, kernel, 1, outputs)] * (depth - 1)
            inputs = outputs
        self._blocks = nn.ModuleList(LiteBlock(*row) for row in rows)
        self._conv_head = nn.Conv2d(inputs, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def activations(self, x: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        with torch.inference_mode():
            y = nn.functional.pad(to_torch(x), (0, 1, 0, 1))
            y = nn.functional.relu6(self._bn0(self._conv_stem(y)))
            found["stem"] = to_numpy(y)
            for index, block in enumerate(self._blocks):
                y = block(y)
                found[f"block{index}"] = to_numpy(y)
            y = nn.functional.relu6(self._bn1(self._conv_head(y)))
            found["head"] = to_numpy(y)
            y = y.mean((2, 3))
            found["pooled"] = to_numpy(y)
            found["logits"] = to_numpy(self._fc(y))
        return found


def same(x: torch.Tensor, block: LiteBlock) -> torch.Tensor:
    """TensorFlow's "SAME" padding for a block's depthwise convolution."""
    kernel = block._depthwise_conv.kernel_size[0]
    side = x.shape[-1]
    total = max((-(-side // block.stride) - 1) * block.stride + kernel - side, 0)
    before, after = total // 2, total - total // 2
    return nn.functional.pad(x, (before, after, before, after))


def run(model: Sequential, x: np.ndarray) -> list[np.ndarray]:
    """Activations after all modules but flatten and dropout, as [h, w, c] or [n]."""
    found = []
    with torch.inference_mode():
        y = to_torch(x)
        for module in model.eval().features:
            y = module(y)
            found.append(to_numpy(y))
        y = y.flatten(1)
        for module in model.classifier:
            y = module(y)
            if not isinstance(module, nn.Dropout):
                found.append(to_numpy(y))
    return found


def randomise(model: nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Draws weights for which activations are of order one; returns the state dict.

    Means, variances, scales and offsets of batch normalisation are far from trivial, so
    that folding them wrongly shows.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim > 1:
                scale = (2 / tensor[0].numel()) ** 0.5
                tensor.normal_(0, scale, generator=generator)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif "weight" in name:
                tensor.uniform_(0.5, 1.0, generator=generator)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.1, generator=generator)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def to_torch(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None]


def to_numpy(y: torch.Tensor) -> np.ndarray:
    return y[0].numpy().transpose(1, 2, 0) if y.ndim == 4 else y[0].numpy()


def as_params(model: Sequential, network: Network) -> dict[str, dict[str, np.ndarray]]:
    """Parameters of our table from a sequential model, without a file in between."""
    convolutions: list[Any] = [m for m in model.features if isinstance(m, nn.Conv2d)]
    linears: list[Any] = [m for m in model.classifier if isinstance(m, nn.Linear)]
    params = {}
    layers = weighted(network.layers, network.image_shape)
    for (name, _, row), module in zip(layers, convolutions + linears, strict=True):
        weight = module.weight.detach().numpy()
        if isinstance(module, nn.Conv2d):
            kernel = weight.transpose(2, 3, 1, 0)
        elif len(row.shape) == 3:
            height, width, channels = row.shape
            blocks = weight.reshape(-1, channels, height, width)
            kernel = blocks.transpose(2, 3, 1, 0).reshape(-1, len(weight))
        else:
            kernel = weight.T
        bias = module.bias.detach().numpy()
        params[name] = {"kernel": np.ascontiguousarray(kernel), "bias": bias}
    return params
