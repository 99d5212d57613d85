"""Preset `natural`: views within the descent, decorrelated colours, its own weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax.inversion import batch, canvas, dead_starts, objective, presets, request
from invjax.inversion import views as view_module
from invjax.inversion.execution import Execution
from invjax.inversion.solvers import COLOURS, PyramidAdam
from invjax.inversion.views import Views
from invjax.networks import NETWORKS
from tests.conftest import micro_representation

SHAPE = (32, 32, 3)
NATURAL = presets.PRESETS["natural"]


@pytest.fixture(scope="module")
def phi():
    return micro_representation("fc3")


@pytest.fixture(scope="module")
def codes(phi):
    images = jax.random.uniform(jax.random.key(9), (3, *SHAPE), jnp.float32)
    return np.stack([np.asarray(phi(image)) for image in images])


def _keys(number: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), number)


def test_strengths_fall_to_zero_before_the_end():
    begins, ends = NATURAL.view_fade
    assert 0 < begins < ends < 1
    strengths = NATURAL.view_strength(200)
    assert strengths.dtype == np.float32
    first, last = round(200 * begins), round(200 * ends)
    assert np.all(strengths[: first + 1] == 1) and np.all(strengths[last:] == 0)
    assert np.all(np.diff(strengths[first : last + 1]) < 0)
    assert strengths[(first + last) // 2] == pytest.approx(0.5, abs=0.03)


def test_a_step_minimises_the_energy_of_a_view(phi, codes):
    """The first objective, computed by hand from the lane's key."""
    keys = _keys(1)
    plan = request.prepare(codes[:1], phi, 1, preset="natural", num_steps=4)
    part = plan.on_device()
    (phase,) = part.phases
    states = dead_starts.start(keys, part)
    assert phase.program.canvas_shape == (42, 42, 3)
    assert NATURAL.views is not None
    z = phase.program.solver.variable(jax.tree.map(lambda x: x[0], states.solver))
    key = jax.random.fold_in(jax.random.fold_in(keys[0], 1), 0)
    view = view_module.draw(
        jax.random.split(key, 1)[0], NATURAL.views, jnp.float32(1), SHAPE
    )
    seen = view_module.show(view, NATURAL.views, z)
    problem = jax.tree.map(lambda x: x[0], part.settings.problem)
    wanted, _ = objective.energy(z, phi, part.shared, problem, crops=(seen,))
    pace = jax.tree.map(lambda row: row[0], phase.pace)
    _, value = batch.step(
        phase.program, part.phi, part.shared, part.settings, states, pace
    )
    np.testing.assert_allclose(value[0], wanted, rtol=1e-4)


