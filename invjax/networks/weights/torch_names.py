"""How implementations in PyTorch name the tensors of the networks.

| network | names of |
|---|---|
| AlexNet | torchvision |
| VGGs | torchvision, timm, the first ones for PyTorch; their layers, as "conv1_1" |
| ResNets | torchvision, timm |
| EfficientNet-Lites | efficientnet_lite_pytorch |
| MobileNetV2 | torchvision, timm, the older ones that tonylins and others have |
| MobileNetV3 | torchvision, timm |
| SqueezeNets | torchvision |
| ConvNeXts | torchvision, timm |
| plain vision transformers | timm, Hugging Face; torchvision (`vit_base`) |
| DINO's transformers | DINO and timm, Hugging Face |
| CLIP's transformers | timm, Hugging Face |

A layout is a table of rules: a pattern of a layer's name, and where its parameters are.
Networks with blocks need numbers in names that are not those of `block0`, `block1`, ...
These stand in braces:

| | |
|---|---|
| `{after}` | the block's number plus one |
| `{stage}`, `{place}` | the block's stage, and its place there |
| `{even}`, `{odd}` | twice the stage, and one more |
| `{unit}`, `{next}` | the place of a part in its block, and that plus one |
| `{last}`, `{stages}` | the number of blocks plus one, and the number of stages |
| `{index}` | the place of the layer in the table |
"""

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from invjax.networks import layers
from invjax.networks.layers import Conv, Dense, Network
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.preprocessing import Preprocessing


class Scope(NamedTuple):
    """Where a state dict keeps the parameters of a layer.

    Attributes:
      weight: names of the tensors of its weight. Where there are several, as queries,
        keys and values, they are stacked. Tokens have their positions and their class
        token here.
      bias: likewise of its bias; empty where it has none.
      norm: prefix of the batch normalisation after it; None without.
      gain: name of the layer scale by which its output is multiplied; None without.
    """

    weight: tuple[str, ...]
    bias: tuple[str, ...] = ()
    norm: str | None = None
    gain: str | None = None

    def filled(self, found: re.Match[str], numbers: dict[str, int]) -> "Scope":
        """The scope with groups of a pattern and numbers in the place of templates."""

        def fill(template: str) -> str:
            return found.expand(template).format(**numbers)

        return Scope(
            tuple(map(fill, self.weight)),
            tuple(map(fill, self.bias)),
            self.norm and fill(self.norm),
            self.gain and fill(self.gain),
        )


class Layout(NamedTuple):
    """How an implementation names the tensors of a network.

    Attributes:
      scopes: where the state dict keeps each layer, by the layer's name in the table.
      epsilon: constant added to the variance in batch normalisation, which is not in
        state dicts.
      beside: beginnings of names of tensors that are no part of the network.
      preprocessing: the one that its publishers document for these names; None where
        it is that of the network's usual file.
    """

    scopes: dict[str, Scope]
    epsilon: float = 0.0
    beside: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None


Rules = tuple[tuple[str, Scope], ...]


@functools.cache
def layouts_of(network: Network) -> tuple[Layout, ...]:
    """How implementations of the network in PyTorch name its layers.

    Raises:
      conversion.ConversionError: no layout is known for the network.
    """
    name = network.name
    if name == "alexnet":
        return (_sequential(network, (1, 4, 6)),)
    if name in ("vgg16", "vgg19"):
        return _vgg(network)
    if name.startswith("resnet"):
        return (_renamed(network, _RESNET, epsilon=1e-5),)
    if name.startswith("efficientnet_lite"):
        return (_renamed(network, _EFFICIENTNET_LITE, epsilon=1e-3),)
    if name == "mobilenet_v2":
        rules = (_MOBILENET_V2, _MOBILENET_V2_OLD, _MOBILENET_V2_TIMM)
        return tuple(_renamed(network, found, epsilon=1e-5) for found in rules)
    if name.startswith("mobilenet_v3"):
        torchvision = _renamed(network, _MOBILENET_V3, epsilon=1e-3)
        return (torchvision, _renamed(network, _MOBILENET_V3_TIMM, epsilon=1e-5))
    if name.startswith("squeezenet"):
        return (_renamed(network, _SQUEEZENET),)
    if name.startswith("convnext"):
        return (_renamed(network, _CONVNEXT), _renamed(network, _CONVNEXT_TIMM))
    if name.startswith("vit_"):
        return tuple(_vit(network))
    if name.startswith("dino_"):
        saved, live = (_hugging_face(network, names, "") for names in _HUGGING_FACE)
        return (_renamed(network, _VIT_TIMM), saved, live)
    if name.startswith("clip_"):
        beside = (
            "text_model.",
            "text_projection.",
            "logit_scale",
            "vision_model.embeddings.position_ids",
        )
        timm = _renamed(network, (_NO_PATCH_BIAS, *_VIT_TIMM))
        return timm, _renamed(network, _CLIP)._replace(beside=beside)
    raise ConversionError(
        f"no PyTorch layout is known for {network.name}; known are those of every "
        "network but caffenet, caffe_alexnet and vgg_m"
    )


