"""Array aliases, and protocols that state what a function type takes and returns.

Letters in shapes: h, w, c are height, width and channels of one image; l counts lanes
(one lane is one batch element: a code, a start and a set of weights); t counts steps.

Nothing here takes JAX's default types: draws, constants and sums say theirs, so that
results are float32 to the same bit whether JAX is in its 64-bit mode or not, and no
type is promoted implicitly. Libraries that do otherwise run in `ordinary_types`.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import jax
from jax import Array
from jaxtyping import Float, Key, PyTree, UInt32

Image = Float[Array, "h w c"]
"""One image. Functions that take or return one state its value range."""

Features = Float[Array, "..."]
"""One array of a code, of any rank."""

if TYPE_CHECKING:
    Code: TypeAlias = Any
else:
    Code = PyTree[Features]
    """The output of a representation: one array of any rank, or several as a pytree."""

Scalar = Float[Array, ""]
"""One number as an array without axes."""

PRNGKey = Key[Array, ""] | UInt32[Array, "2"]
"""One random key: typed (`jax.random.key`) or raw (`jax.random.PRNGKey`)."""

PRNGKeys = Key[Array, " l"] | UInt32[Array, "l 2"]
"""One random key per lane."""


KeyLike: TypeAlias = Any
"""A random key, typed or raw; `identity.one_key` refuses what is none."""

KeysLike: TypeAlias = Any
"""A key for each lane, an array or a list; `identity.lane_keys` refuses others."""

RepresentationLike: TypeAlias = Any
"""A `Representation` or its name; what cannot be called is refused."""


@runtime_checkable
class Representation(Protocol):
    """A pure function of one image.

    It takes float32 [h, w, c] in [0, 1] (RGB, or one channel where the representation
    is defined on grey images) and returns an array of any shape, or several arrays as a
    pytree, such as a dict by layer. If it is a pytree itself, its array leaves are
    traced and everything else is static.
    """

    def __call__(self, image: Image, /) -> Code: ...


@runtime_checkable
class Relaxable(Protocol):
    """A representation that can pass gradients where its derivative is zero.

    `relaxed(amount)`, with amount from 0 to 1, returns a representation with the same
    codes and the derivative of a smoother function; see `networks.relaxation`.
    """

    def relaxed(self, amount: Scalar, /) -> Representation: ...


@runtime_checkable
class DataTerm(Protocol):
    """How far an array of a code is from its target: (code, target, mask) -> scalar."""

    def __call__(self, code: Features, target: Features, mask: Any, /) -> Scalar: ...


@contextlib.contextmanager
def ordinary_types() -> Iterator[None]:
    """A context in which JAX's default types are 32 bits wide and promote each other.

    It is for calls of libraries that draw, count or add in default types. It may be
    entered while a function is traced.

    Examples:
      >>> with ordinary_types():
      ...     jax.numpy.zeros(2).dtype
      dtype('float32')
    """
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield
