"""What names an image, a code and a lane: 32 bits of their content, and keys from them.

A lane's key comes from the seed, the content of its image and the number of its start,
so that its result does not depend on file names or on what else is inverted.
"""

import hashlib

import jax
import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import ArrayLike

from invjax.types import PRNGKey


def quantise(image: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Clips to [0, 1] and rounds to the nearest of the 256 levels.

    Raises:
      ValueError: a pixel is infinite or not a number.
    """
    if not np.isfinite(image).all():
        raise ValueError("the image holds values that are infinite or not a number")
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def image_id(image: Float[np.ndarray, "h w c"]) -> int:
    """The first 32 bits of the SHA-256 of the 8-bit pixels, row by row, big endian.

    Args:
      image: [h, w, c] in [0, 1].

    Raises:
      ValueError: a pixel is infinite or not a number.

    Examples:
      >>> import numpy as np
      >>> image_id(np.zeros((2, 2, 3), np.float32))
      367819760
    """
    return _digest(quantise(image).tobytes())


def code_id(code: ArrayLike) -> int:
    """The first 32 bits of the SHA-256 of a code's float32 bytes.

    The values are hashed in C order as little-endian float32 on every machine; the
    digest's bits are read big endian.
    """
    return _digest(np.asarray(code, "<f4").tobytes())


def lane_key(seed: int, image_id: int, start: int) -> PRNGKey:
    """The key of a lane, from what the lane is and not from its place in a batch.

    Args:
      seed: the seed of the run, 0 <= seed < 2^32.
      image_id: 32 bits that name the image or the code; see `image_id` and `code_id`.
      start: number of the start, from 0.

    Raises:
      ValueError: one of them is not in 32 bits.
    """
    for name, number in (("seed", seed), ("image_id", image_id), ("start", start)):
        if not 0 <= number < 2**32:
            raise ValueError(f"{name} is {number}; 0 to 2^32 - 1 is accepted")
    key = jax.random.fold_in(jax.random.key(seed), np.uint32(image_id))
    return jax.random.fold_in(key, np.uint32(start))


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
