"""Array aliases and the protocols of the function types, each contract in one place.

Letters of the shapes: h height, w width, c channels of one image; l lanes (one lane
is one inversion: an image's code, a start and a set of weights); t steps.
"""

from typing import Any, Protocol, runtime_checkable

from jax import Array
from jaxtyping import Float, Key, UInt32

Image = Float[Array, "h w c"]
"""One image; which range it is in is said where it is used."""

Code = Float[Array, "..."]
"""What a representation returns: an array of any rank."""

Scalar = Float[Array, ""]

PRNGKey = Key[Array, ""] | UInt32[Array, "2"]

PRNGKeys = Key[Array, " l"] | UInt32[Array, "l 2"]


@runtime_checkable
class Representation(Protocol):
    """A pure function of one image.

    Takes float32 [h, w, c] in [0, 1] (RGB, or one grey channel where the
    representation is defined on grey images) and returns an array of any shape. If it
    is a pytree, its array leaves are traced and the rest is static.
    """

    def __call__(self, image: Image, /) -> Code: ...


@runtime_checkable
class Relaxable(Protocol):
    """A representation that can pass gradients where its derivative is zero.

    `relaxed(amount)`, 0 to 1, has the same codes and a smoother function's derivative;
    see `relaxation`.
    """

    def relaxed(self, amount: Scalar, /) -> Representation: ...


@runtime_checkable
class DataTerm(Protocol):
    """How far a code is from its target: (code, target, mask) -> scalar."""

    def __call__(self, code: Code, target: Code, mask: Any, /) -> Scalar: ...
