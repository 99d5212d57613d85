"""ConvNeXt (Liu 2022), tiny, small and base.

All were trained on images of 224 px. `stem` is the convolution of patches of 4 px with
its normalisation. `block0` to `block17` (tiny) or `block35` (small, base) are the
residual blocks, counted through all four stages: timm's `stages.0.blocks.0` and so on,
torchvision's `features.1.0` and so on. The first block of a later stage (`block3`,
`block6` and `block15` of tiny, `block3`, `block6` and `block33` of the others) begins
with the convolution that halves the size. `pooled` is the mean over all places, `norm`
the normalised one. The layer scale of each block is folded into its last layer.
"""

import itertools

from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAveragePool,
    Layer,
    LayerNorm,
    Network,
    Pointwise,
    Residual,
    Smooth,
)

_EPSILON = 1e-6


def _block(name: str, width: int) -> Residual:
    return Residual(
        name,
        (
            DepthwiseConv("depthwise", kernel=7, padding=3),
            LayerNorm("norm", _EPSILON),
            Pointwise("expand", 4 * width),
            Smooth("gelu", "gelu"),
            Pointwise("project", width),
        ),
    )


def _network(name: str, depths: tuple[int, ...], width: int) -> Network:
    """The network with so many blocks per stage, and `width` channels in the first."""
    layers: list[Layer] = []
    places = itertools.count()
    for stage, depth in enumerate(depths):
        for index in range(depth):
            block = f"block{next(places)}"
            if stage > 0 and index == 0:
                down = (
                    LayerNorm("down_norm", _EPSILON),
                    Conv("down", width, kernel=2, stride=2),
                    _block("residual", width),
                )
                layers.append(Block(block, down))
            else:
                layers.append(_block(block, width))
        width *= 2
    stem = (
        Conv("conv", width // 2 ** len(depths), kernel=4, stride=4),
        LayerNorm("norm", _EPSILON),
    )
    return Network(
        name=name,
        input_size=224,
        layers=(
            Block("stem", stem),
            *layers,
            GlobalAveragePool("pooled"),
            LayerNorm("norm", _EPSILON),
            Dense("logits", 1000),
        ),
    )


CONVNEXT_TINY = _network("convnext_tiny", (3, 3, 9, 3), width=96)
CONVNEXT_SMALL = _network("convnext_small", (3, 3, 27, 3), width=96)
CONVNEXT_BASE = _network("convnext_base", (3, 3, 27, 3), width=128)
