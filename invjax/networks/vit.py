"""Vision transformers: plain (Dosovitskiy 2020), of DINO (Caron 2021), of CLIP (2021).

All take images of 224 px only, since each place has a position of its own. Codes are
[tokens, c], with the class token first and then the patches row by row:

| layer | code |
|---|---|
| `patches` | the patches' embeddings, [h, w, c], before positions are added |
| `tokens` | the class token and the patches with their positions (CLIP: normalised) |
| `attention0`, `attention1`, ... | the tokens after the attention of each block |
| `block0`, `block1`, ... | the tokens after each block |
| `norm` | the tokens after the last block, normalised |
| `pooled` | the class token of `norm`, [c] |
| `logits` (plain) | the thousand classes |
| `projected` (CLIP) | what is compared with a text's embedding |

`attention3` and `block3` are the input of timm's `blocks.3.norm2` and the output of its
`blocks.3`. The three of CLIP are those of OpenAI, with its approximation of GELU (timm
calls them `..._clip_quickgelu_224`); LAION's, which have tensors of the same shapes and
the exact GELU, are other networks, which no file can be told from.
"""

from typing import Literal

from invjax.networks.layers import (
    Attention,
    Block,
    ClassToken,
    Conv,
    Dense,
    Layer,
    LayerNorm,
    Network,
    Pointwise,
    Residual,
    Smooth,
    Tokens,
)


def transformer(
    name: str,
    *,
    width: int,
    heads: int,
    patch: int,
    depth: int = 12,
    input_size: int = 224,
    epsilon: float = 1e-6,
    gelu: Literal["gelu", "quick_gelu"] = "gelu",
    is_normalised_first: bool = False,
    last: Dense | None = None,
) -> Network:
    """A transformer of `depth` blocks of tokens with `width` channels.

    Args:
      name: name of the network.
      width: number of channels.
      heads: number of heads of each attention.
      patch: side of the patches, in pixels.
      depth: number of blocks.
      input_size: side of the images, in pixels.
      epsilon: constant of the normalisations.
      gelu: the nonlinearity in the blocks.
      is_normalised_first: whether tokens are normalised before the first block.
      last: what is computed from the class token; None for nothing.
    """
    embedding: list[Layer] = [Tokens("embedding")]
    if is_normalised_first:
        embedding.append(LayerNorm("norm", epsilon))
    layers: list[Layer] = [
        Conv("patches", width, kernel=patch, stride=patch),
        Block("tokens", tuple(embedding)),
    ]
    for index in range(depth):
        attention = Residual(
            f"attention{index}",
            (
                LayerNorm("norm", epsilon),
                Attention("attention", heads),
                Pointwise("project", width),
            ),
        )
        block = Residual(
            f"block{index}",
            (
                LayerNorm("norm", epsilon),
                Pointwise("expand", 4 * width),
                Smooth("gelu", gelu),
                Pointwise("project", width),
            ),
        )
        layers += [attention, block]
    layers += [LayerNorm("norm", epsilon), ClassToken("pooled")]
    if last is not None:
        layers.append(last)
    return Network(name, input_size, layers=tuple(layers))


def _plain(name: str, width: int, heads: int) -> Network:
    logits = Dense("logits", 1000)
    return transformer(name, width=width, heads=heads, patch=16, last=logits)


def _clip(
    name: str, width: int, heads: int, patch: int, depth: int, projected: int
) -> Network:
    return transformer(
        name,
        width=width,
        heads=heads,
        patch=patch,
        depth=depth,
        epsilon=1e-5,
        gelu="quick_gelu",
        is_normalised_first=True,
        last=Dense("projected", projected),
    )


VIT_TINY = _plain("vit_tiny", width=192, heads=3)
VIT_SMALL = _plain("vit_small", width=384, heads=6)
VIT_BASE = _plain("vit_base", width=768, heads=12)
DINO_VITS16 = transformer("dino_vits16", width=384, heads=6, patch=16)
DINO_VITS8 = transformer("dino_vits8", width=384, heads=6, patch=8)
DINO_VITB16 = transformer("dino_vitb16", width=768, heads=12, patch=16)
DINO_VITB8 = transformer("dino_vitb8", width=768, heads=12, patch=8)
CLIP_VIT_B32 = _clip("clip_vit_b32", 768, 12, patch=32, depth=12, projected=512)
CLIP_VIT_B16 = _clip("clip_vit_b16", 768, 12, patch=16, depth=12, projected=512)
CLIP_VIT_L14 = _clip("clip_vit_l14", 1024, 16, patch=14, depth=24, projected=768)
