"""EfficientNet-Lite0 (TensorFlow TPU): no squeeze-and-excitation, ReLU6 throughout.

It was trained on images of 224 px. Every convolution was followed by batch
normalisation, which is folded into it. Paddings are those of TensorFlow's "SAME" at
224 px: strided layers pad one pixel more at the bottom and right. They stay the same
for images of other sizes, where TensorFlow would compute them again. `pooled` is the
code of 1280 numbers below the classifier.
"""

from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAveragePool,
    Layer,
    Network,
    Padding,
    Relu,
    Residual,
)

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


def _same(kernel: int, stride: int) -> Padding:
    """TensorFlow's "SAME" padding where the stride divides the side of the image."""
    total = kernel - stride
    return (total // 2, total - total // 2)


def _blocks() -> tuple[Layer, ...]:
    """The inverted bottlenecks of all stages."""
    blocks: list[Layer] = []
    width = 32
    for depth, kernel, first_stride, expansion, features in _STAGES:
        for index in range(depth):
            stride = first_stride if index == 0 else 1
            layers: tuple[Layer, ...] = (
                DepthwiseConv("depthwise", kernel, stride, _same(kernel, stride)),
                Relu("relu", ceiling=6.0),
                Conv("project", features, kernel=1),
            )
            if expansion > 1:
                expand = Conv("expand", expansion * width, kernel=1)
                layers = (expand, Relu("expand_relu", ceiling=6.0), *layers)
            kind = Residual if stride == 1 and features == width else Block
            blocks.append(kind(f"block{len(blocks)}", layers))
            width = features
    return tuple(blocks)


EFFICIENTNET_LITE0 = Network(
    name="efficientnet_lite0",
    input_size=224,
    layers=(
        Block(
            "stem",
            (
                Conv("conv", 32, kernel=3, stride=2, padding=_same(3, 2)),
                Relu("relu", ceiling=6.0),
            ),
        ),
        *_blocks(),
        Block("head", (Conv("conv", 1280, kernel=1), Relu("relu", ceiling=6.0))),
        GlobalAveragePool("pooled"),
        Dense("logits", 1000),
    ),
)
