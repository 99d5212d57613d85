"""Keeping the states of long descents, so that one that was killed goes on.

What a state is and when it is kept is the loop's matter; where it goes is that of a
`Keeper`. `runs.solver_states` is one, and keeps states in files.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np


@runtime_checkable
class Keeper(Protocol):
    """Keeps states of chunks of lanes; used from several threads, one for a chunk.

    A chunk is known by its `name`, which says what is in it and how it is run: another
    chunk's state is never taken for its own.
    """

    def is_due(self, name: str) -> bool:
        """Whether so much time has passed that the state should be kept again."""
        ...

    def save(self, name: str, step: int, state: Any) -> None:
        """Keeps a state.

        Args:
          name: name of the chunk.
          step: number of steps taken.
          state: tree of arrays, which may change or be deleted afterwards.
        """
        ...

    def restore(self, name: str, like: Callable[[int], Any]) -> tuple[int, Any] | None:
        """Returns the newest state that is whole, and its step; None where none is.

        Args:
          name: name of the chunk.
          like: a tree of arrays or of their types, as the state has after so many
            steps.
        """
        ...


def name_of(keys: jax.Array, *arrays: Any, options: Any) -> str:
    """A name of a chunk: 32 hexadecimal digits of a hash of all that is given.

    Args:
      keys: [l], the lanes' keys.
      *arrays: trees of arrays that belong to the lanes.
      options: what else the state depends on; its `repr` counts.
    """
    digest = hashlib.sha256(repr(options).encode())
    for leaf in jax.tree.leaves((keys, arrays)):
        array = np.ascontiguousarray(on_host(leaf))
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()[:32]


def is_key(leaf: Any) -> bool:
    """Whether an array, or its type, is of random keys."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def on_host(leaf: Any) -> np.ndarray:
    """A copy of an array in the host's memory; the words of random keys."""
    return np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def typed(array: np.ndarray, like: Any) -> Any:
    """The array that `on_host` had copied, with random keys in place of their words.

    Args:
      array: what `on_host` returned.
      like: the array that it had been given, or its type.
    """
    if not is_key(like):
        return array
    impl = jax.random.key_impl(jnp.empty((), like.dtype))
    return jax.random.wrap_key_data(jnp.asarray(array), impl=impl)
