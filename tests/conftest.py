"""What every test runs under."""

import os
import pathlib

import jax
import numpy as np
import pytest
from absl import flags

from invjax.networks.layers import Conv, Dense, MaxPool, Network, Relu
from invjax.networks.weights import conversion
from invjax.representations import cnn
from invjax.representations.cnn import CnnRepresentation

MICRO = Network(
    name="micro",
    input_size=32,
    layers=(
        Conv("conv1", 8, kernel=5, stride=2, padding=2),
        Relu("relu1"),
        MaxPool("pool1", window=3, stride=2),
        Conv("conv2", 12, kernel=3, padding=1),
        Relu("relu2"),
        Dense("fc3", 10),
    ),
)
"""A network small enough to invert in milliseconds."""


def pytest_configure() -> None:
    jax.config.update("jax_numpy_rank_promotion", "raise")
    flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session", autouse=True)
def _weights_dir(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Converted weights go to a folder of the session, not to the checkout's."""
    folder: pathlib.Path = tmp_path_factory.mktemp("weights")
    os.environ["INVJAX_WEIGHTS"] = str(folder)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


def micro_representation(layer: str, seed: int = 0) -> CnnRepresentation:
    """A layer of `MICRO` with random weights."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in conversion.all_shapes(MICRO).items():
        scale = 0.1 if name.endswith("bias") else np.sqrt(2 / np.prod(shape[:-1]))
        tensor = scale * generator.normal(size=shape).astype(np.float32)
        tensors[name] = tensor.astype(np.float32)
    params = conversion.nest(tensors)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    return cnn.from_network(MICRO, layer, params, mean=mean, std=std)
