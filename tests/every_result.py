"""A small result of every kind of computation, for comparing two processes to the bit.

    python -m tests.every_result FILE.npz [NAME...]

writes the results of these names or groups; by default all. All inputs are made by
NumPy, and are equal whatever JAX is configured to do.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from invjax import callables, images
from invjax.images import abstract, colour, spectrum
from invjax.inversion import objective
from invjax.inversion.execution import Execution
from invjax.metrics import (
    bootstrap,
    diversity,
    errors,
    labels,
    locality,
    lpips,
    naturalness,
)
from invjax.networks.layers import (
    Block,
    Conv,
    DepthwiseConv,
    GlobalAveragePool,
    LocalResponseNorm,
    MaxPool,
    Network,
    Relu,
    Residual,
)
from invjax.networks.weights import conversion
from invjax.preimages import mcmc, repulsion
from invjax.preimages.kernels import Hmc, Mala
from invjax.representations import cnn, dsift, hog
from invjax.representations.cnn import CnnRepresentation
from invjax.sensitivity import (
    channel_split,
    effective_dimension,
    jacobian,
    transformations,
)
from tests.conftest import micro_representation

SIDE = 32
TOGETHER = Execution(width=2, scan=True)


ALL_LAYERS = Network(
    name="all_layers",
    input_size=SIDE,
    layers=(
        Conv("conv1", 8, kernel=5, stride=4, padding=2),
        LocalResponseNorm("norm1", 5, kappa=1.0, alpha=1e-4, beta=0.75),
        Conv("conv2", 8, kernel=3, padding=1, groups=2),
        Relu("relu2", ceiling=6.0),
        Residual(
            "sum3",
            (Block("block", (DepthwiseConv("deep", 3, stride=2, padding=1),)),),
            (Conv("short", 8, kernel=1, stride=2),),
        ),
        MaxPool("pool3", window=2, stride=1, padding=(0, 1)),
        GlobalAveragePool("pooled"),
    ),
)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    """Noise in [0.2, 0.8], float32."""
    noise = np.random.default_rng(seed).uniform(0.2, 0.8, shape)
    return noise.astype(np.float32)


def key() -> jax.Array:
    return jax.random.key(7)


def _invert(phi: Any, image: np.ndarray, **settings: Any) -> Any:
    defaults: Any = {"num_steps": 12, "image_shape": image.shape}
    code = np.asarray(callables.encode(phi, image))
    return invjax.invert(key(), code, phi, **(defaults | settings))


def _micro(layer: str = "relu2", **settings: Any) -> Any:
    return _invert(micro_representation(layer), picture(SIDE, SIDE, 3), **settings)


def _grey(name: str, side: int = SIDE, **settings: Any) -> Any:
    return _invert(invjax.representation(name), picture(side, side, 1), **settings)


def _all_layers() -> CnnRepresentation:
    tensors = {
        name: picture(*shape, seed=number) - np.float32(0.5)
        for number, (name, shape) in enumerate(
            conversion.all_shapes(ALL_LAYERS).items()
        )
    }
    params, mean, std = conversion.nest(tensors), (120.0,) * 3, (58.0,) * 3
    return cnn.from_network(ALL_LAYERS, "pooled", params, mean=mean, std=std)


def _lanes(**settings: Any) -> Any:
    phi = micro_representation("relu2")
    code = np.asarray(callables.encode(phi, picture(SIDE, SIDE, 3)))
    keys = jax.random.split(key(), 3)
    codes = np.stack([code, 1.1 * code, 1.2 * code])
    defaults: Any = {"num_steps": 12, "tv_weight": [0.5, 5.0, 50.0]}
    return invjax.invert_batch(keys, codes, phi, **(defaults | settings))


def _dead(way: str) -> Any:
    """Lanes of one feature, which noise switches off half of the time."""
    table = Network("half", 12, (Conv("conv1", 1, kernel=12), Relu("relu1")))
    kernel = np.random.default_rng(0).normal(size=(12, 12, 3, 1)) / 12
    weights = {"kernel": kernel.astype(np.float32), "bias": np.zeros(1, np.float32)}
    mean, std = (128.0,) * 3, (20.0,) * 3
    params = {"conv1": weights}
    phi = cnn.from_network(table, "relu1", params, mean=mean, std=std)
    keys = jax.random.split(key(), 4)
    codes = np.full((4, 1, 1, 1), 60, np.float32)
    settings: Any = {"num_steps": 4, "preset": "adam", "dead_relu": way}
    return invjax.invert_batch(keys, codes, phi, **settings)


def _sample(kernel: Any, **settings: Any) -> Any:
    phi, image = invjax.representation("hogb"), picture(16, 16, 1)
    keys = jax.random.split(key(), 2)
    code = np.asarray(callables.encode(phi, image))
    starts = np.stack([image] * 2)
    draws: Any = {"num_samples": 5, "num_warmup": 40, "thin": 2, "temperature": 1e-4}
    return mcmc.sample(keys, code, phi, starts, kernel=kernel, **(draws | settings))


def _repel(**settings: Any) -> Any:
    phi, image = micro_representation("relu2"), picture(SIDE, SIDE, 3)
    code = np.asarray(callables.encode(phi, image))
    keys = jax.random.split(key(), 2)
    return repulsion.repel(keys, code, phi, num_steps=12, **settings)


def lpips_parameters() -> lpips.Parameters:
    """Random weights of AlexNet's shapes."""
    network: dict[str, dict[str, np.ndarray]] = {}
    shapes = lpips.layers.parameter_shapes(lpips._TABLE, (64, 64, 3))
    for number, (name, shape) in enumerate(shapes.items()):
        layer, leaf = name.split("/")
        weights = np.random.default_rng(number).normal(size=shape)
        scaled = weights / np.sqrt(np.prod(shape[:-1]))
        network.setdefault(layer, {})[leaf] = scaled.astype(np.float32)
    heads = dict(zip(lpips._LAYERS, (64, 192, 384, 256, 256), strict=True))
    return lpips.Parameters(
        network,
        {name: jnp.ones(size, jnp.float32) for name, size in heads.items()},
        mean=jnp.full(3, 120, jnp.float32),
        std=jnp.full(3, 58, jnp.float32),
    )


