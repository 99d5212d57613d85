"""The IJCV paper's method and the other data terms, through `invert`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax import identity
from invjax.inversion import (
    batch,
    canvas,
    objective,
    presets,
    regularisers,
    request,
)
from invjax.inversion.execution import Execution
from invjax.inversion.result import BUDGET, FAILED, Result
from tests.conftest import micro_representation

SHAPE = (32, 32, 3)


@pytest.fixture
def phi():
    return micro_representation("relu2")


@pytest.fixture
def code(phi):
    return phi(jax.random.uniform(jax.random.key(9), SHAPE))


def _gradient_of_regularisers(z: np.ndarray) -> np.ndarray:
    """Written out as in the released code's tv.m and l2.m, beta 2 and alpha 6."""
    num_pixels = z.shape[0] * z.shape[1]
    right = np.diff(z, axis=1, append=z[:, -1:])
    lower = np.diff(z, axis=0, append=z[-1:])
    variation = -right - lower
    variation[:, 1:] += right[:, :-1]
    variation[1:] += lower[:-1]
    norms = np.sum(z**2, axis=2, keepdims=True)
    return (
        2 * (6.5 / 80) ** 2 / num_pixels * variation
        + 6 / 80**6 / num_pixels * z * norms**2
    )


@pytest.mark.parametrize("jitter", [1, 3])
def test_a_run_is_the_released_codes_loop(key, jitter):
    """Literal numpy for phi(x) = x: 12 jittered steps, 2 still ones at a tenth."""
    height, width = shape = (7, 6)
    generator = np.random.default_rng(0)
    target = generator.uniform(size=(*shape, 3)).astype(np.float32)
    result = invjax.invert(
        key,
        target,
        lambda image: image,
        image_shape=(*shape, 3),
        preset="ijcv2016",
        num_steps=14,
        jitter=jitter,
        data_weight=3.0,
        centre=100.0,
        history_every=1,
    )
    program = (
        request.prepare(
            target[None],
            lambda image: image,
            1,
            image_shape=(*shape, 3),
            preset="ijcv2016",
            jitter=jitter,
        )
        .phases[0]
        .program
    )
    start = batch.start(program, jnp.stack([key]), jnp.float32(80 / np.sqrt(3)))
    z = np.asarray(start.solver.z[0], np.float64)
    assert z.shape == (height + jitter - 1, width + jitter - 1, 3)
    assert np.quantile(z, 0.95) == pytest.approx(80 / np.sqrt(3), rel=1e-5)
    rate = height * width * 0.05 * 80**2 / 6
    values = []
    for number in range(14):
        if number == 12:
            margin = (jitter - 1) // 2
            z = z[margin : margin + height, margin : margin + width]
        if number in (0, 12):
            squares, momentum = np.zeros_like(z), np.zeros_like(z)
        offset = (0, 0)
        if jitter > 1 and number < 12:
            drawn = jax.random.fold_in(jax.random.fold_in(key, 1), number)
            offset = np.asarray(canvas.random_offset(drawn, jitter=jitter)).tolist()
        rows = slice(offset[0], offset[0] + height)
        columns = slice(offset[1], offset[1] + width)
        error = (z[rows, columns] + 100) / 255 - target
        norm = np.sum(target.astype(np.float64) ** 2)
        gradient = _gradient_of_regularisers(z)
        gradient[rows, columns] += 3 * 2 * error / 255 / norm
        right = np.diff(z, axis=1, append=z[:, -1:])
        lower = np.diff(z, axis=0, append=z[-1:])
        values.append(
            3 * np.sum(error**2) / norm
            + np.mean(np.sum(z**2, axis=2) ** 3) / 80**6
            + 3 * np.mean(right**2 + lower**2) * (6.5 / 80) ** 2
        )
        squares = 0.9 * squares + gradient**2
        now = rate if number < 12 else rate / 10
        momentum = 0.9 * momentum - gradient / (1 / now + np.sqrt(squares))
        z = z + momentum
        norms = np.sqrt(np.sum(z**2, axis=2, keepdims=True))
        z = z * np.minimum(160 / norms, 1)
    np.testing.assert_allclose(result.history[:14], values, rtol=1e-3)
    np.testing.assert_allclose(255 * result.image - 100, z, atol=0.05)
    assert int(result.num_steps) == 14 and result.history.shape == (15,)


