"""What a representation responds to and ignores at an image, and what samples show.

Changes of an image are in units of its range, [0, 1].
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.images import spectrum
from invjax.sensitivity import effective_dimension, jacobian
from invjax.sensitivity.transformations import TRANSFORMATIONS, sensitivity
from invjax.types import PRNGKey, Representation

AMOUNTS: dict[str, tuple[float, ...]] = {
    "shift": (1.0, 2.0, 4.0),
    "shift_down": (1.0, 2.0, 4.0),
    "rotation": (1.0, 2.0, 5.0),
    "scale": (0.02, 0.05, 0.1),
    "brightness": (0.02, 0.05, 0.1),
    "contrast": (0.05, 0.1, 0.2),
    "blur": (0.5, 1.0, 2.0),
}
"""Amounts of each transformation; changes per unit are those at the first."""

STEPS = (0.001, 0.005, 0.02, 0.05)
"""Root mean square changes of the image along a direction."""

_CUTOFF = 0.01
"""Fraction of the largest singular value below which a direction counts as ignored."""


class Effort(NamedTuple):
    """How much is computed for one image.

    Attributes:
      num_values: number of singular values.
      num_products: number of products with the Jacobian, and with its transpose.
      num_probes: number of random probes for the effective dimension.
      null_steps: largest number of steps towards an ignored direction.
    """

    num_values: int = 8
    num_products: int = 32
    num_probes: int = 16
    null_steps: int = 100


SHORT = Effort(num_values=2, num_products=4, num_probes=2, null_steps=3)
"""The effort under --smoke."""


class Look(NamedTuple):
    """What `look` found.

    Attributes:
      record: a line of geometry.jsonl.
      leading: [h, w, c], the direction with the largest singular value.
      ignored: [h, w, c], a direction that the representation ignores.
    """

    record: dict[str, Any]
    leading: np.ndarray
    ignored: np.ndarray


def look(
    key: PRNGKey, phi: Representation, image: np.ndarray, *, effort: Effort
) -> Look:
    """Measures the Jacobian at an image; see `sensitivity.jacobian`.

    The ignored direction is what is left of a random one with the spectrum of
    photographs when every direction is removed that phi responds to by more than a
    hundredth of the largest singular value. The code's change along it is compared with
    that along the random direction itself.

    Args:
      key: draws the random directions.
      phi: the representation.
      image: [h, w, c] in phi's range.
      effort: how much is computed.
    """
    keys = jax.random.split(key, 3)
    smaller = min(image.size, jacobian.num_features(phi, image))
    num_products = min(effort.num_products, smaller)
    leading = jacobian.leading_directions(
        keys[0],
        phi,
        image,
        num=min(effort.num_values, num_products),
        num_products=num_products,
    )
    found = effective_dimension.effective_dimension(
        keys[1],
        phi,
        image,
        num_probes=effort.num_probes,
        num_products=num_products,
    )
    shape = (image.shape[0], image.shape[1], image.shape[2])
    natural = spectrum.natural_direction(keys[2], shape)
    null = jacobian.null_direction(
        phi,
        image,
        natural,
        cutoff=_CUTOFF * leading.values[0],
        max_steps=effort.null_steps,
    )
    along = {
        name: np.asarray(jacobian.code_change(phi, image, direction, STEPS))
        for name, direction in (("natural", natural), ("ignored", null.image))
    }
    record = {
        "singular_values": np.asarray(leading.values).tolist(),
        "residuals": np.asarray(leading.residuals).tolist(),
        "stable_rank": float(found.stable_rank.value),
        "stable_rank_error": float(found.stable_rank.standard_error),
        "participation_ratio": float(found.participation_ratio.value),
        "participation_ratio_error": float(found.participation_ratio.standard_error),
        "ignored_fraction": float(null.kept),
        "ignored_gain": float(null.gain),
        "natural_gain": float(null.first_gain),
        "ignored_steps": int(null.num_steps),
        "ignored_converged": bool(null.is_converged),
        "steps": list(STEPS),
        "code_change_natural": along["natural"].tolist(),
        "code_change_ignored": along["ignored"].tolist(),
    }
    return Look(record, np.asarray(leading.images[0]), np.asarray(null.image))


def invariances(
    phi: Representation, original: np.ndarray, samples: np.ndarray
) -> list[dict[str, Any]]:
    """A record per transformation: what it does to the code, and to the samples.

    The transformed originals, less the original, are fitted to the samples, less the
    original, by least squares, all transformations together and each at its smallest
    amount; so each sample is said to be shifted, turned and so on by some units, to
    first order. Mean and deviation over samples of that are given: where a code does
    not fix what a transformation does, the deviation may be large.

    Args:
      phi: the representation.
      original: [h, w, c].
      samples: [s, h, w, c].
    """
    records: list[dict[str, Any]] = []
    tangents = []
    for name, amounts in AMOUNTS.items():
        transformation = TRANSFORMATIONS[name]
        found = sensitivity(phi, original, transformation.apply, amounts)
        moved = transformation.apply(jnp.asarray(original), jnp.float32(amounts[0]))
        change = np.asarray(moved, np.float64) - original
        tangents.append(change.ravel() / amounts[0])
        records.append(
            {
                "transformation": name,
                "unit": transformation.unit,
                "amounts": list(amounts),
                "code_change": np.asarray(found.code).tolist(),
                "pixel_change": np.asarray(found.pixels).tolist(),
                "code_per_unit": float(found.code_slope),
                "pixels_per_unit": float(found.pixel_slope),
            }
        )
    fits = _fitted(np.stack(tangents, axis=1), original, samples)
    for record, amounts in zip(records, fits.T, strict=True):
        is_set = len(samples) > 1
        record["samples_mean"] = float(np.mean(amounts)) if len(samples) else None
        record["samples_deviation"] = float(np.std(amounts, ddof=1)) if is_set else None
    return records


def _fitted(
    tangents: np.ndarray, original: np.ndarray, samples: np.ndarray
) -> np.ndarray:
    """[s, t]: least-squares amounts; sample by sample, since many fill the memory."""
    inverse = np.linalg.pinv(tangents)
    rows = [
        inverse @ (np.clip(sample, 0, 1).astype(np.float64) - original).ravel()
        for sample in samples
    ]
    return np.stack(rows) if rows else np.zeros((0, tangents.shape[1]))
