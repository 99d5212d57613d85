"""Makes library_networks.npz: what torchvision, timm and transformers compute.

    python -m tests.data.make_library_goldens

For each model it has the names and shapes of its state dict and its code of a fixed
image, with the weights of tests.networks.weights.library_weights. Transformers have
two blocks and few channels. It needs torch, torchvision, timm and transformers.
"""

import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
import torchvision
import transformers
from safetensors import safe_open

from tests.networks.weights import library_weights

FILE = pathlib.Path(__file__).parent / "library_networks.npz"

TORCHVISION = (
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "squeezenet1_0",
    "squeezenet1_1",
    "convnext_tiny",
)
TIMM = (
    "resnet18",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv3_small_100",
    "convnext_tiny",
)

# Transformers of images of 32 px in patches of 16.
_HUGGING_FACE: Any = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 16,
}
_TEXT: Any = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 24,
    "vocab_size": 30,
    "max_position_embeddings": 8,
}


def models() -> dict[str, tuple[torch.nn.Module, Callable[..., torch.Tensor]]]:
    """Every model, and what computes its code, by library/model."""
    found: dict[str, Any] = {}
    for name in TORCHVISION:
        found[f"torchvision/{name}"] = torchvision.models.get_model(name)
    for name in TIMM:
        found[f"timm/{name}"] = timm.create_model(name)
    found["torchvision/vit_b_16"] = torchvision.models.VisionTransformer(
        32, 16, 2, 3, 24, 96, num_classes=10
    )
    small: Any = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 32}
    found["timm/vit_base_patch16_224"] = timm.create_model(
        "vit_base_patch16_224", **small, num_classes=10
    )
    found["timm/vit_small_patch16_224.dino"] = timm.create_model(
        "vit_small_patch16_224", **small, num_classes=0
    )
    found["timm/vit_base_patch16_clip_quickgelu_224"] = timm.create_model(
        "vit_base_patch16_clip_quickgelu_224", **small, num_classes=8
    )
    rows = {name: (model, lambda model, x: model(x)) for name, model in found.items()}
    plain = transformers.ViTConfig(**_HUGGING_FACE, num_labels=10, layer_norm_eps=1e-6)
    clip = transformers.CLIPConfig(
        text_config={**_TEXT, "projection_dim": 8},
        vision_config={**_HUGGING_FACE, "projection_dim": 8},
        projection_dim=8,
    )
    rows["transformers/vit-base-patch16-224"] = (
        transformers.ViTForImageClassification(plain),
        lambda model, x: model(x).logits,
    )
    rows["transformers/dino-vits16"] = (
        transformers.ViTModel(plain),
        lambda model, x: model(x).last_hidden_state[:, 0],
    )
    rows["transformers/clip-vit-base-patch16"] = (
        transformers.CLIPModel(clip),
        lambda model, x: model.visual_projection(model.vision_model(x).pooler_output),
    )
    return rows


def saved_names(model: Any) -> dict[str, str]:
    """Names in a model's memory -> names in its file, by equal values."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        (path,) = pathlib.Path(folder).glob("*.safetensors")
        with safe_open(path, "pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}
    state = model.state_dict()
    pairs = {}
    for name, tensor in state.items():
        same = [n for n, other in stored.items() if torch.equal(tensor, other)]
        assert len(same) == 1, (name, same)
        pairs[name] = same[0]
    return pairs


def golden(
    model: torch.nn.Module,
    run: Callable[..., torch.Tensor],
    side: int,
    names: dict[str, str],
) -> tuple[str, np.ndarray]:
    """Names and shapes as JSON, and the code; `names` are those of weights in files."""
    shapes = {n: tuple(tensor.shape) for n, tensor in model.state_dict().items()}
    state = {
        name: torch.from_numpy(library_weights.draw(names.get(name, name), shape))
        for name, shape in shapes.items()
    }
    model.load_state_dict(state)
    x = library_weights.image(side).transpose(2, 0, 1)
    with torch.inference_mode():
        code = run(model.eval(), torch.from_numpy(np.ascontiguousarray(x))[None])[0]
    stored = {names.get(name, name): shape for name, shape in shapes.items()}
    return json.dumps(stored), code.numpy()


def main() -> None:
    arrays: dict[str, Any] = {}
    for name, (model, run) in models().items():
        print(name, flush=True)
        side = 32 if "vit" in name else 224
        kinds: dict[str, dict[str, str]] = {name: {}}
        if name.startswith("transformers/"):
            with torch.no_grad():
                for number, tensor in enumerate(model.state_dict().values()):
                    tensor.fill_(number)
            saved = saved_names(model)
            kinds = {name: saved}
            if any(other != stored for other, stored in saved.items()):
                kinds[f"{name}, in memory"] = {}
        for kind, names in kinds.items():
            shapes, code = golden(model, run, side, names)
            arrays[f"{kind}: shapes"] = np.array(shapes)
            arrays[f"{kind}: code"] = code
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
