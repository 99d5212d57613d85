"""Networks cut at a layer, as representations."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from invjax.images import pixels
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
from invjax.networks.weights.batch_norm import Statistics
from invjax.networks.weights.pretrained import MissingWeights
from invjax.types import Code, Scalar

_NO_STATISTICS = Statistics()


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "centre", "scale", "relaxation"],
    meta_fields=[
        *("name", "layers", "image_shape", "compute_dtype", "weights_digest"),
        "statistics",
    ],
)
# eq=False: hashed by identity, which jax.jit(phi) needs, since arrays have no hash.
@dataclasses.dataclass(frozen=True, eq=False)
class CnnRepresentation:
    """Maps an RGB image [h, w, 3] in [0, 1] to the code of one layer, float32.

    It is a pytree whose leaves are the weights below the cut and the preprocessing.
    Calling it raises ValueError for an image that is not RGB, is too small, or has
    another size than dense layers or a mean image require.

    Attributes:
      params: {layer: {"kernel", "bias"}} for the layers below the cut.
      centre: mean colour [3] or mean image [h, w, 3], in grey levels.
      scale: standard deviation of each channel [3], in grey levels; the network's input
        is (255 image - centre) / scale.
      name: "network/layer".
      layers: layer table up to the cut.
      image_shape: (h, w, 3), the size at which the network was trained. Convolutional
        layers take other sizes too; dense ones and tokens do not.
      compute_dtype: name of the type in which the network computes; codes are float32
        either way.
      weights_digest: SHA-256 of the weights; empty for the user's own weights.
      relaxation: how the derivative is relaxed, see `relaxed`; None for the exact
        derivative.
      statistics: what batch normalisation knew about convolutions below the cut; empty
        where it is not known (see `batch_norm_statistics`).
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
    statistics: Statistics = _NO_STATISTICS

    def __call__(self, image: ArrayLike) -> Code:
        image = self._checked(image)
        code = modules.forward(
            self.layers,
            self.params,
            self._preprocessed(image),
            dtype=jnp.dtype(self.compute_dtype),
            relaxed=self.relaxation,
        )
        return code.astype(image.dtype)

    def activations(self, image: ArrayLike, layers: Sequence[str]) -> dict[str, Code]:
        """Returns the codes of several layers up to the cut, of one pass.

        Args:
          image: as for the representation itself.
          layers: names of the layers, in any order.

        Returns:
          Layer -> code, float32, the same as that of the network cut there.
        """
        image = self._checked(image)
        found = modules.activations(
            self.layers,
            self.params,
            self._preprocessed(image),
            dtype=jnp.dtype(self.compute_dtype),
            relaxed=self.relaxation,
        )
        return {layer: found[layer].astype(image.dtype) for layer in layers}

    def until(self, layer: str) -> "CnnRepresentation":
        """Returns the same network cut at a layer further down, with its weights.

        Args:
          layer: name of a layer up to the cut.

        Raises:
          ValueError: there is no such layer below the cut.
        """
        network, _, cut = self.name.partition("/")
        table = Network(f"{network} up to {cut}", self.image_shape[0], self.layers)
        kept = table.until(layer)
        needed = [part.name for part in kept if has_parameters(part)]
        return dataclasses.replace(
            self,
            params={name: self.params[name] for name in needed},
            name=f"{network}/{layer}",
            layers=kept,
            statistics=self.statistics.of_layers(tuple(needed)),
        )

    def convolution_outputs(self, image: ArrayLike) -> dict[str, Array]:
        """Returns the outputs of all convolutions below the cut, before any ReLU.

        They are what `batch_norm_statistics` describes. Their derivatives are exact.

        Args:
          image: as for the representation itself.

        Returns:
          Name of the convolution, as "conv1" or "block3/expand" -> float32 [h, w, c].
        """
        x = self._preprocessed(self._checked(image))
        return modules.convolution_outputs(self.layers, self.params, x)

    def _checked(self, image: ArrayLike) -> Array:
        """The image as an array, or an error that says which images are accepted."""
        pixels.check_type(image, name=self.name)
        image = jnp.asarray(image)
        if image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(
                f"{self.name} takes an RGB image [h, w, 3], not {list(image.shape)}"
            )
        expected = parameter_shapes(self.layers, self.image_shape)
        if parameter_shapes(self.layers, image.shape) != expected:
            raise ValueError(
                f"{self.name} has dense layers or tokens and takes images of "
                f"{list(self.image_shape)}, not {list(image.shape)}"
            )
        if self.centre.ndim == 3 and self.centre.shape != image.shape:
            raise ValueError(
                f"{self.name} subtracts a mean image and takes images of "
                f"{list(self.centre.shape)}, not {list(image.shape)}"
            )
        return image

    def _preprocessed(self, image: Array) -> Array:
        """The network's input."""
        centre = jnp.broadcast_to(self.centre, image.shape)
        return (255 * image - centre) / jnp.broadcast_to(self.scale, image.shape)

    def relaxed(self, amount: Scalar) -> "CnnRepresentation":
        """Returns a representation with the same codes and a relaxed derivative.

        Args:
          amount: 0 for the exact derivative, 1 for the fully relaxed one.
        """
        return dataclasses.replace(self, relaxation=Relaxation.of(amount))

    @property
    def geometry(self) -> Geometry:
        """Code shape, receptive field and stride at `image_shape`."""
        return geometry(self.layers, self.image_shape)[-1]

    def receptive_field(
        self,
        *,
        window: Window | None = None,
        image_shape: tuple[int, ...] | None = None,
    ) -> ReceptiveField:
        """Returns the pixels on which a window of the code depends.

        Args:
          window: rows and columns of the code; None for the whole code.
          image_shape: (h, w, 3); by default the attribute `image_shape`.

        Raises:
          ValueError: as in `receptive_fields.receptive_field`.
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
    statistics: Statistics = _NO_STATISTICS,
) -> CnnRepresentation:
    """Cuts a network with your own parameters at a layer.

    Args:
      network: layer table of the network.
      layer: name of the layer whose output is the code.
      params: {layer: {"kernel", "bias"}}; layers above the cut are ignored.
      mean: mean colour [3] or mean image [h, w, 3], in grey levels.
      std: standard deviation of each channel [3], in grey levels.
      compute_dtype: float32 or bfloat16, the type in which the network computes.
      weights_digest: identifies the weights in the records of a run.
      statistics: what batch normalisation knew, which was folded into `params`; that of
        layers above the cut is ignored.

    Raises:
      ValueError: the network has no such layer.
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
        statistics=statistics.of_layers(tuple(needed)),
    )


