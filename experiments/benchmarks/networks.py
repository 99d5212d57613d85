"""Network layers with random weights, since speed does not depend on the weights."""

import jax.numpy as jnp
import numpy as np

from invjax import callables
from invjax.networks import NETWORKS, layers
from invjax.networks.layers import Network
from invjax.networks.weights import conversion
from invjax.representations import cnn
from invjax.representations.cnn import CnnRepresentation
from invjax.types import Representation

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def find(name: str) -> tuple[Network, str]:
    """The network and the layer's name, given "network/layer".

    Raises:
      ValueError: there is no such network or layer.
    """
    network, _, layer = name.partition("/")
    if network not in NETWORKS:
        raise ValueError(f"no network {network!r}; there are {', '.join(NETWORKS)}")
    NETWORKS[network].until(layer)
    return NETWORKS[network], layer


def random(
    network: Network, layer: str, *, compute_dtype: str = "float32"
) -> CnnRepresentation:
    """A layer with seeded weights that keep activations of order one."""
    generator = np.random.default_rng(0)
    shapes = layers.parameter_shapes(network.until(layer), network.image_shape)
    tensors = {}
    for name, shape in shapes.items():
        scale = 0.1 if name.endswith("bias") else np.sqrt(2 / np.prod(shape[:-1]))
        drawn = generator.standard_normal(shape, np.float32)
        tensors[name] = jnp.asarray(drawn * np.float32(scale))
    return cnn.from_network(
        network,
        layer,
        conversion.nest(tensors),
        mean=_MEAN,
        std=_STD,
        compute_dtype=compute_dtype,
    )


def random_codes(
    phi: Representation, number: int, *, image_shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """[number, ...]: the code of one seeded image, repeated without copies.

    Args:
      phi: the representation.
      number: number of codes.
      image_shape: (h, w, c); by default the representation's own.
    """
    shape = image_shape or phi.image_shape  # type: ignore[attr-defined]
    image = np.random.default_rng(1).random(shape, np.float32)
    code = np.asarray(callables.encode(phi, image))
    return np.broadcast_to(code, (number, *code.shape))
