"""SqueezeNet 1.0 and 1.1 (Iandola 2016), in torchvision's form.

Both were trained on images of 224 px. `fire2` to `fire9` are the paper's names; a fire
module ends with the channels of its 1 x 1 and of its 3 x 3 convolutions. The last
convolution, `conv10`, has a channel for each class, and `logits` are the means of
`relu10`, so that none is negative. Pools are named by the paper: `pool1`, `pool4` and
`pool8` in 1.0, `pool1`, `pool3` and `pool5` in 1.1.
"""

from invjax.networks.layers import (
    Block,
    Concatenation,
    Conv,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Network,
    Relu,
)

# Features of the squeezing convolution, and of each expanding one.
_FIRES = {
    "fire2": (16, 64),
    "fire3": (16, 64),
    "fire4": (32, 128),
    "fire5": (32, 128),
    "fire6": (48, 192),
    "fire7": (48, 192),
    "fire8": (64, 256),
    "fire9": (64, 256),
}


def _pool(name: str) -> MaxPool:
    # Sizes are rounded up: one pixel of padding at the bottom and right.
    return MaxPool(name, window=3, stride=2, padding=(0, 1))


def _fire(name: str) -> Block:
    squeezed, expanded = _FIRES[name]
    narrow = (Conv("expand1x1", expanded, kernel=1), Relu("relu1x1"))
    wide = (Conv("expand3x3", expanded, kernel=3, padding=1), Relu("relu3x3"))
    return Block(
        name,
        (
            Conv("squeeze", squeezed, kernel=1),
            Relu("relu"),
            Concatenation("expand", (narrow, wide)),
        ),
    )


def _network(name: str, conv1: Conv, pooled_after: tuple[str, ...]) -> Network:
    """The network with max-pools after conv1 and two of its fire modules."""
    layers: list[Layer] = [conv1, Relu("relu1"), _pool("pool1")]
    for fire in _FIRES:
        layers.append(_fire(fire))
        if fire in pooled_after:
            layers.append(_pool(fire.replace("fire", "pool")))
    last = (Conv("conv10", 1000, kernel=1), Relu("relu10"), GlobalAveragePool("logits"))
    return Network(name, input_size=224, layers=(*layers, *last))


SQUEEZENET1_0 = _network(
    "squeezenet1_0", Conv("conv1", 96, kernel=7, stride=2), ("fire4", "fire8")
)
SQUEEZENET1_1 = _network(
    "squeezenet1_1", Conv("conv1", 64, kernel=3, stride=2), ("fire3", "fire5")
)
