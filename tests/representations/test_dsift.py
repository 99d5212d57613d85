"""Dense SIFT against VLFeat's own outputs, and the laws of a representation."""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.representations import dsift
from invjax.representations.dsift import DsiftConfig
from tests.data import make_vlfeat_goldens

GOLDENS = np.load(make_vlfeat_goldens.HERE / "vlfeat_dsift.npz")
META = json.loads(str(GOLDENS["meta_json"]))
KINDS = [
    DsiftConfig(bin_size=(3, 4), step=(4, 5), window=window)
    for window in ("gaussian", "flat")
]
jitted = jax.jit(dsift.dsift_frames, static_argnames="config")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def config_of(case) -> DsiftConfig:
    keywords: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in case["config"].items()
    }
    return DsiftConfig(**keywords)


@pytest.mark.parametrize("name", META)
def test_vlfeat(name):
    case = META[name]
    config = config_of(case)
    image, expected_frames = GOLDENS[case["image"]], GOLDENS[case["frames"]]
    functions: list[Any] = (
        [dsift.dsift_frames, jitted] if name == "dsift_00" else [jitted]
    )
    for function in functions:
        code, frames = function(image, config=config)
        np.testing.assert_allclose(code, GOLDENS[name], atol=1e-5)
        np.testing.assert_array_equal(frames[..., :2], expected_frames[..., :2])
        contrast = expected_frames[..., 2]
        np.testing.assert_allclose(
            frames[..., 2], contrast, atol=1e-5 * contrast.max() + 1e-12
        )


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_vmap_changes_rounding_only(config):
    images = jnp.asarray(noise(3, 27, 31))
    loop = np.stack([jitted(image, config=config)[0] for image in images])
    batch = jax.jit(jax.vmap(functools.partial(dsift.dsift, config=config)))(images)
    np.testing.assert_allclose(batch, loop, atol=2e-6)


def test_norm_is_one_or_zero():
    image = np.where(np.arange(60) < 30, np.float32(0.5), noise(40, 60))
    norms = np.linalg.norm(jitted(image)[0], axis=-1)
    assert np.all((norms == 0) | (np.abs(norms - 1) < 1e-5))
    assert np.any(norms == 0) and np.any(norms > 0)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_gradient_is_finite_everywhere(config):
    y, x = np.mgrid[:24, :24].astype(np.float32)
    images = {
        "flat": np.full_like(x, 0.5),
        "half flat": np.where(x < 12, np.float32(0.5), noise(24, 24)),
        "ramp": x / 24,
        "diagonal": (x + y) / 48,
        "step": (y > 11).astype(np.float32),
    }

    def energy(image):
        code, frames = dsift.dsift_frames(image, config=config)
        return jnp.sum((code - 0.1) ** 2) + jnp.sum(frames)

    gradient_fn = jax.jit(jax.grad(energy))
    for name, image in images.items():
        gradient = gradient_fn(image)
        assert np.isfinite(gradient).all(), name
        assert np.any(gradient) == (name != "flat")


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_directional_derivative(config):
    with jax.enable_x64(True):
        image = jnp.asarray(np.random.default_rng(1).uniform(size=(20, 23)))
        direction = jnp.asarray(np.random.default_rng(2).normal(size=(20, 23)))

        @jax.jit
        def energy(image):
            return jnp.sum((dsift.dsift(image, config=config) - 0.05) ** 2)

        step = 1e-7
        ahead, behind = (energy(image + s * direction) for s in (step, -step))
        expected = (ahead - behind) / (2 * step)
        actual = jnp.vdot(jax.jit(jax.grad(energy))(image), direction)
        # VLFeat's angle jumps by 2e-6 rad where the gradient changes quadrant.
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_dtype_is_kept():
    image = noise(20, 20)
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            struct = jax.ShapeDtypeStruct(image.shape, dtype)
            code, frames = jax.eval_shape(dsift.dsift_frames, struct)
            assert code.dtype == frames.dtype == dtype
    np.testing.assert_array_equal(jitted(image[..., None])[0], jitted(image)[0])


def test_one_trace_for_equal_configurations():
    count = 0

    @jax.jit
    def trace(image):
        nonlocal count
        count += 1
        return dsift.dsift(image, config=DsiftConfig(step=(4, 4)))

    for seed in range(3):
        trace(noise(24, 24, seed=seed))
    assert count == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("bin_size", (0, 4)), ("step", (3, 4, 5)), ("window", "box")]
    + [("window_size", 0.0), ("bounds", (1, 2, 3))],
)
def test_configuration_is_checked(field, value):
    # Types are the type checker's in this suite, ValueError's outside it.
    with pytest.raises((ValueError, TypeError), match=field):
        DsiftConfig(**{field: value})


@pytest.mark.parametrize("shape", [(15, 30), (30, 15), (1, 30), (30, 30, 3)])
def test_unfit_images_are_refused(shape):
    with pytest.raises(ValueError):
        dsift.dsift(noise(*shape))


def test_bounds_outside_the_image_are_refused():
    with pytest.raises(ValueError, match="bounds"):
        dsift.dsift(noise(30, 30), config=DsiftConfig(bounds=(0, 0, 30, 29)))