def _vgg(network: Network) -> tuple[Layout, ...]:
    torchvision = _sequential(network, (0, 3, 6))
    # The first VGGs for PyTorch, converted from Caffe, have the dense layers in other
    # places.
    converted = _sequential(network, (1, 4, 6))
    dense = {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"}
    timm = torchvision.scopes | {n: _plain(prefix) for n, prefix in dense.items()}
    own = {name: _plain(name) for name in torchvision.scopes}
    return torchvision, converted, Layout(timm), Layout(own)


def _vit(network: Network) -> Iterator[Layout]:
    """All layouts of a plain vision transformer."""
    yield _renamed(network, _VIT_TIMM)
    for prefix in ("", "vit."):
        for names in _HUGGING_FACE:
            yield _hugging_face(network, names, prefix)
    if network.name == "vit_base":
        imagenet = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
        for first, second in (("0", "3"), ("linear_1", "linear_2")):
            found = _renamed(network, _vit_torchvision(first, second))
            yield found._replace(preprocessing=imagenet)


def _sequential(network: Network, classifier: tuple[int, ...]) -> Layout:
    """The layout of torchvision's AlexNet and VGGs.

    Args:
      network: the layer table; an index in `features` is an index in it.
      classifier: indices of the dense layers in `classifier`, which has dropouts too.
    """
    places = iter(classifier)
    scopes = {}
    for index, layer in enumerate(network.layers):
        match layer:
            case Conv():
                scopes[layer.name] = _plain(f"features.{index}")
            case Dense():
                scopes[layer.name] = _plain(f"classifier.{next(places)}")
    return Layout(scopes)


def _renamed(network: Network, rules: Rules, epsilon: float = 0.0) -> Layout:
    """The layout whose scopes are made by the first rule that matches a layer's name.

    Args:
      network: the layer table.
      rules: (pattern of the name in the table, templates of a scope).
      epsilon: constant added to the variance in batch normalisation.
    """
    names = [n for n, _, _ in layers.weighted(network.layers, network.image_shape)]
    scopes = {}
    for name, numbers in _numbers(network, names).items():
        for pattern, scope in rules:
            if found := re.fullmatch(pattern, name):
                scopes[name] = scope.filled(found, numbers)
                break
    return Layout(scopes, epsilon)


def _numbers(network: Network, names: list[str]) -> dict[str, dict[str, int]]:
    """The numbers that templates may have, for each name; see the module's table."""
    depths = _DEPTHS.get(network.name, ())
    places = [(stage, p) for stage, depth in enumerate(depths) for p in range(depth)]
    tops = network.layer_names
    blocks = [top for top in tops if re.fullmatch(r"block\d+", top)]
    units: dict[str, list[str]] = {}
    found = {}
    for name in names:
        top, _, inner = name.partition("/")
        numbers = {"last": len(blocks) + 1, "stages": len(depths)}
        numbers["index"] = tops.index(top)
        if top in blocks:
            number = blocks.index(top)
            part = inner.partition("/")[0]
            parts = units.setdefault(top, [])
            if part not in parts:
                parts.append(part)
            unit = parts.index(part)
            numbers |= {"after": number + 1, "unit": unit, "next": unit + 1}
            if places:
                stage, place = places[number]
                numbers |= {"stage": stage, "place": place}
                numbers |= {"even": 2 * stage, "odd": 2 * stage + 1}
        found[name] = numbers
    return found


def _plain(prefix: str, *, gain: str | None = None) -> Scope:
    """A layer with a weight and a bias."""
    return Scope((f"{prefix}.weight",), (f"{prefix}.bias",), gain=gain)


def _normed(weight: str, norm: str) -> Scope:
    """A layer without bias, followed by batch normalisation."""
    return Scope((f"{weight}.weight",), norm=norm)


# Number of blocks of each stage.
_DEPTHS = {
    "mobilenet_v2": (1, 2, 3, 4, 3, 3, 1),
    "mobilenet_v3_large": (1, 2, 3, 4, 2, 3),
    "mobilenet_v3_small": (1, 2, 3, 2, 3),
    "convnext_tiny": (3, 3, 9, 3),
    "convnext_small": (3, 3, 27, 3),
    "convnext_base": (3, 3, 27, 3),
}

_RESNET: Rules = (
    (r"stem/conv", _normed("conv1", "bn1")),
    (r"(layer\d)/block(\d+)/conv(\d)", _normed(r"\1.\2.conv\3", r"\1.\2.bn\3")),
    (
        r"(layer\d)/block(\d+)/shortcut",
        _normed(r"\1.\2.downsample.0", r"\1.\2.downsample.1"),
    ),
    (r"logits", _plain("fc")),
)

_EFFICIENTNET_LITE: Rules = (
    (r"stem/conv", _normed("_conv_stem", "_bn0")),
    (r"block(\d+)/expand", _normed(r"_blocks.\1._expand_conv", r"_blocks.\1._bn0")),
    (
        r"block(\d+)/depthwise",
        _normed(r"_blocks.\1._depthwise_conv", r"_blocks.\1._bn1"),
    ),
    (r"block(\d+)/project", _normed(r"_blocks.\1._project_conv", r"_blocks.\1._bn2")),
    (r"head/conv", _normed("_conv_head", "_bn1")),
    (r"logits", _plain("_fc")),
)

_MOBILENET_V2: Rules = (
    (r"stem/conv", _normed("features.0.0", "features.0.1")),
    (
        r"block\d+/project",
        _normed("features.{after}.conv.{unit}", "features.{after}.conv.{next}"),
    ),
    (
        r"block\d+/.*",
        _normed("features.{after}.conv.{unit}.0", "features.{after}.conv.{unit}.1"),
    ),
    (r"head/conv", _normed("features.{last}.0", "features.{last}.1")),
    (r"logits", _plain("classifier.1")),
)

_MOBILENET_V2_OLD: Rules = (
    (r"block0/depthwise", _normed("features.1.conv.0", "features.1.conv.1")),
    (r"block0/project", _normed("features.1.conv.3", "features.1.conv.4")),
    (
        r"block\d+/expand",
        _normed("features.{after}.conv.0", "features.{after}.conv.1"),
    ),
    (
        r"block\d+/depthwise",
        _normed("features.{after}.conv.3", "features.{after}.conv.4"),
    ),
    (
        r"block\d+/project",
        _normed("features.{after}.conv.6", "features.{after}.conv.7"),
    ),
    (r"logits", _plain("classifier")),
    *_MOBILENET_V2,
)

_MOBILENET_V3: Rules = (
    (r"stem/conv", _normed("features.0.0", "features.0.1")),
    (r"block\d+/squeeze/reduce", _plain("features.{after}.block.{unit}.fc1")),
    (r"block\d+/squeeze/expand", _plain("features.{after}.block.{unit}.fc2")),
    (
        r"block\d+/.*",
        _normed("features.{after}.block.{unit}.0", "features.{after}.block.{unit}.1"),
    ),
    (r"head/conv", _normed("features.{last}.0", "features.{last}.1")),
    (r"hidden/dense", _plain("classifier.0")),
    (r"logits", _plain("classifier.3")),
)

_TIMM_BLOCK = "blocks.{stage}.{place}"
_MOBILENET_TIMM: Rules = (
    (r"stem/conv", _normed("conv_stem", "bn1")),
    # The first block has no convolution before the depthwise one.
    (r"block0/depthwise", _normed("blocks.0.0.conv_dw", "blocks.0.0.bn1")),
    (r"block0/project", _normed("blocks.0.0.conv_pw", "blocks.0.0.bn2")),
    (r"block\d+/expand", _normed(f"{_TIMM_BLOCK}.conv_pw", f"{_TIMM_BLOCK}.bn1")),
    (r"block\d+/depthwise", _normed(f"{_TIMM_BLOCK}.conv_dw", f"{_TIMM_BLOCK}.bn2")),
    (r"block\d+/squeeze/(.*)", _plain(_TIMM_BLOCK + r".se.conv_\1")),
    (r"block\d+/project", _normed(f"{_TIMM_BLOCK}.conv_pwl", f"{_TIMM_BLOCK}.bn3")),
    (r"hidden/dense", _plain("conv_head")),
    (r"logits", _plain("classifier")),
)
# The last convolution is a stage of its own in V3.
_MOBILENET_V2_TIMM: Rules = (
    (r"head/conv", _normed("conv_head", "bn2")),
    *_MOBILENET_TIMM,
)
_MOBILENET_V3_TIMM: Rules = (
    (r"head/conv", _normed("blocks.{stages}.0.conv", "blocks.{stages}.0.bn1")),
    *_MOBILENET_TIMM,
)

_SQUEEZENET: Rules = (
    (r"conv1", _plain("features.0")),
    (r"fire\d/squeeze", _plain("features.{index}.squeeze")),
    (r"fire\d/expand/(.*)", _plain(r"features.{index}.\1")),
    (r"conv10", _plain("classifier.1")),
)

_IN_BLOCK = r"block\d+/(?:residual/)?"
_CONVNEXT: Rules = (
    (r"stem/conv", _plain("features.0.0")),
    (r"stem/norm", _plain("features.0.1")),
    (r"block\d+/down_norm", _plain("features.{even}.0")),
    (r"block\d+/down", _plain("features.{even}.1")),
    (f"{_IN_BLOCK}depthwise", _plain("features.{odd}.{place}.block.0")),
    (f"{_IN_BLOCK}norm", _plain("features.{odd}.{place}.block.2")),
    (f"{_IN_BLOCK}expand", _plain("features.{odd}.{place}.block.3")),
    (
        f"{_IN_BLOCK}project",
        _plain(
            "features.{odd}.{place}.block.5", gain="features.{odd}.{place}.layer_scale"
        ),
    ),
    (r"norm", _plain("classifier.0")),
    (r"logits", _plain("classifier.2")),
)

_TIMM_STAGE = "stages.{stage}.blocks.{place}"
_CONVNEXT_TIMM: Rules = (
    (r"stem/conv", _plain("stem.0")),
    (r"stem/norm", _plain("stem.1")),
    (r"block\d+/down_norm", _plain("stages.{stage}.downsample.0")),
    (r"block\d+/down", _plain("stages.{stage}.downsample.1")),
    (f"{_IN_BLOCK}depthwise", _plain(f"{_TIMM_STAGE}.conv_dw")),
    (f"{_IN_BLOCK}norm", _plain(f"{_TIMM_STAGE}.norm")),
    (f"{_IN_BLOCK}expand", _plain(f"{_TIMM_STAGE}.mlp.fc1")),
    (
        f"{_IN_BLOCK}project",
        _plain(f"{_TIMM_STAGE}.mlp.fc2", gain=f"{_TIMM_STAGE}.gamma"),
    ),
    (r"norm", _plain("head.norm")),
    (r"logits", _plain("head.fc")),
)

_NO_PATCH_BIAS = (r"patches", Scope(("patch_embed.proj.weight",)))
_VIT_TIMM: Rules = (
    (r"patches", _plain("patch_embed.proj")),
    (r"tokens/embedding", Scope(("pos_embed", "cls_token"))),
    (r"tokens/norm", _plain("norm_pre")),
    (r"attention(\d+)/norm", _plain(r"blocks.\1.norm1")),
    (r"attention(\d+)/attention", _plain(r"blocks.\1.attn.qkv")),
    (r"attention(\d+)/project", _plain(r"blocks.\1.attn.proj")),
    (r"block(\d+)/norm", _plain(r"blocks.\1.norm2")),
    (r"block(\d+)/expand", _plain(r"blocks.\1.mlp.fc1")),
    (r"block(\d+)/project", _plain(r"blocks.\1.mlp.fc2")),
    (r"norm", _plain("norm")),
    (r"logits|projected", _plain("head")),
)


def _vit_torchvision(first: str, second: str) -> Rules:
    """torchvision's, whose two layers after attention have had two pairs of names."""
    block = r"encoder.layers.encoder_layer_\1"
    attention = f"{block}.self_attention"
    return (
        (r"patches", _plain("conv_proj")),
        (r"tokens/embedding", Scope(("encoder.pos_embedding", "class_token"))),
        (r"attention(\d+)/norm", _plain(f"{block}.ln_1")),
        (
            r"attention(\d+)/attention",
            Scope((f"{attention}.in_proj_weight",), (f"{attention}.in_proj_bias",)),
        ),
        (r"attention(\d+)/project", _plain(f"{attention}.out_proj")),
        (r"block(\d+)/norm", _plain(f"{block}.ln_2")),
        (r"block(\d+)/expand", _plain(f"{block}.mlp.{first}")),
        (r"block(\d+)/project", _plain(f"{block}.mlp.{second}")),
        (r"norm", _plain("encoder.ln")),
        (r"logits", _plain("heads.head")),
    )


def _stacked(*prefixes: str) -> Scope:
    """Layers whose outputs stand side by side."""
    return Scope(
        tuple(f"{prefix}.weight" for prefix in prefixes),
        tuple(f"{prefix}.bias" for prefix in prefixes),
    )


class _HuggingFace(NamedTuple):
    """Names in a block of transformers' ViTModel, after `block`."""

    block: str
    query: str
    key: str
    value: str
    output: str
    expand: str
    project: str


# In files, and in models since version 5 of transformers.
_HUGGING_FACE = (
    _HuggingFace(
        r"encoder.layer.\1",
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
    _HuggingFace(
        r"layers.\1",
        "attention.q_proj",
        "attention.k_proj",
        "attention.v_proj",
        "attention.o_proj",
        "mlp.fc1",
        "mlp.fc2",
    ),
)


def _hugging_face(network: Network, names: _HuggingFace, prefix: str) -> Layout:
    """The layout of transformers' ViTModel under a prefix, a classifier beside it."""
    block = f"{prefix}{names.block}"
    embeddings = f"{prefix}embeddings"
    rules: Rules = (
        (r"patches", _plain(f"{embeddings}.patch_embeddings.projection")),
        (
            r"tokens/embedding",
            Scope((f"{embeddings}.position_embeddings", f"{embeddings}.cls_token")),
        ),
        (r"attention(\d+)/norm", _plain(f"{block}.layernorm_before")),
        (
            r"attention(\d+)/attention",
            _stacked(*(f"{block}.{n}" for n in (names.query, names.key, names.value))),
        ),
        (r"attention(\d+)/project", _plain(f"{block}.{names.output}")),
        (r"block(\d+)/norm", _plain(f"{block}.layernorm_after")),
        (r"block(\d+)/expand", _plain(f"{block}.{names.expand}")),
        (r"block(\d+)/project", _plain(f"{block}.{names.project}")),
        (r"norm", _plain(f"{prefix}layernorm")),
        (r"logits", _plain("classifier")),
    )
    beside = (f"{prefix}pooler.", f"{embeddings}.mask_token")
    return _renamed(network, rules)._replace(beside=beside)


_CLIP_BLOCK = r"vision_model.encoder.layers.\1"
_CLIP: Rules = (
    (r"patches", Scope(("vision_model.embeddings.patch_embedding.weight",))),
    (
        r"tokens/embedding",
        Scope(
            (
                "vision_model.embeddings.position_embedding.weight",
                "vision_model.embeddings.class_embedding",
            )
        ),
    ),
    # So it is spelt.
    (r"tokens/norm", _plain("vision_model.pre_layrnorm")),
    (r"attention(\d+)/norm", _plain(f"{_CLIP_BLOCK}.layer_norm1")),
    (
        r"attention(\d+)/attention",
        _stacked(*(f"{_CLIP_BLOCK}.self_attn.{part}_proj" for part in "qkv")),
    ),
    (r"attention(\d+)/project", _plain(f"{_CLIP_BLOCK}.self_attn.out_proj")),
    (r"block(\d+)/norm", _plain(f"{_CLIP_BLOCK}.layer_norm2")),
    (r"block(\d+)/expand", _plain(f"{_CLIP_BLOCK}.mlp.fc1")),
    (r"block(\d+)/project", _plain(f"{_CLIP_BLOCK}.mlp.fc2")),
    (r"norm", _plain("vision_model.post_layernorm")),
    (r"projected", Scope(("visual_projection.weight",))),
)
