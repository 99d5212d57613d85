"""EfficientNet-Lite0 to Lite2 (TensorFlow TPU): ReLU6, and no squeeze-and-excitation.

Lite0 was trained on images of 224 px. Lite1 was trained on images of 240 px and has a
tenth more blocks, rounded up in every stage but the first and the last. Lite2 was
trained on images of 260 px, has a fifth more blocks and a tenth more channels. Every
convolution was followed by batch normalisation, which is folded into it. Paddings are
those of TensorFlow's "SAME" at these sizes: where the total is odd, one pixel more at
the bottom and right. They stay the same for images of other sizes, where TensorFlow
would compute them again. `pooled` is the code of 1280 numbers below the classifier.
"""

import functools
import math

from invjax.networks.inverted_bottleneck import inverted_bottleneck
from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    GlobalAveragePool,
    Layer,
    Network,
    Padding,
    Relu,
)

_relu6 = functools.partial(Relu, ceiling=6.0)

# Rows: number of blocks, kernel, stride of the first block, expansion, features.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _same(side: int, kernel: int, stride: int) -> Padding:
    """TensorFlow's "SAME" padding of an input of so many pixels a side."""
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return (total // 2, total - total // 2)


def _blocks(side: int, depth_factor: float, width_factor: float) -> tuple[Layer, ...]:
    """The inverted bottlenecks of all stages.

    Args:
      side: side of the first block's input.
      depth_factor: multiplies the number of blocks of the stages between the first and
        the last.
      width_factor: multiplies the number of channels, which is rounded to a multiple
        of 8.
    """
    blocks: list[Layer] = []
    width = 32
    for stage, (depth, kernel, first_stride, expansion, features) in enumerate(_STAGES):
        if 0 < stage < len(_STAGES) - 1:
            depth = math.ceil(depth_factor * depth)
        features = 8 * round(width_factor * features / 8)
        for index in range(depth):
            stride = first_stride if index == 0 else 1
            blocks.append(
                inverted_bottleneck(
                    f"block{len(blocks)}",
                    inputs=width,
                    width=expansion * width,
                    features=features,
                    kernel=kernel,
                    stride=stride,
                    padding=_same(side, kernel, stride),
                    activation=_relu6,
                )
            )
            width, side = features, math.ceil(side / stride)
    return tuple(blocks)


def _network(
    name: str, input_size: int, depth_factor: float, width_factor: float
) -> Network:
    """The network for square images of `input_size` px."""
    stem = Conv("conv", 32, kernel=3, stride=2, padding=_same(input_size, 3, 2))
    return Network(
        name=name,
        input_size=input_size,
        layers=(
            Block("stem", (stem, _relu6("relu"))),
            *_blocks(math.ceil(input_size / 2), depth_factor, width_factor),
            Block("head", (Conv("conv", 1280, kernel=1), _relu6("relu"))),
            GlobalAveragePool("pooled"),
            Dense("logits", 1000),
        ),
    )


EFFICIENTNET_LITE0 = _network("efficientnet_lite0", 224, 1.0, 1.0)
EFFICIENTNET_LITE1 = _network("efficientnet_lite1", 240, 1.1, 1.0)
EFFICIENTNET_LITE2 = _network("efficientnet_lite2", 260, 1.2, 1.1)
