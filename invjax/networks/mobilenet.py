"""MobileNetV2 (Sandler 2018) and MobileNetV3 (Howard 2019), in torchvision's form.

All were trained on images of 224 px. Every convolution was followed by batch
normalisation, which is folded into it. `stem` is the first convolution and `head` the
last, each with its nonlinearity; `block0` to `block16` (V2), `block14` (V3 large) or
`block10` (V3 small) are the inverted bottlenecks: torchvision's `features.1` and so on,
timm's `blocks.0.0` and so on. `pooled` is the mean of `head` over all places; V3 has a
dense layer `hidden` between it and `logits`.

The networks that timm calls `tf_...` have tensors of the same names and shapes and pad
as TensorFlow does. They are other networks, which no file can be told from.
"""

import functools

from invjax.networks.inverted_bottleneck import inverted_bottleneck
from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    GlobalAveragePool,
    Layer,
    Network,
    Relu,
    Smooth,
)

_relu6 = functools.partial(Relu, ceiling=6.0)
_hard_swish = functools.partial(Smooth, function="hard_swish")

# Rows: number of blocks, stride of the first block, expansion, features.
_V2_STAGES = (
    (1, 1, 1, 16),
    (2, 2, 6, 24),
    (3, 2, 6, 32),
    (4, 2, 6, 64),
    (3, 1, 6, 96),
    (3, 2, 6, 160),
    (1, 1, 6, 320),
)

# Rows: kernel, width, features, whether it squeezes, whether it has hard swishes,
# stride.
_V3_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_V3_SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


def _v2() -> Network:
    blocks: list[Layer] = []
    inputs = 32
    for depth, first_stride, expansion, features in _V2_STAGES:
        for index in range(depth):
            blocks.append(
                inverted_bottleneck(
                    f"block{len(blocks)}",
                    inputs=inputs,
                    width=expansion * inputs,
                    features=features,
                    kernel=3,
                    stride=first_stride if index == 0 else 1,
                    padding=1,
                    activation=_relu6,
                )
            )
            inputs = features
    return Network(
        name="mobilenet_v2",
        input_size=224,
        layers=(
            Block("stem", (Conv("conv", 32, 3, stride=2, padding=1), _relu6("relu"))),
            *blocks,
            Block("head", (Conv("conv", 1280, kernel=1), _relu6("relu"))),
            GlobalAveragePool("pooled"),
            Dense("logits", 1000),
        ),
    )


def _v3(
    name: str, rows: tuple[tuple[int, int, int, bool, bool, int], ...], hidden: int
) -> Network:
    """The network whose last dense layers have `hidden` and 1000 features."""
    blocks: list[Layer] = []
    inputs = 16
    for kernel, width, features, squeezes, swishes, stride in rows:
        blocks.append(
            inverted_bottleneck(
                f"block{len(blocks)}",
                inputs=inputs,
                width=width,
                features=features,
                kernel=kernel,
                stride=stride,
                padding=kernel // 2,
                activation=_hard_swish if swishes else Relu,
                squeezed=_multiple_of_8(width // 4) if squeezes else None,
            )
        )
        inputs = features
    stem = Conv("conv", 16, kernel=3, stride=2, padding=1)
    head = Conv("conv", 6 * inputs, kernel=1)
    return Network(
        name=name,
        input_size=224,
        layers=(
            Block("stem", (stem, _hard_swish("swish"))),
            *blocks,
            Block("head", (head, _hard_swish("swish"))),
            GlobalAveragePool("pooled"),
            Block("hidden", (Dense("dense", hidden), _hard_swish("swish"))),
            Dense("logits", 1000),
        ),
    )


def _multiple_of_8(number: int) -> int:
    """The nearest multiple of 8, or the next one if that is below nine tenths."""
    nearest = max(8, (number + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * number else nearest


MOBILENET_V2 = _v2()
MOBILENET_V3_LARGE = _v3("mobilenet_v3_large", _V3_LARGE, hidden=1280)
MOBILENET_V3_SMALL = _v3("mobilenet_v3_small", _V3_SMALL, hidden=1024)
