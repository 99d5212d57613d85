"""Networks as functions of a state dict, in torchvision's names (transformers: timm's).

They are written from the published architectures with torch.nn.functional. Each returns
the activations after the layers that have names here. Import this module only after
`pytest.importorskip("torch")`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as f

State = Mapping[str, Tensor]


def activations(
    run: Callable[[State, Tensor], dict[str, Tensor]],
    state: Mapping[str, np.ndarray],
    x: np.ndarray,
) -> dict[str, np.ndarray]:
    """Activations by layer, as [h, w, c], [tokens, c] or [n]."""
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    with torch.inference_mode():
        image = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None]
        found = run(tensors, image)
    return {
        name: y[0].numpy().transpose(1, 2, 0) if y.ndim == 4 else y[0].numpy()
        for name, y in found.items()
    }


def _norm(state: State, name: str, x: Tensor, epsilon: float) -> Tensor:
    """Batch normalisation with its running statistics."""
    leaves = [state[f"{name}.{n}"] for n in ("running_mean", "running_var")]
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return f.batch_norm(x, *leaves, weight, bias, eps=epsilon)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return f.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def resnet18(state: State, x: Tensor) -> dict[str, Tensor]:
    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        norm = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
        y = f.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        return _norm(state, norm, y, 1e-5)

    found = {}
    x = f.max_pool2d(conv("conv1", x, 2).relu(), 3, 2, 1)
    found["stem"] = x
    for stage in range(1, 5):
        for block in range(2):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            kept = x if stride == 1 else conv(f"{name}.downsample.0", x, stride)
            y = conv(f"{name}.conv1", x, stride).relu()
            x = (conv(f"{name}.conv2", y) + kept).relu()
        found[f"layer{stage}"] = x
    found["pooled"] = x.mean((2, 3))
    found["logits"] = _linear(state, "fc", found["pooled"])
    return found


def _mobile_unit(
    state: State,
    name: str,
    x: Tensor,
    stride: int,
    activation: Callable[[Tensor], Tensor] | None,
    epsilon: float,
) -> Tensor:
    """A convolution `name`.0 (depthwise if its kernel is), and its normalisation."""
    weight = state[f"{name}.0.weight"]
    groups = x.shape[1] // weight.shape[1]
    y = f.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
    y = _norm(state, f"{name}.1", y, epsilon)
    return y if activation is None else activation(y)


def mobilenet_v2(state: State, x: Tensor) -> dict[str, Tensor]:
    # torchvision's last convolution of a block and its normalisation have no name in
    # common; here they get one.
    renamed = dict(state)
    for block in range(1, 18):
        last = 1 if block == 1 else 2
        start = f"features.{block}.conv"
        for name, tensor in state.items():
            for number, place in ((last, 0), (last + 1, 1)):
                if name.startswith(f"{start}.{number}.") and name.count(".") == 4:
                    leaf = name.rpartition(".")[2]
                    renamed[f"{start}.last.{place}.{leaf}"] = tensor

    def unit(name: str, x: Tensor, stride: int = 1, *, is_last: bool = False) -> Tensor:
        return _mobile_unit(
            renamed, name, x, stride, None if is_last else f.relu6, 1e-5
        )

    strides = {2: 2, 4: 2, 7: 2, 14: 2}
    x = unit("features.0", x, 2)
    found = {"stem": x}
    for block in range(1, 18):
        start, stride, y = f"features.{block}.conv", strides.get(block, 1), x
        if block > 1:
            y = unit(f"{start}.0", y)
        y = unit(f"{start}.{int(block > 1)}", y, stride)
        y = unit(f"{start}.last", y, is_last=True)
        x = x + y if x.shape == y.shape else y
        found[f"block{block - 1}"] = x
    found["head"] = unit("features.18", x)
    found["pooled"] = found["head"].mean((2, 3))
    found["logits"] = _linear(state, "classifier.1", found["pooled"])
    return found


# Blocks with a stride, number of blocks, and the first with hard swishes.
MOBILENET_V3 = {
    "mobilenet_v3_large": ({1, 3, 6, 12}, 15, 6),
    "mobilenet_v3_small": ({0, 1, 3, 8}, 11, 3),
}


def mobilenet_v3(name: str, state: State, x: Tensor) -> dict[str, Tensor]:
    strided, depth, first_swish = MOBILENET_V3[name]

    def unit(
        name: str,
        x: Tensor,
        activation: Callable[[Tensor], Tensor] | None,
        stride: int = 1,
    ) -> Tensor:
        return _mobile_unit(state, name, x, stride, activation, 1e-3)

    x = unit("features.0", x, f.hardswish, 2)
    found = {"stem": x}
    for block in range(depth):
        start = f"features.{block + 1}.block"
        activation = f.hardswish if block >= first_swish else f.relu
        y, number = x, 0
        if state[f"{start}.0.0.weight"].shape[1] > 1:
            y, number = unit(f"{start}.0", y, activation), 1
        stride = 2 if block in strided else 1
        y = unit(f"{start}.{number}", y, activation, stride)
        number += 1
        if f"{start}.{number}.fc1.weight" in state:
            factors = y.mean((2, 3))
            for part, bend in (("fc1", f.relu), ("fc2", f.hardsigmoid)):
                factors = bend(_linear(state, f"{start}.{number}.{part}", factors))
            y, number = y * factors[..., None, None], number + 1
        y = unit(f"{start}.{number}", y, None)
        x = x + y if x.shape == y.shape else y
        found[f"block{block}"] = x
    found["head"] = unit(f"features.{depth + 1}", x, f.hardswish)
    found["pooled"] = found["head"].mean((2, 3))
    found["hidden"] = f.hardswish(_linear(state, "classifier.0", found["pooled"]))
    found["logits"] = _linear(state, "classifier.3", found["hidden"])
    return found


_LEAVES = ("weight", "bias")

# The modules of torchvision's `features` that are pools, with the names here.
SQUEEZENET = {
    "squeezenet1_0": {2: "pool1", 6: "pool4", 11: "pool8"},
    "squeezenet1_1": {2: "pool1", 5: "pool3", 8: "pool5"},
}


def squeezenet(name: str, state: State, x: Tensor) -> dict[str, Tensor]:
    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        leaves = (state[f"{name}.{leaf}"] for leaf in _LEAVES)
        return f.conv2d(x, *leaves, stride=stride, padding=padding)

    found = {"conv1": conv("features.0", x, 2)}
    found["relu1"] = x = found["conv1"].relu()
    fire = 2
    for number in range(2, 13):
        if pool := SQUEEZENET[name].get(number):
            x = f.max_pool2d(x, 3, 2, ceil_mode=True)
            found[pool] = x
            continue
        start = f"features.{number}"
        y = conv(f"{start}.squeeze", x).relu()
        ends = conv(f"{start}.expand1x1", y), conv(f"{start}.expand3x3", y, 1, 1)
        x = torch.cat(ends, 1).relu()
        found[f"fire{fire}"] = x
        fire += 1
    found["conv10"] = conv("classifier.1", x)
    found["relu10"] = found["conv10"].relu()
    found["logits"] = found["relu10"].mean((2, 3))
    return found


def convnext_tiny(state: State, x: Tensor) -> dict[str, Tensor]:
    def norm(name: str, x: Tensor) -> Tensor:
        """Over the channels, which come last."""
        leaves = (state[f"{name}.{leaf}"] for leaf in _LEAVES)
        return f.layer_norm(x, x.shape[-1:], *leaves, eps=1e-6)

    def norm_places(name: str, x: Tensor) -> Tensor:
        return norm(name, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def conv(name: str, x: Tensor, stride: int) -> Tensor:
        leaves = (state[f"{name}.{leaf}"] for leaf in _LEAVES)
        return f.conv2d(x, *leaves, stride=stride)

    x = norm_places("features.0.1", conv("features.0.0", x, 4))
    found, number = {"stem": x}, 0
    for stage, depth in enumerate((3, 3, 9, 3)):
        if stage > 0:
            x = norm_places(f"features.{2 * stage}.0", x)
            x = conv(f"features.{2 * stage}.1", x, 2)
        for place in range(depth):
            start = f"features.{2 * stage + 1}.{place}"
            leaves = (state[f"{start}.block.0.{leaf}"] for leaf in _LEAVES)
            y = f.conv2d(x, *leaves, padding=3, groups=x.shape[1])
            y = norm(f"{start}.block.2", y.permute(0, 2, 3, 1))
            y = f.gelu(_linear(state, f"{start}.block.3", y))
            y = _linear(state, f"{start}.block.5", y).permute(0, 3, 1, 2)
            x = x + state[f"{start}.layer_scale"].reshape(-1, 1, 1) * y
            found[f"block{number}"] = x
            number += 1
    found["pooled"] = x.mean((2, 3))
    found["norm"] = norm("classifier.0", found["pooled"])
    found["logits"] = _linear(state, "classifier.2", found["norm"])
    return found


def transformer(
    state: State,
    x: Tensor,
    *,
    patch: int,
    heads: int,
    epsilon: float = 1e-6,
    is_clip: bool = False,
    last: str | None = None,
) -> dict[str, Tensor]:
    def norm(name: str, x: Tensor) -> Tensor:
        leaves = (state[f"{name}.{leaf}"] for leaf in _LEAVES)
        return f.layer_norm(x, x.shape[-1:], *leaves, eps=epsilon)

    weight = state["patch_embed.proj.weight"]
    x = f.conv2d(x, weight, state.get("patch_embed.proj.bias"), stride=patch)
    found = {"patches": x}
    width = x.shape[1]
    token = state["cls_token"].reshape(1, 1, width)
    x = torch.cat([token, x.flatten(2).transpose(1, 2)], 1)
    x = x + state["pos_embed"].reshape(1, -1, width)
    found["tokens"] = x = norm("norm_pre", x) if is_clip else x
    depth = sum(name.endswith("norm1.weight") for name in state)
    for block in range(depth):
        start = f"blocks.{block}"
        y = _linear(state, f"{start}.attn.qkv", norm(f"{start}.norm1", x))
        q, k, v = y[0].reshape(-1, 3, heads, width // heads).permute(1, 2, 0, 3)
        odds = (q @ k.transpose(1, 2) / (width // heads) ** 0.5).softmax(-1)
        read = (odds @ v).transpose(0, 1).reshape(1, -1, width)
        x = x + _linear(state, f"{start}.attn.proj", read)
        found[f"attention{block}"] = x
        y = _linear(state, f"{start}.mlp.fc1", norm(f"{start}.norm2", x))
        y = y * torch.sigmoid(1.702 * y) if is_clip else f.gelu(y)
        x = x + _linear(state, f"{start}.mlp.fc2", y)
        found[f"block{block}"] = x
    found["norm"] = norm("norm", x)
    found["pooled"] = found["norm"][:, 0]
    if last is not None:
        found[last] = _linear(state, "head", found["pooled"])
    return found
