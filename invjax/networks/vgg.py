"""Oxford's networks: VGG-M (Chatfield 2014), VGG-16 and VGG-19 (Simonyan 2014).

All were trained on images of 224 px. VGG-16 and VGG-19 are configurations D and E,
without batch normalisation; those of Caffe, MatConvNet and torchvision differ only in
weights and preprocessing.
"""

from invjax.networks.layers import (
    Conv,
    Dense,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Network,
    Relu,
)

_CLASSIFIER = (
    Dense("fc6", 4096),
    Relu("relu6"),
    Dense("fc7", 4096),
    Relu("relu7"),
    Dense("fc8", 1000),
)


def _deep(name: str, depths: tuple[int, ...]) -> Network:
    """A VGG whose blocks have `depths` 3 x 3 convolutions and end with a max-pool."""
    layers: list[Layer] = []
    for block, depth in enumerate(depths, start=1):
        for place in range(1, depth + 1):
            features = min(64 * 2 ** (block - 1), 512)
            layers += [
                Conv(f"conv{block}_{place}", features, kernel=3, padding=1),
                Relu(f"relu{block}_{place}"),
            ]
        layers.append(MaxPool(f"pool{block}", window=2, stride=2))
    return Network(name, input_size=224, layers=(*layers, *_CLASSIFIER))


VGG16 = _deep("vgg16", (2, 2, 3, 3, 3))
VGG19 = _deep("vgg19", (2, 2, 4, 4, 4))


def _norm(name: str) -> LocalResponseNorm:
    return LocalResponseNorm(name, size=5, kappa=2.0, alpha=1e-4, beta=0.75)


VGG_M = Network(
    name="vgg_m",
    input_size=224,
    layers=(
        Conv("conv1", 96, kernel=7, stride=2),
        Relu("relu1"),
        _norm("norm1"),
        MaxPool("pool1", window=3, stride=2),
        Conv("conv2", 256, kernel=5, stride=2, padding=1),
        Relu("relu2"),
        _norm("norm2"),
        # Caffe rounds sizes up: here, one pixel of padding at the bottom and right.
        MaxPool("pool2", window=3, stride=2, padding=(0, 1)),
        Conv("conv3", 512, kernel=3, padding=1),
        Relu("relu3"),
        Conv("conv4", 512, kernel=3, padding=1),
        Relu("relu4"),
        Conv("conv5", 512, kernel=3, padding=1),
        Relu("relu5"),
        MaxPool("pool5", window=3, stride=2),
        *_CLASSIFIER,
    ),
)
