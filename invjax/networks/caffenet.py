"""The paper's CNN-A and its sibling: AlexNet as Caffe trained it, at 227 px.

conv2, conv4 and conv5 have two groups of filters. Local response normalisation has
MatConvNet's constants [5, 1, 2e-5, 0.75] (Caffe's alpha of 1e-4 over five channels).
All windows fit exactly at 227 px, so it makes no difference that Caffe rounds the sizes
of pools up. Dropout and softmax are left out: fc8 is the activation before the softmax.
"""

from invjax.networks.layers import (
    Conv,
    Dense,
    LocalResponseNorm,
    MaxPool,
    Network,
    Relu,
)


def _norm(name: str) -> LocalResponseNorm:
    return LocalResponseNorm(name, size=5, kappa=1.0, alpha=2e-5, beta=0.75)


_UPPER = (
    Conv("conv3", 384, kernel=3, padding=1),
    Relu("relu3"),
    Conv("conv4", 384, kernel=3, padding=1, groups=2),
    Relu("relu4"),
    Conv("conv5", 256, kernel=3, padding=1, groups=2),
    Relu("relu5"),
    MaxPool("mpool5", window=3, stride=2),
    Dense("fc6", 4096),
    Relu("relu6"),
    Dense("fc7", 4096),
    Relu("relu7"),
    Dense("fc8", 1000),
)

CAFFENET = Network(
    name="caffenet",
    input_size=227,
    layers=(
        Conv("conv1", 96, kernel=11, stride=4),
        Relu("relu1"),
        MaxPool("mpool1", window=3, stride=2),
        _norm("norm1"),
        Conv("conv2", 256, kernel=5, padding=2, groups=2),
        Relu("relu2"),
        MaxPool("mpool2", window=3, stride=2),
        _norm("norm2"),
        *_UPPER,
    ),
)
"""The paper's CNN-A, Caffe's reference network (imagenet-caffe-ref).

It pools before it normalises.
"""

CAFFE_ALEXNET = Network(
    name="caffe_alexnet",
    input_size=227,
    layers=(
        Conv("conv1", 96, kernel=11, stride=4),
        Relu("relu1"),
        _norm("norm1"),
        MaxPool("mpool1", window=3, stride=2),
        Conv("conv2", 256, kernel=5, padding=2, groups=2),
        Relu("relu2"),
        _norm("norm2"),
        MaxPool("mpool2", window=3, stride=2),
        *_UPPER,
    ),
)
"""AlexNet in Krizhevsky's order (imagenet-caffe-alex).

It normalises before it pools.
"""
