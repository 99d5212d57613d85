"""Codes and gradients on this device, beside those of a CPU in full float32.

The CPU's values are kept in parity_goldens.npz as the norm and `NUM_PROJECTIONS` fixed
random projections of each code and gradient: the root mean square of the differences of
the projections estimates the norm of the difference itself, within 18 % or so. The
weights are the published ones. The image is a sample photograph with a little noise:
differences of 8-bit pixels often point exactly along the boundaries between
orientations, where rounding alone decides on the gradients of HOG and dense SIFT. The
gradient of a layer is that of a fixed random combination of its features. One backward
pass of as many copies as there are layers gives all of them.

    python -m experiments.benchmarks.parity

computes the values of the CPU anew.
"""

import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from experiments.benchmarks import op_forms, precisions
from experiments.benchmarks.conditions import Conditions
from experiments.benchmarks.report import Report, Subject
from experiments.benchmarks.timing import print_left_out
from invjax import files
from invjax.images import pixels, sources
from invjax.images.pixels import ImageError
from invjax.networks import NETWORKS, modules
from invjax.networks.weights import pretrained
from invjax.networks.weights.pretrained import MissingWeights
from invjax.representations.cnn import CnnRepresentation

GOLDENS = pathlib.Path(__file__).parent / "parity_goldens.npz"
NUM_PROJECTIONS = 16
FAMILIES = ("shallow", "alexnet", "vgg16", "efficientnet_lite0")
_SHALLOW = ("hog", "hogb", "dsift")
_PHOTOGRAPH = "chelsea"
_NOISE = 0.01
_BLOCK = 64
"""Random signs are drawn so many at once."""

TOLERANCES = {"float32": (1e-4, 1e-2), "tf32": (1e-2, 2e-1)}
"""Precision -> largest relative differences of codes and of gradients to be expected.

Gradients differ by more than rounding where a ReLU or a maximum decides otherwise.
"""


class _Values(NamedTuple):
    """The code of a layer, and the gradient of a random combination of its features."""

    code: np.ndarray
    gradient: np.ndarray


def run(report: Report, conditions: Conditions) -> None:
    """Compares every representation at hand, then the forms of operations.

    Args:
      report: where the records go.
      conditions: how much is compared.
    """
    is_gpu = jax.default_backend() == "gpu"
    chosen = ("float32", "tf32") if is_gpu else ("float32",)
    goldens = dict(np.load(GOLDENS))
    for family in FAMILIES[:2] if conditions.is_small else FAMILIES:
        for precision in chosen:
            _compare(report, family, precision, goldens, conditions)
    for precision in (*chosen, "bfloat16"):
        _compare_forms(report, precision, conditions)


def differences(
    family: str, precision: str, goldens: Mapping[str, Any], weights_dir: str | None
) -> dict[str, tuple[float, float]]:
    """Relative differences from the CPU's values, by representation.

    Args:
      family: a word of `FAMILIES`.
      precision: a word of `precisions.PRECISIONS`.
      goldens: contents of `GOLDENS`.
      weights_dir: folder of converted weights; None for the usual places.

    Raises:
      MissingWeights, ImageError: weights or the photograph are not installed.

    Returns:
      Representation -> (of the code, of the gradient), estimated by the projections.
    """
    with precisions.in_jax(precision):
        values = _values(family, weights_dir)

    def distance(name: str, kind: str, found: np.ndarray) -> float:
        golden = goldens[f"{name} {kind}"]
        return _distance(fingerprint(found, f"{name} {kind}"), golden)

    return {
        name: (
            distance(name, "code", each.code),
            distance(name, "gradient", each.gradient),
        )
        for name, each in values.items()
        if f"{name} code" in goldens
    }


def fingerprint(values: np.ndarray, name: str) -> np.ndarray:
    """[1 + `NUM_PROJECTIONS`]: the norm of an array, and its projections.

    Args:
      values: the array.
      name: seeds the random signs of the projections.
    """
    flat = np.asarray(values, np.float64).ravel()
    bits = _signs(flat.size * NUM_PROJECTIONS, name).reshape(NUM_PROJECTIONS, -1)
    total = flat.sum()
    sums = [2 * flat[row].sum() - total for row in bits]
    return np.array([np.linalg.norm(flat), *sums])


def _compare(
    report: Report,
    family: str,
    precision: str,
    goldens: Mapping[str, Any],
    conditions: Conditions,
) -> None:
    try:
        found = differences(family, precision, goldens, conditions.weights_dir)
    except (LookupError, ImageError) as error:
        print_left_out(f"parity {family}", error)
        return
    worst = max(found, key=lambda name: found[name][0])
    steepest = max(found, key=lambda name: found[name][1])
    code, gradient = found[worst][0], found[steepest][1]
    most_code, most_gradient = TOLERANCES[precision]
    is_within = code <= most_code and gradient <= most_gradient
    report.add(
        Subject("parity", f"{family}, {len(found)} codes", 1, precision),
        "largest relative difference",
        value=code,
        unit="",
        gradient=gradient,
        is_within=is_within,
        by_layer={name: list(pair) for name, pair in found.items()},
        note=f"code at {worst}; gradient {gradient:.1e} at {steepest}; "
        + ("as expected" if is_within else "LARGER THAN EXPECTED"),
        headline=True,
    )


