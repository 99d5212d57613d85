"""What names an image, a code and a lane: 32 bits of their content, and keys from them.

A lane's key comes from the seed, the content of its image and the number of its start,
so that its result does not depend on file names or on what else is inverted.
"""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.types import PRNGKey, PRNGKeys


def bytes_id(data: bytes) -> int:
    """The first 32 bits of the SHA-256 of bytes, read big endian.

    Examples:
      >>> bytes_id(b"")
      3820012610
    """
    return int.from_bytes(hashlib.sha256(data).digest()[:4], "big")


def code_id(code: Any) -> int:
    """The first 32 bits of the SHA-256 of a code's float32 bytes.

    The values are hashed in C order as little-endian float32 on every machine; the
    digest's bits are read big endian.

    Args:
      code: an array, or a pytree of arrays, which are hashed one after the other.
    """
    parts = (np.asarray(part, "<f4").tobytes() for part in jax.tree.leaves(code))
    return bytes_id(b"".join(parts))


def lane_key(seed: int, image_id: int, start: int) -> PRNGKey:
    """The key of a lane, from what the lane is and not from its place in a batch.

    Args:
      seed: the seed of the run, 0 <= seed < 2^32.
      image_id: 32 bits that name the image or the code; see `images.image_id` and
        `code_id`.
      start: number of the start, from 0.

    Raises:
      ValueError: one of them is not in 32 bits.
    """
    for name, number in (("seed", seed), ("image_id", image_id), ("start", start)):
        if not 0 <= number < 2**32:
            raise ValueError(f"{name} is {number}; 0 to 2^32 - 1 is accepted")
    key = jax.random.fold_in(jax.random.key(seed), np.uint32(image_id))
    return jax.random.fold_in(key, np.uint32(start))


def one_key(key: Any) -> PRNGKey:
    """Returns a random key as a typed one, or says why it is none.

    Args:
      key: a key of `jax.random.key` or `lane_key`, or a raw one of
        `jax.random.PRNGKey`.

    Raises:
      TypeError: it is not a key, such as the number of a seed.
      ValueError: there are several keys.

    Examples:
      >>> one_key(jax.random.PRNGKey(0)) == jax.random.key(0)
      Array(True, dtype=bool)
    """
    typed = _typed(key)
    if typed.ndim:
        raise ValueError(
            f"key has shape {typed.shape}; one key is accepted: take one of them, "
            "such as keys[0]"
        )
    return typed


def lane_keys(keys: Any, *, num: int | None = None, what: str = "codes") -> PRNGKeys:
    """Returns the keys of lanes as one typed array [l], or says why they do not fit.

    Args:
      keys: an array [l] of keys, typed or raw, or a list of keys.
      num: l; None for any number of keys.
      what: what there are `num` of.

    Raises:
      TypeError: something is not a key, such as the number of a seed.
      ValueError: there is one key alone, or not one for each of `num`.
    """
    if isinstance(keys, list | tuple) and keys:
        typed = jnp.stack([one_key(key) for key in keys])
    else:
        typed = _typed(keys)
    if typed.ndim == 1 and num in (None, len(typed)):
        return typed
    if typed.ndim > 1:
        raise ValueError(
            f"keys have shape {typed.shape}; an array of one axis is accepted"
        )
    found = "one key" if typed.ndim == 0 else f"{len(typed)} keys"
    wanted = "a key for each lane" if num is None else f"as many keys as {what}, {num},"
    raise ValueError(
        f"keys: {found}; {wanted} are accepted: jax.random.split(key, "
        f"{'n' if num is None else num}), or a list of lane_key"
    )


def _typed(key: Any) -> Any:
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return key
    if dtype == np.uint32 and key.ndim:
        try:
            return jax.random.wrap_key_data(jnp.asarray(key))
        except (TypeError, ValueError):
            pass
    shown = f"{key!r:.40}" if dtype is None else f"an array {dtype}{list(key.shape)}"
    raise TypeError(
        f"key is {' '.join(shown.split())}; a random key is accepted: "
        "jax.random.key(0), or invjax.lane_key(seed, image_id, start)"
    )
