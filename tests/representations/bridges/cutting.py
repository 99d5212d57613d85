"""What tests of all bridges measure."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def flops(phi: Any) -> float:
    """Floating-point operations of the compiled program from an image to the code."""
    image = jax.ShapeDtypeStruct(phi.image_shape, jnp.float32)
    found = jax.jit(lambda phi, image: phi(image)).lower(phi, image).compile()
    costs: Any = found.cost_analysis()
    return float((costs[0] if isinstance(costs, list) else costs)["flops"])


def picture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A random image in [0, 1], float32."""
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def gradient(phi: Any, image: np.ndarray) -> np.ndarray:
    """The gradient of the sum of squares of a code."""
    pull = jax.jit(jax.grad(lambda image, phi: jnp.sum(phi(image) ** 2)))
    return np.asarray(pull(image, phi))


def distance(found: Any, wanted: Any) -> float:
    """|found - wanted| / |wanted|."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