def test_energy_is_the_cvpr_papers_and_objective_what_was_minimised(phi, code, key):
    result = invjax.invert(
        key, code, phi, preset="ijcv2016", num_steps=70, tv_weight=0.5, jitter=4
    )
    plan = request.prepare(
        np.asarray(code)[None], phi, 1, preset="ijcv2016", tv_weight=0.5
    )
    shared = plan.shared._replace(centre=phi.centre)
    problem = plan.of(np.asarray(0)).settings.problem
    z = objective.to_variable(result.image, phi.centre)
    energy, _ = objective.energy(z, phi, shared, problem)
    minimised, _ = objective.ijcv_energy(z, phi, shared, problem)
    np.testing.assert_allclose(result.energy, energy, rtol=1e-4)
    np.testing.assert_allclose(sum(result.terms), result.energy, rtol=1e-5)
    np.testing.assert_allclose(result.objective, minimised, rtol=1e-4)
    assert float(result.history[-1]) == float(result.objective)
    assert float(result.objective) < 0.2 * float(result.history[0])
    best = objective.to_variable(result.best_image, phi.centre)
    np.testing.assert_allclose(
        result.best_energy, objective.energy(best, phi, shared, problem)[0], rtol=1e-4
    )
    assert float(result.best_energy) <= float(result.energy)


def test_finds_an_image_with_the_code(phi, code, key):
    result = invjax.invert(key, code, phi, preset="ijcv2016", tv_weight=0.01)
    error = jnp.linalg.norm(phi(result.image) - code) / jnp.linalg.norm(code)
    assert float(error) < 0.2
    norms = jnp.linalg.norm(objective.to_variable(result.image, phi.centre), axis=-1)
    assert float(jnp.max(norms)) < 160 * (1 + 1e-5)


@pytest.mark.parametrize("jitter", [1, 4])
def test_a_new_phase_starts_from_the_central_crop_without_memory(
    phi, code, key, jitter
):
    plan = request.prepare(
        np.asarray(code)[None], phi, 1, preset="ijcv2016", jitter=jitter
    )
    before, behind = plan.phases
    plan = plan.on_device()
    first, second = before.program, behind.program
    pace = jax.tree.map(lambda row: row[0], before.pace)
    assert (first.jitter, second.jitter) == (jitter, 1)
    keys = jnp.stack([key])
    states = batch.start(first, keys, plan.start_scale)
    for _ in range(3):
        states, _ = batch.step(
            first, plan.phi, plan.shared, plan.settings, states, pace
        )
    z = states.solver.z[0]
    assert float(jnp.max(states.solver.sum_of_squares)) > 0
    after = batch.next_phase(first, second, states, keys)
    np.testing.assert_array_equal(
        after.solver.z[0], canvas.central_crop(z, second.image_shape)
    )
    assert after.solver.z.shape == (1, *SHAPE)
    assert not np.any(after.solver.sum_of_squares) and not np.any(after.solver.momentum)
    assert int(after.num_steps[0]) == 3


def test_jitter_follows_from_the_lanes_key_alone(phi, code):
    keys = [identity.lane_key(0, 7, start) for start in range(3)]
    image = np.full(SHAPE, 0.4, np.float32)

    def run(numbers: list[int]) -> Result:
        return invjax.invert_batch(
            [keys[number] for number in numbers],
            jnp.stack([code] * len(numbers)),
            phi,
            preset="ijcv2016",
            num_steps=7,
            jitter=4,
            initial_image=image,
        )

    together, alone = run([0, 1, 2]), run([1])
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[1], b[0]), together, alone
    )
    # All from the same image: only the jitter differs.
    assert not np.array_equal(together.image[0], together.image[1])
    np.testing.assert_array_equal(run([1]).image, alone.image)


def test_vmapped_chunks_reach_the_same_objectives(phi, code):
    """Other widths and the scan round differently: 1 % after 35 steps."""
    keys = jax.random.split(jax.random.key(0), 3)
    codes = jnp.stack([code * (1 + 0.1 * n) for n in range(3)])

    def run(execution: Execution) -> Result:
        return invjax.invert_batch(
            keys,
            codes,
            phi,
            preset="ijcv2016",
            num_steps=35,
            jitter=3,
            history_every=4,
            execution=execution,
        )

    alone = run(Execution(width=1, scan=False))
    together = run(Execution(width=2, scan=True))
    assert alone.history.shape == together.history.shape == (3, 10)
    np.testing.assert_allclose(together.objective, alone.objective, rtol=1e-2)
    np.testing.assert_allclose(together.history, alone.history, rtol=1e-2)
    np.testing.assert_array_equal(together.num_steps, alone.num_steps)