def load(
    network: Network,
    layer: str,
    *,
    weights_dir: Any = None,
    compute_dtype: DTypeLike = "float32",
) -> CnnRepresentation:
    """Cuts a network with its published weights at a layer.

    Args:
      network: a network of `networks.NETWORKS`.
      layer: name of the layer whose output is the code.
      weights_dir: folder of converted weights; see `representation`.
      compute_dtype: float32 or bfloat16, the type in which the network computes.

    Raises:
      ValueError: the network has no such layer.
      LookupError: the weights are not found; see `pretrained.load`.
    """
    weights = pretrained.load(network, layer, weights_dir=weights_dir)
    return from_network(
        network,
        layer,
        weights.params,
        mean=weights.preprocessing.mean,
        std=weights.preprocessing.std,
        compute_dtype=compute_dtype,
        weights_digest=weights.digest,
        statistics=weights.statistics,
    )


def batch_norm_statistics(phi: CnnRepresentation) -> Statistics:
    """Returns what batch normalisation knew about the convolutions below the cut.

    Normalisation is folded into the convolutions, whose outputs
    (`CnnRepresentation.convolution_outputs`) then had these means and standard
    deviations over the training set and all places. The numbers are no leaves of phi:
    pass them on as arguments of what is compiled.

    Args:
      phi: a network cut at a layer.

    Returns:
      Name of the convolution, as "stem/conv" -> `Moments(mean [c], std [c])`, in the
      order of the network.

    Raises:
      LookupError: the weights have none, because the network has no batch
        normalisation, or because they were converted before statistics were kept; the
        message has the command that converts them again.
    """
    if phi.statistics:
        return phi.statistics
    raise MissingWeights(f"{phi.name}: {pretrained.why_no_statistics(phi.name)}")
