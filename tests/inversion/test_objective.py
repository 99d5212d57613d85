"""The energies of both papers, in their own units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.callables import TracedCallable
from invjax.inversion import batch, objective, presets
from invjax.inversion.canvas import central_crop
from invjax.inversion.lane import Program
from invjax.inversion.objective import (
    SIGMA,
    Exponents,
    IjcvWeights,
    PerLane,
    Shared,
)
from invjax.inversion.solvers import DecayedAdaGrad

SHARED = Shared(centre=jnp.float32(128.0))
"""Every feature counts, and z is around grey."""


def _problem(target: jax.Array, tv_weight: float = 0.5) -> PerLane:
    return PerLane(
        target=target,
        mask=jnp.float32(1.0),
        tv_weight=jnp.float32(tv_weight),
        alpha_weight=jnp.float32(presets.ALPHA_WEIGHT),
    )


@pytest.mark.parametrize("tv_weight", [0.5, 5.0, 50.0])
def test_start_energies_of_the_paper(tv_weight: float):
    """TV of white noise of norm sigma is about 4 lambda_V.

    Each of the two differences has twice the noise's variance; the last column and row
    have one less. The alpha term is lambda_alpha 15 / N^2 on average: 0.135.
    """
    shape = (227, 227, 3)
    noise = jax.random.normal(jax.random.key(3), shape)
    z = noise * SIGMA / jnp.linalg.norm(noise)
    problem = _problem(jnp.ones(shape), tv_weight)
    _, terms = objective.energy(z, lambda image: image, SHARED, problem)
    np.testing.assert_allclose(terms.tv, 4 * tv_weight * 226 / 227, rtol=5e-3)
    expected = presets.ALPHA_WEIGHT * 15 / (227 * 227 * 3) ** 2
    np.testing.assert_allclose(expected, 0.135, rtol=0.01)
    np.testing.assert_allclose(terms.alpha, expected, rtol=0.05)


def test_alpha_weight_is_the_papers():
    np.testing.assert_allclose(presets.ALPHA_WEIGHT, 4e-10 * SIGMA**4, rtol=1e-4)


def test_energy_is_the_sum_of_its_terms():
    z = 50 * jax.random.normal(jax.random.key(0), (8, 9, 3))
    total, terms = objective.energy(
        z, lambda image: image**2, SHARED, _problem(jnp.ones(z.shape))
    )
    code = ((np.asarray(z, np.float64) + 128) / 255) ** 2
    np.testing.assert_allclose(terms.data, np.mean((code - 1) ** 2), rtol=1e-5)
    np.testing.assert_allclose(total, sum(terms), rtol=1e-6)


def test_mask_frees_features_and_norms_by_what_is_left():
    target = jnp.array([3.0, 4.0, 100.0])
    mask = jnp.array([1.0, 1.0, 0.0])
    code = jnp.array([3.0, 5.0, -7.0])
    np.testing.assert_allclose(
        objective.squared_error(code, target, mask), 1 / 25, rtol=1e-6
    )


def test_image_and_variable_are_inverse():
    centre = jnp.array([123.675, 116.28, 103.53])
    image = jax.random.uniform(jax.random.key(0), (4, 5, 3))
    z = objective.to_variable(image, centre)
    np.testing.assert_allclose(z[0, 0], 255 * image[0, 0] - centre, rtol=1e-5)
    np.testing.assert_allclose(objective.to_image(z, centre), image, atol=1e-6)


IJCV = IjcvWeights(
    data=jnp.float32(300),
    alpha=jnp.float32(80.0**-6),
    tv=jnp.float32((6.5 / 80) ** 2),
)


def test_the_ijcv_energy_takes_the_canvas_and_the_code_of_a_crop():
    canvas = 50 * np.random.default_rng(0).normal(size=(9, 10, 3)).astype(np.float32)
    crop = canvas[2:8, 1:8]
    target = jnp.ones((6, 7, 3))
    problem = _problem(target)._replace(ijcv=IJCV)
    total, terms = objective.ijcv_energy(
        jnp.asarray(canvas),
        lambda image: image**2,
        SHARED,
        problem,
        crops=(jnp.asarray(crop),),
    )
    z = canvas.astype(np.float64)
    code = ((crop.astype(np.float64) + 128) / 255) ** 2
    np.testing.assert_allclose(terms.data, 300 * np.mean((code - 1) ** 2), rtol=1e-5)
    colours = np.sum(np.sum(z**2, axis=-1) ** 3)
    np.testing.assert_allclose(terms.alpha, colours / (9 * 10 * 80**6), rtol=1e-5)
    right = np.diff(z, axis=1, append=z[:, -1:])
    lower = np.diff(z, axis=0, append=z[-1:])
    variation = np.sum(right**2 + lower**2)
    expected = variation / (9 * 10 * (80 / 6.5) ** 2)
    np.testing.assert_allclose(terms.tv, expected, rtol=1e-5)
    np.testing.assert_allclose(total, sum(terms), rtol=1e-6)


def test_start_energies_of_the_ijcv_paper():
    """TV about 23, alpha about 0.01 for grey noise; three channels have 3 times the TV.

    Uniform on +-a with a = 80 / sqrt(3) / 0.9, since 0.9 is the 95 % quantile of
    uniform noise on +-1: TV 4 a^2 / 3 / V^2, alpha a^6 / 7 / B^6.
    """
    for channels in (1, 3):
        program = Program(
            DecayedAdaGrad(),
            (300, 280, channels),
            form="ijcv2016",
            start="uniform",
            jitter=4,
        )
        scale = presets.PRESETS["ijcv2016"].start_scale(program.image_shape)
        keys = jax.random.split(jax.random.key(0), 1)
        state = batch.start(program, keys, jnp.float32(scale))
        z = state.solver.z[0]
        assert z.shape == (303, 283, channels)
        assert float(jnp.max(jnp.abs(z))) == pytest.approx(51.3, rel=5e-3)
        target = jnp.ones(program.image_shape)
        _, terms = program.objective_at(
            z,
            TracedCallable.of(lambda image: image),
            SHARED,
            _problem(target)._replace(ijcv=IJCV),
            crops=(central_crop(z, program.image_shape),),
        )
        assert float(terms.tv) == pytest.approx(23.1 * channels, rel=1e-2)
        if channels == 1:
            assert float(terms.alpha) == pytest.approx(0.01, rel=2e-2)


def test_floor_of_the_energys_gradient_is_in_grey_levels():
    """The released code: weight 1 / max(d, 1e-5) at beta 1, d in grey levels."""
    z = jnp.zeros((1, 2, 1)).at[0, 1, 0].set(1e-3)
    exponents = Exponents(beta=1.0)

    def tv(z: jax.Array) -> jax.Array:
        problem = _problem(jnp.ones(z.shape), tv_weight=1.0)
        _, terms = objective.energy(
            z, lambda x: x, SHARED, problem, exponents=exponents
        )
        return terms.tv

    # |z_1 - z_0| / sigma, far above the floor.
    np.testing.assert_allclose(jax.grad(tv)(z)[0, :, 0] * SIGMA, [-1, 1], rtol=1e-5)


def test_maximisation_is_minus_the_inner_product():
    direction = jnp.array([0.0, 2.0, -1.0])
    code = jnp.array([5.0, 3.0, 4.0])
    mask = jnp.array([1.0, 1.0, 0.0])
    found = objective.activation_maximisation(code, direction, jnp.ones(3))
    assert float(found) == -2.0
    assert float(objective.activation_maximisation(code, direction, mask)) == -6.0


def test_caricature_projects_on_the_positive_part():
    target = jnp.array([3.0, -5.0, 4.0, 0.0])
    found = objective.caricature(jnp.array([6.0, 7.0, 8.0, 9.0]), target, jnp.ones(4))
    np.testing.assert_allclose(found, -(3 * 6 + 4 * 8) / 25, rtol=1e-6)
    at_target = objective.caricature(target, target, jnp.ones(4))
    np.testing.assert_allclose(at_target, -1.0, rtol=1e-6)
    mask = jnp.array([1.0, 1.0, 0.0, 1.0])
    masked = objective.caricature(target, target, mask)
    np.testing.assert_allclose(masked, -1.0, rtol=1e-6)
