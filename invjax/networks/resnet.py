"""ResNet-50 in torchvision's form (He 2015), with strides in the 3 x 3 convolutions.

It was trained on images of 224 px. Every convolution was followed by batch
normalisation, which is folded into it. `stem` ends after the max-pool, `layer1` to
`layer4` after the ReLU of their last residual block.
"""

from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Network,
    Relu,
    Residual,
)


def _stage(name: str, width: int, depth: int, stride: int) -> Block:
    """`depth` bottlenecks: 1 x 1 to `width` features, 3 x 3, 1 x 1 to 4 `width`."""
    layers: list[Layer] = []
    for index in range(depth):
        first = index == 0
        bottleneck = Residual(
            f"block{index}",
            layers=(
                Conv("conv1", width, kernel=1),
                Relu("relu1"),
                Conv(
                    "conv2", width, kernel=3, stride=stride if first else 1, padding=1
                ),
                Relu("relu2"),
                Conv("conv3", 4 * width, kernel=1),
            ),
            shortcut=(
                (Conv("shortcut", 4 * width, kernel=1, stride=stride),) if first else ()
            ),
        )
        layers += [bottleneck, Relu(f"relu{index}")]
    return Block(name, tuple(layers))


RESNET50 = Network(
    name="resnet50",
    input_size=224,
    layers=(
        Block(
            "stem",
            (
                Conv("conv", 64, kernel=7, stride=2, padding=3),
                Relu("relu"),
                MaxPool("pool", window=3, stride=2, padding=1),
            ),
        ),
        _stage("layer1", 64, depth=3, stride=1),
        _stage("layer2", 128, depth=4, stride=2),
        _stage("layer3", 256, depth=6, stride=2),
        _stage("layer4", 512, depth=3, stride=2),
        GlobalAveragePool("pooled"),
        Dense("logits", 1000),
    ),
)
