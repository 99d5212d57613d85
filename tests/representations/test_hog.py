"""HOG against VLFeat's own outputs, and the laws every representation keeps."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.representations import hog
from invjax.representations.hog import HogConfig
from tests.data import make_vlfeat_goldens

GOLDENS = np.load(make_vlfeat_goldens.HERE / "vlfeat_hog.npz")
META = json.loads(str(GOLDENS["meta_json"]))
KINDS = [
    HogConfig(variant="uoctti", assignment="hard", cell_size=6, num_orientations=4),
    HogConfig(
        variant="dalal_triggs", assignment="bilinear", cell_size=6, num_orientations=4
    ),
]
jitted = jax.jit(hog.hog, static_argnames="config")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def degenerate_images() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:24, :24].astype(np.float32)
    return {
        "flat": np.full_like(x, 0.5),
        "half flat": np.where(x < 12, np.float32(0.5), noise(24, 24)),
        "ramp": x / 24,
        "diagonal": (x + y) / 48,
        "step": (y > 11).astype(np.float32),
    }


def assert_like_vlfeat(code, expected, assignment):
    difference = np.abs(np.asarray(code) - expected)
    if assignment == "hard":
        assert difference.max() < 5e-6
    else:
        # VLFeat's float32 arc cosine is off by up to 1e-3 next to a bin's centre.
        assert difference.max() < 1e-3
        assert np.sqrt((difference**2).mean()) < 2e-5


@pytest.mark.parametrize("name", META)
def test_vlfeat_jitted(name):
    case = META[name]
    config = HogConfig(**case["config"])
    code = jitted(GOLDENS[case["image"]], config=config)
    assert code.shape == GOLDENS[name].shape
    assert_like_vlfeat(code, GOLDENS[name], config.assignment)


def test_eager_is_vlfeat_and_jit():
    """Colour in [0, 1]: ties between channels, which unequal rounding would break."""
    for name, case in META.items():
        config = HogConfig(**case["config"])
        if case["image"] == "image_rgb01" and config == HogConfig():
            code = hog.hog(GOLDENS[case["image"]], config=config)
            assert_like_vlfeat(code, GOLDENS[name], config.assignment)
            compiled = jitted(GOLDENS[case["image"]], config=config)
            np.testing.assert_allclose(code, compiled, atol=2e-6)


@pytest.mark.parametrize("config", KINDS, ids=str)
@pytest.mark.parametrize("shape", [(29, 34), (29, 34, 3)], ids=str)
def test_vmap_changes_rounding_only(config, shape):
    images = jnp.asarray(noise(3, *shape))
    loop = np.stack([jitted(image, config=config) for image in images])
    batch = jax.jit(jax.vmap(functools.partial(hog.hog, config=config)))(images)
    np.testing.assert_allclose(batch, loop, atol=2e-6)


def test_vertical_gradients_go_to_the_smaller_bin():
    """Both |s_4| and |s_5| are largest there: 4 downwards, 13 upwards."""
    ramp = np.repeat(np.arange(24, dtype=np.float32)[:, None], 24, axis=1)
    for image, directed in ((ramp, 4), (-ramp, 13)):
        code = np.asarray(jitted(image))
        assert set(np.flatnonzero(code[1, 1, :18])) == {directed}


@pytest.mark.parametrize("config", KINDS, ids=str)
@pytest.mark.parametrize("is_colour", [False, True])
def test_gradient_is_finite_everywhere(config, is_colour):
    def energy(image):
        return jnp.sum((hog.hog(image, config=config) - 0.1) ** 2)

    gradient_fn = jax.jit(jax.grad(energy))
    for name, image in degenerate_images().items():
        image = np.stack([image] * 3, axis=-1) if is_colour else image
        gradient = gradient_fn(image)
        assert np.isfinite(gradient).all(), name
        assert np.any(gradient) or name != "half flat"


@pytest.mark.parametrize("config", KINDS, ids=str)
@pytest.mark.parametrize("shape", [(19, 22), (19, 22, 3)], ids=str)
def test_directional_derivative(config, shape):
    with jax.enable_x64(True):
        image = jnp.asarray(np.random.default_rng(1).uniform(size=shape))
        direction = jnp.asarray(np.random.default_rng(2).normal(size=shape))

        @jax.jit
        def energy(image):
            return jnp.sum((hog.hog(image, config=config) - 0.05) ** 2)

        step = 1e-7
        ahead, behind = (energy(image + s * direction) for s in (step, -step))
        expected = (ahead - behind) / (2 * step)
        actual = jnp.vdot(jax.jit(jax.grad(energy))(image), direction)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_dtype_is_kept_and_integers_are_read_as_float32():
    image = np.round(255 * noise(20, 20))
    with jax.enable_x64(True):
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
            struct = jax.ShapeDtypeStruct(image.shape, dtype)
            assert jax.eval_shape(hog.hog, struct).dtype == dtype
    code = jitted(image)
    np.testing.assert_array_equal(jitted(image.astype(np.uint8)), code)
    np.testing.assert_array_equal(jitted(image[..., None]), code)


def test_one_trace_for_equal_configurations():
    count = 0

    @jax.jit
    def trace(image):
        nonlocal count
        count += 1
        return hog.hog(image, config=HogConfig(cell_size=5))

    for seed in range(3):
        trace(noise(20, 20, seed=seed))
    assert count == 1
    assert hash(HogConfig(cell_size=5)) == hash(HogConfig(cell_size=5))


@pytest.mark.parametrize(
    ("field", "value"),
    [("variant", "dt"), ("assignment", "soft"), ("cell_size", 0)]
    + [("num_orientations", 1)],
)
def test_configuration_is_checked(field, value):
    with pytest.raises(ValueError, match=field):
        HogConfig(**{field: value})


@pytest.mark.parametrize("shape", [(3, 30), (30, 2), (20, 20, 2), (1, 20, 20, 3)])
def test_unfit_images_are_refused(shape):
    # Ranks are the type checker's in this suite, ValueError's outside it.
    with pytest.raises((ValueError, TypeError)):
        hog.hog(noise(*shape))


def test_smallest_image_has_one_cell():
    assert jitted(noise(4, 4)).shape == (1, 1, 31)