def test_colour_counts_by_its_weight_in_what_is_minimised(phi, codes):
    """The energy counts colours as brightness, so that it compares between presets."""
    keywords: dict[str, Any] = {"num_steps": 8, "tv_weight": 50.0, "alpha_weight": 0.0}
    weight = np.array([1.0, 6.0, 6.0])
    weighed = invjax.invert_batch(
        _keys(3), codes, phi, preset="fast", chroma_weight=weight, **keywords
    )
    plain = invjax.invert_batch(_keys(3), codes, phi, preset="fast", **keywords)
    z = (255 * np.asarray(weighed.image) - np.asarray(phi.centre)) / objective.SIGMA
    grey = np.mean(z, axis=-1, keepdims=True)
    own = weighed.terms.tv

    def variation(x):
        squares = np.sum(np.diff(x, axis=1) ** 2, axis=(1, 2, 3))
        return 50 * (squares + np.sum(np.diff(x, axis=2) ** 2, axis=(1, 2, 3)))

    np.testing.assert_allclose(own, variation(z), rtol=1e-3)
    added = (weight - 1) * variation(z - grey)
    np.testing.assert_allclose(
        weighed.objective, weighed.energy + added, rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(weighed.history[:, -1], weighed.objective, rtol=1e-6)
    # Weight 1 is the papers' total variation.
    np.testing.assert_allclose(weighed.image[0], plain.image[0], atol=1e-3)
    assert np.max(np.abs(weighed.image[1] - plain.image[1])) > 0.01
    assert presets.PRESETS["natural"].chroma_weight is not None
    assert presets.PRESETS["fast"].chroma_weight is None


def test_several_views_are_averaged(phi, codes):
    images = jax.random.uniform(jax.random.key(1), (3, *SHAPE), jnp.float32)
    plan = request.prepare(codes[:1], phi, 1).on_device()
    problem = jax.tree.map(lambda x: x[0], plan.settings.problem)
    crops = tuple(objective.to_variable(image, phi.centre) for image in images)

    def data(some):
        _, terms = objective.energy(crops[0], phi, plan.shared, problem, crops=some)
        return float(terms.data)

    each = [data((crop,)) for crop in crops]
    assert data(crops) == pytest.approx(np.mean(each), rel=1e-5)
    assert data(()) == each[0]


@pytest.mark.parametrize("execution", [Execution(), Execution(width=3, scan=True)])
def test_lanes_do_not_depend_on_what_runs_beside_them(phi, codes, execution):
    keywords = {"preset": "natural", "num_steps": 6, "execution": execution}
    together = invjax.invert_batch(_keys(3), codes, phi, **keywords)
    alone = invjax.invert_batch(_keys(3)[1:2], codes[1:2], phi, **keywords)
    again = invjax.invert_batch(_keys(3), codes, phi, **keywords)
    np.testing.assert_array_equal(together.image, again.image)
    if execution.scan:
        np.testing.assert_allclose(together.image[1], alone.image[0], atol=1e-4)
    else:
        np.testing.assert_array_equal(together.image[1], alone.image[0])


def test_it_finds_an_image_of_the_code(phi, codes):
    """The result is the image in the middle of the canvas, seen without a view."""
    result = invjax.invert_batch(
        _keys(3), codes, phi, preset="natural", num_steps=150, tv_weight=0.5
    )
    assert result.image.shape == (3, *SHAPE)
    for image, code, term in zip(result.image, codes, result.terms.data, strict=True):
        error = float(jnp.linalg.norm(phi(image) - code) / np.linalg.norm(code))
        assert error < 0.25
        assert error**2 == pytest.approx(float(term), rel=1e-2)


def test_a_given_start_lies_in_the_middle(phi, codes):
    image = np.asarray(jax.random.uniform(jax.random.key(5), SHAPE, jnp.float32))
    plan = request.prepare(
        codes[:1], phi, 1, preset="natural", initial_image=image
    ).on_device()
    states = dead_starts.start(_keys(1), plan)
    program = plan.phases[0].program
    z = program.solver.variable(jax.tree.map(lambda x: x[0], states.solver))
    found = objective.to_image(canvas.central_crop(z, SHAPE), phi.centre)
    np.testing.assert_allclose(found, image, atol=1e-5)
    assert float(jnp.max(jnp.abs(z[0]))) < 1e-4


def test_colours_are_another_basis_of_the_same_images():
    random = np.random.default_rng(0)
    z, other = (random.normal(size=(2, 40, 36, 3)) * 40).astype(np.float32)
    solver, plain = PyramidAdam(colours=True), PyramidAdam()
    state = solver.init(jnp.asarray(z))
    np.testing.assert_allclose(solver.variable(state), z, atol=1e-3)
    moved = solver.move(state, jnp.asarray(other))
    np.testing.assert_allclose(solver.variable(moved), other, atol=1e-3)
    # A grey gradient moves brightness alone: the step has the colour of its column.
    stepped = solver.update(jnp.ones((40, 36, 3)), state, jnp.float32(1))
    change = np.asarray(solver.variable(stepped) - solver.variable(state))
    assert np.max(np.abs(change)) > 0.1
    first = COLOURS[:, 0]
    assert np.linalg.norm(first) == pytest.approx(1, rel=1e-6)
    brightness = np.linalg.solve(COLOURS, change.reshape(-1, 3).T)
    assert np.abs(brightness[0]).min() > 0.5
    grey = jnp.asarray(z[..., :1])
    for one in jax.tree.leaves((solver.init(grey), plain.init(grey))):
        assert one.shape[-1:] in ((1,), ())
    np.testing.assert_array_equal(
        solver.variable(solver.init(grey)), plain.variable(plain.init(grey))
    )


def test_the_gradient_of_the_levels_is_the_transpose_of_the_colours():
    solver = PyramidAdam(colours=True, eps=1e5)
    random = np.random.default_rng(1)
    gradient = random.normal(size=(20, 20, 3)).astype(np.float32)
    state = solver.init(jnp.zeros((20, 20, 3)))
    wanted = jax.grad(
        lambda levels: jnp.vdot(
            gradient, solver.variable(state._replace(levels=levels))
        )
    )(state.levels)
    stepped = solver.update(jnp.asarray(gradient), state, jnp.float32(1))
    # With an eps far above the gradient a step is the gradient divided by eps.
    for before, after, slope in zip(state.levels, stepped.levels, wanted, strict=True):
        np.testing.assert_allclose(1e5 * (before - after), slope, atol=1e-4, rtol=1e-2)


def test_rows_for_codes_with_and_without_places():
    with_places = micro_representation("relu2")
    without = micro_representation("fc3")
    assert presets.find("natural", phi=without).views == Views()
    assert presets.find("natural", phi=with_places).views is None
    assert presets.find("natural", phi=lambda image: image).views == Views()
    own = presets.tv_weight(without, preset="natural")
    assert own == presets.NATURAL_TV_WEIGHT
    assert presets.tv_weight(with_places, preset="natural") == own / 2
    assert presets.tv_weight(without, preset="fast") == presets.tv_weight(without)
    maximised = presets.find(
        "natural", phi=with_places, data_term=objective.activation_maximisation
    )
    assert maximised.views == Views()
    assert "efficientnet_lite0" in NETWORKS


def test_the_weight_of_the_preset_is_the_default(phi, codes):
    plan = request.prepare(codes, phi, 3, preset="natural")
    np.testing.assert_allclose(
        plan.settings.problem.tv_weight, presets.NATURAL_TV_WEIGHT
    )
    given = request.prepare(codes, phi, 3, preset="natural", tv_weight=3.0)
    np.testing.assert_allclose(given.settings.problem.tv_weight, 3.0)


def test_jitter_beside_views_is_refused(phi, codes):
    with pytest.raises(ValueError, match="natural shifts its views"):
        request.prepare(codes, phi, 3, preset="natural", jitter=4)
    request.prepare(codes, phi, 3, preset="natural", jitter=1)


def test_maximisation_has_a_share_of_the_papers_regularisers():
    papers = presets.linear_term_weights("fast", (64, 48, 3))
    own = presets.linear_term_weights("natural", (64, 48, 3))
    for name in ("tv_weight", "alpha_weight"):
        assert own[name] == pytest.approx(papers[name] * presets.NATURAL_LINEAR_SHARE)
    assert own["range_bound"] == papers["range_bound"]
