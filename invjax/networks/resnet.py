"""ResNet-18, -34, -50, -101 and -152 in torchvision's form (He 2015).

All were trained on images of 224 px. The deeper three have strides in their 3 x 3
convolutions. Every convolution was followed by batch normalisation, which is folded
into it. `stem` ends after the max-pool, `layer1` to `layer4` after the ReLU of their
last residual block.
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


def _basic(width: int, stride: int) -> tuple[Layer, ...]:
    """Two 3 x 3 convolutions to `width` features."""
    return (
        Conv("conv1", width, kernel=3, stride=stride, padding=1),
        Relu("relu1"),
        Conv("conv2", width, kernel=3, padding=1),
    )


def _bottleneck(width: int, stride: int) -> tuple[Layer, ...]:
    """1 x 1 to `width` features, 3 x 3, 1 x 1 to 4 `width`."""
    return (
        Conv("conv1", width, kernel=1),
        Relu("relu1"),
        Conv("conv2", width, kernel=3, stride=stride, padding=1),
        Relu("relu2"),
        Conv("conv3", 4 * width, kernel=1),
    )


def _network(name: str, depths: tuple[int, ...], *, is_deep: bool) -> Network:
    """The network with so many residual blocks per stage, bottlenecks if it is deep."""
    expansion = 4 if is_deep else 1
    stages: list[Layer] = []
    inputs = 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        layers: list[Layer] = []
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            inner = _bottleneck(width, stride) if is_deep else _basic(width, stride)
            shortcut: tuple[Layer, ...] = ()
            if inputs != expansion * width:
                shortcut = (
                    Conv("shortcut", expansion * width, kernel=1, stride=stride),
                )
            block = Residual(f"block{index}", inner, shortcut)
            layers += [block, Relu(f"relu{index}")]
            inputs = expansion * width
        stages.append(Block(f"layer{stage + 1}", tuple(layers)))
    stem = (
        Conv("conv", 64, kernel=7, stride=2, padding=3),
        Relu("relu"),
        MaxPool("pool", window=3, stride=2, padding=1),
    )
    return Network(
        name=name,
        input_size=224,
        layers=(
            Block("stem", stem),
            *stages,
            GlobalAveragePool("pooled"),
            Dense("logits", 1000),
        ),
    )


RESNET18 = _network("resnet18", (2, 2, 2, 2), is_deep=False)
RESNET34 = _network("resnet34", (3, 4, 6, 3), is_deep=False)
RESNET50 = _network("resnet50", (3, 4, 6, 3), is_deep=True)
RESNET101 = _network("resnet101", (3, 4, 23, 3), is_deep=True)
RESNET152 = _network("resnet152", (3, 8, 36, 3), is_deep=True)