def test_a_failed_lane_stays_failed_in_the_next_phase(phi, code):
    keys = jax.random.split(jax.random.key(0), 2)
    codes = jnp.stack([code] * 2)
    # The second lane's regulariser overflows at once.
    weights = np.array([5.0, 3e38])
    result = invjax.invert_batch(
        keys, codes, phi, preset="ijcv2016", num_steps=7, tv_weight=weights
    )
    assert result.status.tolist() == [BUDGET, FAILED]
    assert result.num_steps.tolist() == [7, 0]
    assert np.all(np.isfinite(result.image))
    assert np.all(np.isnan(result.history[1]))
    alone = invjax.invert(
        keys[0], code, phi, preset="ijcv2016", num_steps=7, tv_weight=5.0
    )
    np.testing.assert_array_equal(result.image[0], alone.image)


def test_one_trace_per_phase_for_all_numbers(code, key):
    network = micro_representation("relu2")
    traces: list[None] = []

    def phi(image):
        traces.append(None)
        return network(image)

    def run(number: float) -> float:
        result = invjax.invert(
            key,
            code,
            phi,
            image_shape=SHAPE,
            preset="ijcv2016",
            num_steps=7,
            jitter=2,
            data_weight=1 + number,
            range_bound=100 + number,
            learning_rate=1e3 + number,
            tv_weight=1 + number,
        )
        return float(result.objective)

    first = run(0)
    traced = len(traces)
    assert len({first, *(run(number) for number in range(1, 5))}) == 5
    assert len(traces) == traced


def test_starts_from_a_given_image(phi, code, key):
    image = jax.random.uniform(jax.random.key(3), SHAPE)
    for preset in ("fast", "ijcv2016"):
        still = invjax.invert(
            key,
            code,
            phi,
            preset=preset,
            num_steps=1,
            learning_rate=0.0,
            initial_image=image,
            range_bound=np.inf,
        )
        np.testing.assert_allclose(still.image, image, atol=1e-5)
    images = jnp.stack([image, 1 - image])
    lanes = invjax.invert_batch(
        jax.random.split(key, 2),
        jnp.stack([code] * 2),
        phi,
        num_steps=1,
        learning_rate=0.0,
        initial_image=images,
    )
    np.testing.assert_allclose(lanes.image, images, atol=1e-5)


@pytest.mark.parametrize("preset", ["cvpr2015", "fast"])
def test_the_range_bound_holds_under_every_preset(phi, code, key, preset):
    rate = {"cvpr2015": 4e-6}.get(preset)
    result = invjax.invert(
        key, code, phi, preset=preset, num_steps=6, learning_rate=rate, range_bound=9.0
    )
    norms = jnp.linalg.norm(objective.to_variable(result.image, phi.centre), axis=-1)
    assert 8.9 < float(jnp.max(norms)) < 9 * (1 + 1e-3)
    assert int(result.status) == BUDGET


def test_weights_relative_to_the_layers_own_scale_the_regularisers(phi, code, key):
    own = presets.tv_weight(phi)

    def run(**settings) -> Result:
        return invjax.invert(key, code, phi, preset="ijcv2016", num_steps=7, **settings)

    np.testing.assert_array_equal(run().image, run(tv_weight=own).image)
    free = run(
        tv_weight=0.0, alpha_weight=0.0, jitter=1, data_weight=1.0, range_bound=np.inf
    )
    np.testing.assert_allclose(free.objective, free.terms.data, rtol=1e-5)
    assert float(run(tv_weight=10 * own).terms.tv) < 10 * float(run().terms.tv)


@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_beta_changes_what_is_minimised(phi, code, key, beta):
    result = invjax.invert(key, code, phi, preset="ijcv2016", num_steps=7, beta=beta)
    z = objective.to_variable(result.image, phi.centre)
    expected = (
        300 * float(result.terms.data)
        + float(regularisers.colour_alpha_norm(z)) / (32 * 32 * 80**6)
        + float(regularisers.total_variation(z, beta=beta))
        / (32 * 32 * objective.IJCV_GRADIENT**beta)
    )
    # The micro network is no AlexNet: its C follows from the stride.
    assert presets.data_weight(phi) == 300
    np.testing.assert_allclose(result.objective, expected, rtol=1e-4)
    x = z / objective.SIGMA
    np.testing.assert_allclose(
        result.terms.tv,
        presets.tv_weight(phi) * regularisers.total_variation(x),
        rtol=1e-4,
    )