def _compare_forms(report: Report, precision: str, conditions: Conditions) -> None:
    found = op_forms.differences(precision, only_first=conditions.is_small)
    worst = max(found, key=lambda name: found[name][0])
    steepest = max(found, key=lambda name: found[name][1])
    report.add(
        Subject("parity", f"forms of {len(found)} operations", 1, precision),
        "largest relative difference",
        value=found[worst][0],
        unit="",
        gradient=found[steepest][1],
        by_layer={name: list(pair) for name, pair in found.items()},
        note=f"value at {worst}; gradient {found[steepest][1]:.1e} at {steepest}",
        headline=True,
    )


def _values(family: str, weights_dir: str | None) -> dict[str, _Values]:
    """Every code and gradient of a family, by representation."""
    photograph = sources.sample(_PHOTOGRAPH)

    def cropped(size: int) -> np.ndarray:
        image = pixels.centre_crop(photograph, size)
        bits = _signs(8 * image.size, "noise").reshape(*image.shape, 8)
        noise = np.packbits(bits, axis=-1)[..., 0] / np.float32(256)
        return np.clip(image + np.float32(_NOISE) * noise, 0, 1)

    if family == "shallow":
        grey = pixels.to_grey(cropped(224))
        shallow = {name: invjax.representation(name) for name in _SHALLOW}
        return _measure(
            lambda image: {name: phi(image) for name, phi in shallow.items()}, grey
        )
    phi = _deepest(family, weights_dir)
    image = cropped(phi.image_shape[0])
    return _measure(lambda image: _codes(phi, image), image)


def _deepest(network: str, weights_dir: str | None) -> CnnRepresentation:
    """The network cut at the deepest layer whose weights are at hand."""
    table = NETWORKS[network]
    at_hand = pretrained.available(table, weights_dir=weights_dir)
    layers = [name for name in table.layer_names if name in at_hand]
    if not layers:
        raise MissingWeights(f"no weights of {network}")
    phi = invjax.representation(f"{network}/{layers[-1]}", weights_dir=weights_dir)
    assert isinstance(phi, CnnRepresentation)
    return phi


def _codes(phi: CnnRepresentation, image: jax.Array) -> dict[str, jax.Array]:
    x = (255 * image - phi.centre[None, None]) / phi.scale[None, None]
    network = phi.name.partition("/")[0]
    found = modules.activations(phi.layers, phi.params, x)
    return {f"{network}/{layer}": code for layer, code in found.items()}


def _measure(
    codes: Callable[[jax.Array], dict[str, jax.Array]], image: np.ndarray
) -> dict[str, _Values]:
    shapes = jax.eval_shape(codes, image)
    signs = {
        name: np.where(_signs(shape.size, f"{name} combination"), 1, -1)
        .astype(np.float32)
        .reshape(shape.shape)
        for name, shape in shapes.items()
    }

    def combined(
        image: jax.Array, chosen: dict[str, jax.Array], signs: dict[str, jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        found = codes(image)
        parts = [chosen[name] * jnp.vdot(signs[name], found[name]) for name in found]
        return jnp.sum(jnp.stack(parts)), found

    @jax.jit
    def run(image: jax.Array, signs: dict[str, jax.Array]) -> Any:
        number = jnp.eye(len(shapes), dtype=jnp.float32)
        one_hot = dict(zip(shapes, number, strict=True))
        slope = jax.grad(combined, has_aux=True)
        return jax.vmap(slope, (None, 0, None), (0, None))(image, one_hot, signs)

    gradients, found = jax.device_get(run(jnp.asarray(image), signs))
    return {
        name: _Values(found[name], gradient)
        for name, gradient in zip(shapes, gradients, strict=True)
    }


def _signs(number: int, name: str) -> np.ndarray:
    """Fixed random booleans, [number], by NumPy's generator of stable raw output."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    words = np.random.PCG64(seed).random_raw(-(-number // _BLOCK))
    return np.unpackbits(words.astype("<u8").view(np.uint8), count=number).astype(bool)


def _distance(found: np.ndarray, golden: np.ndarray) -> float:
    """Estimated norm of the difference, divided by the norm of the CPU's value."""
    return float(np.sqrt(np.mean((found[1:] - golden[1:]) ** 2)) / golden[0])


def main() -> None:
    """Writes the values of this machine's CPU to `GOLDENS`."""
    fingerprints = {
        f"{name} {kind}": fingerprint(getattr(each, kind), f"{name} {kind}")
        for family in FAMILIES
        for name, each in _values(family, None).items()
        for kind in _Values._fields
    }
    with files.whole_file(GOLDENS) as file:
        np.savez_compressed(file, allow_pickle=False, **fingerprints)
    print(f"{len(fingerprints)} arrays in {GOLDENS}")


if __name__ == "__main__":
    main()
