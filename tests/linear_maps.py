"""Matrices of known factors as representations."""

import jax
import jax.numpy as jnp
import numpy as np

SHAPE = (4, 5, 2)
SIZE = 40


def with_values(num_features: int, values: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """[num_features, 40] with the given singular values, float64."""
    generator = np.random.default_rng(seed)
    left, _ = np.linalg.qr(generator.normal(size=(num_features, len(values))))
    right, _ = np.linalg.qr(generator.normal(size=(SIZE, len(values))))
    return (left * values) @ right.T


def linear(matrix: np.ndarray):
    """The matrix as a representation, an array leaf of a pytree."""
    return jax.tree_util.Partial(_apply, jnp.asarray(matrix, jnp.float32))


def _apply(matrix, image):
    return matrix @ image.ravel()
