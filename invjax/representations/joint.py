"""Several representations at once, whose code is a dict of theirs."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from invjax.networks import NETWORKS
from invjax.networks.layers import Network
from invjax.representations import cnn
from invjax.representations.cnn import CnnRepresentation
from invjax.representations.paper import SHALLOW, Dsift, Hog
from invjax.types import Code, Relaxable, Representation, Scalar

SEPARATOR = "+"
"""What stands between the names of representations in the name of a joint one."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["parts"],
    meta_fields=["name", "taken"],
)
# eq=False: hashed by identity, as networks cut at a layer are.
@dataclasses.dataclass(frozen=True, eq=False)
class JointRepresentation:
    """Maps an image to the codes of several representations, by their names.

    The layers of a network are taken from one pass through it. `load` makes one.

    Attributes:
      parts: each network, cut at the deepest of its layers that are taken, and each
        shallow representation.
      name: names of the representations with + between them, as they were asked for.
      taken: for each part, the names of the representations that it gives.
    """

    parts: tuple[Representation, ...]
    name: str
    taken: tuple[tuple[str, ...], ...]

    def __call__(self, image: ArrayLike) -> dict[str, Code]:
        codes: dict[str, Code] = {}
        for part, names in zip(self.parts, self.taken, strict=True):
            if isinstance(part, CnnRepresentation):
                found = part.activations(image, [*map(_layer, names)])
                codes |= {name: found[_layer(name)] for name in names}
            else:
                codes[names[0]] = part(jnp.asarray(image))
        return codes

    def relaxed(self, amount: Scalar) -> "JointRepresentation":
        """Returns a representation with the same codes and a relaxed derivative.

        Args:
          amount: 0 for the exact derivative, 1 for the fully relaxed one.
        """
        return self.with_parts(
            [
                part.relaxed(amount) if isinstance(part, Relaxable) else part
                for part in self.parts
            ]
        )

    def with_parts(self, parts: Sequence[Representation]) -> "JointRepresentation":
        """The same representations, of other networks with the same layers."""
        return dataclasses.replace(self, parts=tuple(parts))

    @property
    def each(self) -> dict[str, Any]:
        """The representations by name, in the order in which they were asked for."""
        found: dict[str, Any] = {}
        for part, names in zip(self.parts, self.taken, strict=True):
            for name in names:
                if isinstance(part, CnnRepresentation):
                    found[name] = part.until(_layer(name))
                else:
                    found[name] = part
        return {name: found[name] for name in self.name.split(SEPARATOR)}

    @property
    def is_shallow(self) -> bool:
        """Whether no network is among the representations."""
        return not self._networks

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(h, w, 3), the size at which the networks were trained.

        Raises:
          AttributeError: there is no network, so that images of any size are taken.
        """
        if self.is_shallow:
            raise AttributeError(f"{self.name} has no image_shape of its own")
        return self._networks[0].image_shape

    @property
    def centre(self) -> Any:
        """Grey levels around which images vary: the first network's mean, or 128."""
        return self._networks[0].centre if self._networks else 128.0

    @property
    def weights_digest(self) -> str:
        """Digests of the networks' weights with + between them."""
        return SEPARATOR.join(network.weights_digest for network in self._networks)

    @property
    def _networks(self) -> list[CnnRepresentation]:
        return [part for part in self.parts if isinstance(part, CnnRepresentation)]


def load(
    names: Sequence[str],
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    compute_dtype: DTypeLike = "float32",
) -> JointRepresentation:
    """Makes a joint representation of registered ones.

    Args:
      names: names of shallow representations and of layers of networks, two or more,
        all different. Networks must have been trained at one size.
      weights_dir, compute_dtype: as in `representation`.

    Raises:
      ValueError: there are fewer than two names, one is repeated or unknown, or the
        networks' sizes differ.
      LookupError: weights are not found.

    Examples:
      >>> load(["hogb", "dsift"])(jax.numpy.zeros((64, 64, 1)))["hogb"].shape
      (8, 8, 27)
    """
    whole = SEPARATOR.join(names)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"{whole!r} has fewer than two representations, or one twice; different "
            f"ones with {SEPARATOR} between them are accepted"
        )
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.partition("/")[0], []).append(name)
    _check_sizes(whole, layers)
    parts = [
        _part(group, own, weights_dir=weights_dir, compute_dtype=compute_dtype)
        for group, own in layers.items()
    ]
    return JointRepresentation(tuple(parts), whole, tuple(map(tuple, layers.values())))


def is_shallow(phi: Any) -> bool:
    """Whether a representation is HOG or dense SIFT, or consists of these."""
    if isinstance(phi, JointRepresentation):
        return phi.is_shallow
    return isinstance(phi, Hog | Dsift)


def members(phi: Any) -> list[Any]:
    """The representations of which a joint one consists; of any other, itself."""
    return [*phi.each.values()] if isinstance(phi, JointRepresentation) else [phi]


def _part(
    group: str, names: Sequence[str], *, weights_dir: Any, compute_dtype: DTypeLike
) -> Representation:
    if group in SHALLOW:
        return SHALLOW[group]
    network = NETWORKS[group]
    deepest = max(map(_layer, names), key=lambda layer: len(network.until(layer)))
    return cnn.load(
        network, deepest, weights_dir=weights_dir, compute_dtype=compute_dtype
    )


def _check_sizes(whole: str, layers: Mapping[str, Sequence[str]]) -> None:
    networks: list[Network] = [NETWORKS[group] for group in layers if group in NETWORKS]
    if len({network.image_shape for network in networks}) > 1:
        sizes = ", ".join(
            f"{network.name} {network.input_size} px" for network in networks
        )
        raise ValueError(
            f"{whole!r}: the networks take images of different sizes, {sizes}; "
            "networks of one size are accepted"
        )


def _layer(name: str) -> str:
    return name.partition("/")[2]
