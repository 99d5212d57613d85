"""Any callable as an argument of a compiled function.

A representation may be a registered pytree (ours, an Equinox module, a
`jax.tree_util.Partial`), or a plain function. Its array leaves are traced, so that new
weights cost no compilation and are not copied into the program; everything else is
static, compared by equality.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from invjax.types import Code, Image, Relaxable, Scalar


@jax.tree_util.register_pytree_node_class
class TracedCallable:
    """A callable as a pytree: arrays are its children, the rest is its structure."""

    def __init__(self, arrays: list[Any], structure: Any):
        self._arrays = arrays
        self._structure = structure

    @classmethod
    def of(cls, function: Any) -> "TracedCallable":
        """Wraps `function`.

        Raises:
          TypeError: a part of it that is no array cannot be hashed.
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
                f"nor hashable ({error}); pass a pure function or a pytree of arrays"
            ) from None
        return cls(arrays, structure)

    def __call__(self, image: Image) -> Code:
        return self._function()(image)

    def relaxed(self, amount: Scalar) -> "TracedCallable":
        """The callable with a relaxed derivative, or itself if it has none."""
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
        return self._arrays, self._structure

    @classmethod
    def tree_unflatten(cls, structure: Any, arrays: Any) -> "TracedCallable":
        return cls(list(arrays), structure)


def encode(phi: Any, image: ArrayLike) -> Code:
    """phi(image), compiled, with phi's arrays as arguments of the program.

    Args:
      phi: a representation.
      image: [h, w, c] in the range phi takes.
    """
    return _encode(TracedCallable.of(phi), jnp.asarray(image))


def code_shape(phi: Any, image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of phi's code of an image of `image_shape`; nothing is computed."""
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    # jit's own cache keeps this from tracing phi anew at every call.
    return _encode.eval_shape(TracedCallable.of(phi), image).shape


@jax.jit
def _encode(phi: TracedCallable, image: Image) -> Code:
    return phi(image)
