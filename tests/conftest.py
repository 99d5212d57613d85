"""Inputs that many tests share, and the list of those marked `core`."""

import pathlib

import jax
import numpy as np
import pytest

from invjax.networks.layers import Conv, Dense, MaxPool, Network, Relu
from invjax.networks.weights import conversion
from invjax.representations import cnn
from invjax.representations.cnn import CnnRepresentation

pytest_plugins = ["tests.environment"]
"""A plugin, and not this file, so that it holds for the doctests of invjax, too."""

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


HERE = pathlib.Path(__file__).parent

CORE = (
    "images",
    "inversion/test_api.py",
    "inversion/test_objective.py",
    "inversion/test_presets.py",
    "inversion/test_regularisers.py",
    "inversion/test_solvers.py",
    "metrics/test_errors.py",
    "networks/test_layers.py",
    "networks/weights/test_checkpoints.py",
    "networks/weights/test_conversion.py",
    "networks/weights/test_file_kinds.py",
    "networks/weights/test_formats.py",
    "networks/weights/test_preprocessing_choice.py",
    "networks/weights/test_readers.py",
    "networks/weights/test_torch_files.py",
    "networks/weights/test_wrappings.py",
    "report",
    "representations/test_cnn.py",
    "representations/test_dsift.py",
    "representations/test_hog.py",
    "representations/test_masks.py",
)
"""Folders and files of the tests that are marked `core`, relative to this folder."""


def pytest_ignore_collect(collection_path: pathlib.Path) -> bool | None:
    """Doctests are collected from invjax, and not from what is beside the tests."""
    is_helper = collection_path.suffix == ".py" and not collection_path.match("test_*")
    return True if is_helper else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the core tests, but for those that are slow."""
    folders = [HERE / name for name in CORE]
    for item in items:
        is_core = any(item.path.is_relative_to(folder) for folder in folders)
        if is_core and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.core)


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