def _metrics() -> dict[str, Any]:
    one, other = picture(SIDE, SIDE, 3), picture(SIDE, SIDE, 3, seed=1)
    lot = np.stack([picture(SIDE, SIDE, 3, seed=seed) for seed in range(4)])
    parameters = lpips_parameters()
    rows = picture(3, 6)
    chosen = diversity.pairs(key(), 4, num_pairs=3)
    distances = diversity.pairwise(lot, chosen, parameters=parameters)
    return {
        "likeness": errors.likeness(one, other, parameters=parameters),
        "relative_error": errors.relative_error(one, other),
        "normalised_error": errors.normalised_error(one, other, 3.0),
        "code_scale": errors.code_scale([one, other, one[:5]]),
        "labels": labels.label_agreement(rows, rows[::-1]),
        "naturalness": naturalness.naturalness(one, other),
        "radial": naturalness.radial_spectrum(one, num_rings=8),
        "high": naturalness.high_frequency_fraction(one, 0.25),
        "chroma": naturalness.chroma_fraction(one),
        "spikes": naturalness.lattice_spikes(one, 4),
        "maps": diversity.maps(lot),
        "pairs": chosen,
        "pairwise": distances,
        "to_original": diversity.to_original(lot, one),
        "relative": diversity.relative(distances, distances),
        "rank": diversity.effective_rank(diversity.spectrum(lot)),
        "participation": diversity.participation_ratio(diversity.spectrum(lot)),
        "components": diversity.principal_components(lot, count=2),
        "unexplained": locality.unexplained(lot, one),
        "detail": locality.detail(lot, one),
        "extent": locality.extent(one[..., 0], (15.5, 16)),
        "profile": locality.radial_profile(one[..., 0], (15.5, 16)),
        "bootstrap": bootstrap.interval(key(), picture(6, 4), num_resamples=50),
    }


def _sensitivity() -> dict[str, Any]:
    phi, image = micro_representation("relu2"), picture(SIDE, SIDE, 3)
    direction = picture(SIDE, SIDE, 3, seed=2) - np.float32(0.5)
    found: dict[str, Any] = {
        "leading": jacobian.leading_directions(key(), phi, image, num=2),
        "null": jacobian.null_direction(phi, image, direction, max_steps=10),
        "change": jacobian.code_change(phi, image, direction, [0.0, 0.1]),
        "dimension": effective_dimension.effective_dimension(
            key(), phi, image, num_probes=4, num_products=6
        ),
        "split": channel_split.find(phi, [image, image[::-1]]),
    }
    for name, transformation in transformations.TRANSFORMATIONS.items():
        amounts = [0.0, 0.5]
        found[name] = transformations.sensitivity(
            phi, image, transformation.apply, amounts
        )
    return found


