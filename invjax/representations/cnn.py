"""A layer of a convolutional network as a representation."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from invjax.networks import modules
from invjax.networks.layers import (
    Geometry,
    Layer,
    Network,
    geometry,
    has_parameters,
    parameter_shapes,
)
from invjax.networks.receptive_fields import ReceptiveField, Window, receptive_field
from invjax.networks.relaxation import Relaxation
from invjax.networks.weights import pretrained
from invjax.types import Code, Scalar


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "centre", "scale", "relaxation"],
    meta_fields=["name", "layers", "image_shape", "compute_dtype", "weights_digest"],
)
# Compared by identity, so that jax.jit(phi) works though its arrays have no hash.
@dataclasses.dataclass(frozen=True, eq=False)
class CnnRepresentation:
    """phi: RGB [h, w, 3] in [0, 1] -> the code of one layer, float32.

    Raises ValueError for an image that is not RGB, too small, or of another size than
    dense layers or a mean image are made for.

    A pytree: the weights below the cut and the preprocessing are its leaves.

    Attributes:
      params: {layer: {"kernel", "bias"}} below the cut.
      centre: mean colour [3] or mean image [h, w, 3], grey levels.
      scale: deviation per channel, grey levels; input = (255 image - centre) / scale.
      name: "network/layer".
      layers: the layer table up to the cut.
      image_shape: [h, w, 3] the network was trained at. Convolution layers take other
        sizes too; dense ones do not.
      compute_dtype: of the network's arithmetic; codes are float32 all the same.
      weights_digest: SHA-256 of the weights, or empty where they are the user's own.
      relaxation: of the derivative; None is exact. See `relaxed`.
    """

    params: Any
    centre: Array
    scale: Array
    name: str
    layers: tuple[Layer, ...]
    image_shape: tuple[int, int, int]
    compute_dtype: str = "float32"
    weights_digest: str = ""
    relaxation: Relaxation | None = None

    def __call__(self, image: ArrayLike) -> Code:
        image = jnp.asarray(image)
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise ValueError(f"{self.name} takes floats in [0, 1], not {image.dtype}")
        if image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(
                f"{self.name} takes an RGB image [h, w, 3], not {list(image.shape)}"
            )
        expected = parameter_shapes(self.layers, self.image_shape)
        if parameter_shapes(self.layers, image.shape) != expected:
            raise ValueError(
                f"{self.name} has dense layers and takes images of "
                f"{list(self.image_shape)}, not {list(image.shape)}"
            )
        if self.centre.ndim == 3 and self.centre.shape != image.shape:
            raise ValueError(
                f"{self.name} subtracts a mean image and takes images of "
                f"{list(self.centre.shape)}, not {list(image.shape)}"
            )
        centre = jnp.broadcast_to(self.centre, image.shape)
        x = (255 * image - centre) / jnp.broadcast_to(self.scale, image.shape)
        code = modules.forward(
            self.layers,
            self.params,
            x,
            dtype=jnp.dtype(self.compute_dtype),
            relaxed=self.relaxation,
        )
        return code.astype(image.dtype)

    def relaxed(self, amount: Scalar) -> "CnnRepresentation":
        """The same codes, with derivatives relaxed as far as `amount`, 0 to 1."""
        return dataclasses.replace(self, relaxation=Relaxation.of(amount))

    @property
    def geometry(self) -> Geometry:
        """Shape, receptive field and stride at `image_shape`."""
        return geometry(self.layers, self.image_shape)[-1]

    def receptive_field(
        self,
        *,
        window: Window | None = None,
        image_shape: tuple[int, ...] | None = None,
    ) -> ReceptiveField:
        """The pixels that a window of the code's units sees; None: all of them.

        Args:
          window: rows and columns of the code.
          image_shape: (h, w, 3); by default the network's own.

        Raises: as `receptive_fields.receptive_field`.
        """
        shape = self.image_shape if image_shape is None else image_shape
        return receptive_field(self.layers, shape, window=window)


def from_network(
    network: Network,
    layer: str,
    params: Any,
    *,
    mean: Any,
    std: Any,
    compute_dtype: DTypeLike = "float32",
    weights_digest: str = "",
) -> CnnRepresentation:
    """A network of your own, given by its layer table and parameters, cut at a layer.

    Args:
      network: the table.
      layer: where to cut.
      params: {layer: {"kernel", "bias"}}; those above the cut are ignored.
      mean: grey levels, [3] or [h, w, 3].
      std: grey levels, [3].
      compute_dtype: float32 or bfloat16, of the network's arithmetic.
      weights_digest: identifies the weights in the records of a run.

    Raises:
      ValueError: no such layer.
    """
    table = network.until(layer)
    needed = [part.name for part in table if has_parameters(part)]
    return CnnRepresentation(
        params={name: params[name] for name in needed},
        centre=jnp.asarray(np.asarray(mean, np.float32)),
        scale=jnp.asarray(np.asarray(std, np.float32)),
        name=f"{network.name}/{layer}",
        layers=table,
        image_shape=network.image_shape,
        compute_dtype=jnp.dtype(compute_dtype).name,
        weights_digest=weights_digest,
    )


def load(
    network: Network,
    layer: str,
    *,
    weights_dir: Any = None,
    compute_dtype: DTypeLike = "float32",
) -> CnnRepresentation:
    """A layer of a known network with its real weights; see `pretrained.load`."""
    weights = pretrained.load(network, layer, weights_dir=weights_dir)
    return from_network(
        network,
        layer,
        weights.params,
        mean=weights.preprocessing.mean,
        std=weights.preprocessing.std,
        compute_dtype=compute_dtype,
        weights_digest=weights.digest,
    )