def test_the_energys_weight_is_in_the_units_of_beta(phi, code, key):
    result = invjax.invert(key, code, phi, preset="adam", num_steps=3, beta=1.0)
    x = objective.to_variable(result.image, phi.centre) / objective.SIGMA
    weight = presets.tv_weight(phi) / objective.SIGMA
    np.testing.assert_allclose(
        result.terms.tv, weight * regularisers.total_variation(x, beta=1.0), rtol=1e-4
    )


@pytest.mark.parametrize("preset", ["ijcv2016", "cvpr2015"])
def test_maximisation_raises_a_neurons_activation(phi, key, preset):
    image = 0.4 + 0.2 * jax.random.uniform(jax.random.key(9), SHAPE)
    code = phi(image)
    neuron = (3, 4, int(jnp.argmax(code[3, 4])))
    direction = np.zeros(code.shape, np.float32)
    direction[neuron] = 5.0
    result = invjax.invert(
        key,
        direction,
        phi,
        preset=preset,
        num_steps=40,
        learning_rate={"cvpr2015": 1e-6}.get(preset),
        tv_weight=0.05,
        initial_image=image,
        data_term=objective.activation_maximisation,
    )
    assert float(phi(result.image)[neuron]) > 2 * float(code[neuron]) > 0
    np.testing.assert_allclose(
        result.terms.data, -5 * phi(result.image)[neuron], rtol=1e-4
    )
    assert int(result.num_steps) == 40


def test_caricature_exaggerates_what_is_there(phi, key):
    image = 0.3 + 0.4 * jax.random.uniform(jax.random.key(9), SHAPE)
    code = phi(image)
    result = invjax.invert(
        key,
        code,
        phi,
        preset="ijcv2016",
        num_steps=40,
        initial_image=image,
        data_term=objective.caricature,
        tv_weight=0.01,
    )
    assert float(result.terms.data) < -1.5
    projection = jnp.sum(phi(result.image) * code) / jnp.sum(code**2)
    np.testing.assert_allclose(-projection, result.terms.data, rtol=1e-4)


def test_a_users_data_term(phi, code, key):
    def absolute_error(code, target, mask):
        return jnp.sum(mask * jnp.abs(code - target)) / jnp.sum(mask * jnp.abs(target))

    result = invjax.invert(key, code, phi, data_term=absolute_error, num_steps=100)
    expected = jnp.sum(jnp.abs(phi(result.image) - code)) / jnp.sum(jnp.abs(code))
    np.testing.assert_allclose(result.terms.data, expected, rtol=1e-4)
    assert float(result.energy) < 0.5 * float(result.history[0])


def test_shallow_codes_have_one_stage_and_the_centre_of_their_functions(key):
    phi = invjax.representation("dsift8")
    image = jax.random.uniform(jax.random.key(1), (72, 80, 1))
    plan = request.prepare(
        phi(image)[None], phi, 1, image_shape=image.shape, preset="ijcv2016"
    )
    (phase,) = plan.phases
    assert phase.program.jitter == 1 and phase.num_steps == 300
    weights = plan.settings.problem.ijcv
    assert weights is not None and float(weights.data[0]) == 100
    assert float(plan.settings.learning_rate[0]) == pytest.approx(72 * 80 * 160 / 3)
    result = invjax.invert(
        key,
        phi(image),
        phi,
        image_shape=image.shape,
        preset="ijcv2016",
        num_steps=30,
        history_every=1,
    )
    assert result.image.shape == image.shape
    assert float(result.objective) < 0.5 * float(result.history[0])


def test_a_mean_image_counts_by_its_mean_colour(code):
    phi = micro_representation("relu2")
    mean = np.random.default_rng(0).uniform(90, 140, size=SHAPE).astype(np.float32)

    class WithMeanImage:
        name, image_shape, centre = "mine/relu2", SHAPE, mean

        def __call__(self, image):
            return phi(image)

    for preset, expected in (
        ("ijcv2016", np.mean(mean, axis=(0, 1))),
        ("fast", mean),
    ):
        plan = request.prepare(
            np.asarray(code)[None], WithMeanImage(), 1, preset=preset
        )
        np.testing.assert_allclose(plan.shared.centre, expected, rtol=1e-6)
