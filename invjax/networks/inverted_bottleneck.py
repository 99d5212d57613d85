"""The block of MobileNets and EfficientNets: wide inside, narrow at both ends."""

from collections.abc import Callable

from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    Gate,
    GlobalAveragePool,
    Layer,
    Padding,
    Relu,
    Residual,
    Smooth,
)


def inverted_bottleneck(
    name: str,
    *,
    inputs: int,
    width: int,
    features: int,
    kernel: int,
    stride: int,
    padding: Padding,
    activation: Callable[[str], Layer],
    squeezed: int | None = None,
) -> Block | Residual:
    """1 x 1 convolution to a width, depthwise convolution, 1 x 1 to the features.

    Args:
      name: name of the block.
      inputs: number of input channels. Where it is the width, the first convolution is
        left out.
      width: number of channels of the depthwise convolution.
      features: number of output channels. Where they are as many as the inputs and the
        stride is 1, the input is added.
      kernel: side of the depthwise kernels.
      stride: stride of the depthwise convolution.
      padding: its padding.
      activation: makes the nonlinearity of a name, after the first two convolutions.
      squeezed: number of hidden units of squeeze-and-excitation after the depthwise
        convolution; None without.
    """
    layers: list[Layer] = []
    if width != inputs:
        layers += [Conv("expand", width, kernel=1), activation("expand_relu")]
    layers += [DepthwiseConv("depthwise", kernel, stride, padding), activation("relu")]
    if squeezed is not None:
        factors = (
            GlobalAveragePool("pooled"),
            Dense("reduce", squeezed),
            Relu("relu"),
            Dense("expand", width),
            Smooth("sigmoid", "hard_sigmoid"),
        )
        layers.append(Gate("squeeze", factors))
    layers.append(Conv("project", features, kernel=1))
    kind = Residual if stride == 1 and features == inputs else Block
    return kind(name, tuple(layers))