def _pictures() -> dict[str, Any]:
    image = picture(SIDE, SIDE, 3)
    return {
        "abstract": abstract.abstract_pattern(16),
        "opponent": colour.opponent(image),
        "luminance": colour.luminance_only(image),
        "chroma": colour.chroma_only(image),
        "natural": spectrum.natural_direction(key(), (SIDE, SIDE, 3)),
        "coloured": spectrum.colour(jnp.asarray(image)),
        "crop": images.centre_crop(image, 20),
        "grey": images.to_grey(image),
        "id": np.asarray(images.image_id(image)),
        "lane_key": jax.random.key_data(invjax.lane_key(3, 2**32 - 1, 4)),
    }


def _codes() -> dict[str, Any]:
    colours, grey = picture(SIDE, SIDE, 3), picture(SIDE, SIDE, 1)
    levels = np.rint(255 * colours).astype(np.uint8)
    bilinear = hog.HogConfig(variant="dalal_triggs", assignment="bilinear")
    flat = dsift.DsiftConfig(window="flat")
    return {
        "hog": hog.hog(colours),
        "hog_8_bit": hog.hog(levels),
        "hog_bilinear": hog.hog(colours, config=bilinear),
        "dsift": dsift.dsift_frames(grey),
        "dsift_flat": dsift.dsift(levels[..., 0], config=flat),
        "micro": callables.encode(micro_representation("fc3"), colours),
    } | {
        name: callables.encode(invjax.representation(name), picture(48, 48, 3))
        for name in ("hog", "hogb", "dsift", "dsift8")
    }


RESULTS: dict[str, Callable[[], Any]] = {
    "codes": _codes,
    "pictures": _pictures,
    "metrics": _metrics,
    "sensitivity": _sensitivity,
    "invert/hogb": lambda: _grey("hogb"),
    "invert/hog": lambda: _grey("hog"),
    "invert/dsift": lambda: _grey("dsift"),
    "invert/hogb_ijcv2016": lambda: _grey("hogb", preset="ijcv2016"),
    "invert/fast": _micro,
    "invert/cvpr2015": lambda: _micro(preset="cvpr2015", learning_rate=4e-6),
    "invert/ijcv2016": lambda: _micro(preset="ijcv2016"),
    "invert/adam": lambda: _micro(preset="adam"),
    "invert/dense": lambda: _micro("fc3"),
    "invert/all_layers": lambda: _invert(_all_layers(), picture(SIDE, SIDE, 3)),
    "invert/jitter": lambda: _micro(jitter=3),
    "invert/jitter_ijcv2016": lambda: _micro(preset="ijcv2016", jitter=3),
    "invert/tolerance": lambda: _micro(tolerance=0.1, num_steps=60),
    "invert/initial": lambda: _micro(initial_image=picture(SIDE, SIDE, 3, seed=5)),
    "invert/beta": lambda: _micro(beta=1.0, range_bound=60.0),
    "invert/mask": lambda: _micro(mask=np.arange(12) < 6),
    "invert/maximise": lambda: _micro(
        data_term=objective.activation_maximisation, preset="ijcv2016"
    ),
    "invert/caricature": lambda: _micro(data_term=objective.caricature),
    "lanes/plain": _lanes,
    "lanes/scan": lambda: _lanes(execution=TOGETHER),
    "lanes/slots": lambda: _lanes(execution=TOGETHER, tolerance=0.1, num_steps=60),
    "dead/restart": lambda: _dead("restart"),
    "dead/leaky": lambda: _dead("leaky"),
    "preimages/repel": _repel,
    "preimages/repel_scan": lambda: _repel(execution=TOGETHER),
    "preimages/mala": lambda: _sample(Mala()),
    "preimages/mala_scan": lambda: _sample(Mala(), execution=TOGETHER),
    "preimages/hmc": lambda: _sample(Hmc(num_leaps=3)),
    "preimages/target_error": lambda: _sample(
        Mala(), temperature=None, target_error=0.2
    ),
}
"""Name, or group/name -> what computes a tree of arrays."""

GROUPS = tuple(dict.fromkeys(name.partition("/")[0] for name in RESULTS))


def arrays(*names: str) -> dict[str, np.ndarray]:
    """All arrays of results, by their paths.

    Args:
      names: names of results, or of groups of them; none for all.
    """
    found = {}
    for name, compute in RESULTS.items():
        if not names or {name, name.partition("/")[0]} & set(names):
            for path, leaf in jax.tree.leaves_with_path(compute()):
                found[name + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return found


if __name__ == "__main__":
    found: Any = arrays(*sys.argv[2:])
    np.savez(sys.argv[1], **found)
