"""Any callable as an argument of a compiled function.

A representation may be a plain function or a registered pytree (one of invjax, an
Equinox module, a `jax.tree_util.Partial`). Its array leaves are traced, so that other
weights need no new compilation and weights are not copied into the program. Everything
else is static and compared by equality.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from invjax.types import Code, Image, Relaxable, Scalar


@jax.tree_util.register_pytree_node_class
class TracedCallable:
    """A callable as a pytree: its arrays are the leaves, the rest is static.

    Made by `TracedCallable.of`.
    """

    def __init__(self, arrays: list[Any], structure: Any) -> None:
        self._arrays = arrays
        self._structure = structure

    @classmethod
    def of(cls, function: Any) -> "TracedCallable":
        """Wraps a callable; one that is wrapped already is returned as it is.

        Args:
          function: a plain function, or a pytree that can be called.

        Raises:
          TypeError: the callable has a part that is neither an array nor hashable.

        Examples:
          >>> double = jax.tree_util.Partial(jnp.multiply, jnp.float32(2))
          >>> jax.tree.leaves(TracedCallable.of(double))
          [Array(2., dtype=float32)]
        """
        if isinstance(function, cls):
            return function
        leaves, treedef = jax.tree.flatten(function)
        is_array = tuple(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)
        arrays = [leaf for leaf, traced in zip(leaves, is_array, strict=True) if traced]
        static = tuple(
            leaf for leaf, traced in zip(leaves, is_array, strict=True) if not traced
        )
        structure = (treedef, is_array, static)
        try:
            hash(structure)
        except TypeError as error:
            raise TypeError(
                f"representation {function!r:.80} has a part that is neither an array "
                f"nor hashable ({error}); a pure function, or a pytree of arrays and "
                "hashable values, is accepted"
            ) from None
        return cls(arrays, structure)

    def __call__(self, image: Image) -> Code:
        """The code of one image [h, w, c], in the range the callable takes."""
        return self._function()(image)

    def relaxed(self, amount: Scalar) -> "TracedCallable":
        """The callable with a relaxed derivative, or itself if it is not `Relaxable`.

        Args:
          amount: 0 (exact derivatives) to 1; see `networks.relaxation`.
        """
        function = self._function()
        if not isinstance(function, Relaxable):
            return self
        return TracedCallable.of(function.relaxed(amount))

    def _function(self) -> Any:
        treedef, is_array, static = self._structure
        arrays, others = iter(self._arrays), iter(static)
        leaves = [next(arrays) if traced else next(others) for traced in is_array]
        return jax.tree.unflatten(treedef, leaves)

    def tree_flatten(self) -> tuple[list[Any], Any]:
        """(arrays, static structure), for JAX."""
        return self._arrays, self._structure

    @classmethod
    def tree_unflatten(cls, structure: Any, arrays: Any) -> "TracedCallable":
        """The reverse of `tree_flatten`, for JAX."""
        return cls(list(arrays), structure)


def encode(phi: Any, image: ArrayLike) -> Code:
    """The code phi(image), computed by a compiled program that takes phi's arrays.

    Args:
      phi: a representation: any pure function of one image.
      image: [h, w, c], in the range that phi takes.

    Raises:
      TypeError: phi has a part that is neither an array nor hashable.

    Examples:
      >>> encode(lambda image: image.mean((0, 1)), jnp.ones((2, 2, 3)))
      Array([1., 1., 1.], dtype=float32)
    """
    return _encode(TracedCallable.of(phi), jnp.asarray(image))


def code_shape(phi: Any, image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the code of an image, found by tracing phi without computing anything.

    Args:
      phi: a representation: any pure function of one image.
      image_shape: (h, w, c) of the image, which is taken to be float32.

    Raises:
      TypeError: phi has a part that is neither an array nor hashable.

    Examples:
      >>> code_shape(lambda image: image[::2, ::2], (8, 6, 3))
      (4, 3, 3)
    """
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    # Through jit, whose cache spares tracing phi again at every call.
    return _encode.eval_shape(TracedCallable.of(phi), image).shape


@jax.jit
def _encode(phi: TracedCallable, image: Image) -> Code:
    return phi(image)
