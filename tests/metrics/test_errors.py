"""Metrics against their definitions and another library."""

import weakref

import jax
import numpy as np
import pytest

from invjax.metrics import errors


def test_errors_of_codes():
    target, code = np.array([3.0, 4.0]), np.array([3.0, 5.0])
    assert errors.relative_error(code, target) == pytest.approx(0.2)
    assert errors.normalised_error(code, target, 4.0) == pytest.approx(0.25)
    assert np.isnan(errors.normalised_error(code, target, float("nan")))
    assert np.isinf(errors.relative_error(code, np.zeros(2)))


def test_the_code_scale_fills_up_with_zeros():
    codes = [np.array([0.0]), np.array([3.0, 4.0]), np.array([[0.0, 0.0, 12.0]])]
    assert errors.code_scale(codes) == pytest.approx((5 + 12 + 13) / 3)
    assert np.isnan(errors.code_scale(codes[:1]))


@pytest.mark.parametrize("num", [0, 1, 2, 141])
def test_of_small_sets_all_pairs_are_taken(num):
    drawn = errors.draw_pairs(jax.random.key(1), num)
    assert drawn.reach is None and drawn.order.tolist() == list(range(num))


@pytest.mark.parametrize("num", [142, 143, 500, 5000, 5001, 5002, 10_001, 70_000])
def test_of_large_sets_so_many_pairs_are_drawn_as_are_allowed(num):
    order, reach = errors.draw_pairs(jax.random.key(1), num)
    assert len(set(order.tolist())) == len(order) == min(num, 10_001)
    assert order.min() >= 0 and order.max() < num
    assert reach is not None and reach < 141 and (num <= 5001) == (reach > 1)
    pairs = sum(min(place, reach) for place in range(len(order)))
    one_more = sum(min(place, reach + 1) for place in range(len(order)))
    assert pairs <= errors.MOST_PAIRS < one_more


def test_the_draw_is_that_of_the_seed():
    first, again, other = (errors.draw_pairs(jax.random.key(s), 300) for s in (1, 1, 2))
    assert first.order.tolist() == again.order.tolist() != other.order.tolist()


def test_every_pair_is_as_likely_as_any_other():
    """Neighbours of 2,000 random orders of 6 codes: each of 15 pairs 667 times."""
    counts = np.zeros((6, 6))
    for seed in range(2000):
        order = np.asarray(jax.random.permutation(jax.random.key(seed), 6))
        counts[order[1:], order[:-1]] += 1
    counts = (counts + counts.T)[np.triu_indices(6, k=1)]
    # Five standard deviations.
    assert np.all(np.abs(counts - 2000 * 5 / 15) < 5 * np.sqrt(2000 * 5 / 15))


def test_within_its_reach_the_scale_is_the_mean_of_those_pairs():
    generator = np.random.default_rng(0)
    codes = [generator.normal(size=size) for size in (3, 5, 4, 7, 1, 6)]
    long = np.stack([np.pad(code, (0, 7 - code.size)) for code in codes])
    distances = np.linalg.norm(long[:, None] - long[None], axis=-1)
    for reach in (1, 2, 4):
        near = [distances[i, j] for i in range(6) for j in range(max(0, i - reach), i)]
        found = errors.code_scale(iter(codes), reach=reach)
        assert found == pytest.approx(np.mean(near), rel=1e-6)
    assert errors.code_scale(codes, reach=5) == pytest.approx(
        float(errors.code_scale(codes)), rel=1e-6
    )
    assert np.isnan(errors.code_scale(codes[:1], reach=3))


def test_the_drawn_scale_is_close_to_that_of_all_pairs():
    codes = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    order, reach = errors.draw_pairs(jax.random.key(0), len(codes))
    drawn = errors.code_scale((codes[n] for n in order), reach=reach)
    distances = np.linalg.norm(codes[:, None] - codes[None], axis=-1)
    everything = distances[np.triu_indices(400, k=1)].mean()
    assert drawn == pytest.approx(everything, rel=0.01) and drawn != everything


def test_codes_out_of_reach_are_dropped():
    alive: list[weakref.ref] = []
    most = 0

    def codes():
        nonlocal most
        for _ in range(30):
            code = np.zeros(3, np.float32)
            alive.append(weakref.ref(code))
            yield code
            del code
            most = max(most, sum(reference() is not None for reference in alive))

    assert errors.code_scale(codes(), reach=4) == 0
    assert most <= 5


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    original = generator.uniform(size=(32, 40, 3)).astype(np.float32)
    noisy = original + 0.1 * generator.normal(size=original.shape).astype(np.float32)
    return noisy, original


def test_psnr_is_of_the_clipped_picture(pair):
    noisy, original = pair
    error = np.mean((np.clip(noisy, 0, 1) - original).astype(np.float64) ** 2)
    assert errors.psnr(noisy, original) == pytest.approx(
        -10 * np.log10(error), abs=1e-3
    )


def test_ssim_equals_scikit_images(pair):
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    noisy, original = pair
    clipped = np.clip(noisy, 0, 1)
    expected, full = structural_similarity(
        clipped,
        original,
        channel_axis=-1,
        data_range=1.0,
        gaussian_weights=True,
        use_sample_covariance=False,
        full=True,
    )
    # dm_pix keeps the pixels whose whole window lies inside; so do we here.
    inside = full[5:-5, 5:-5].mean()
    assert errors.ssim(noisy, original) == pytest.approx(inside, abs=1e-4)
    assert abs(expected - inside) < 0.05
    assert np.isnan(errors.ssim(noisy[:8], original[:8]))


def test_a_likeness_has_the_three_metrics(pair):
    noisy, original = pair
    found = errors.likeness(noisy, original)
    assert found.psnr == errors.psnr(noisy, original)
    assert found.ssim == errors.ssim(noisy, original)
    assert np.isnan(found.lpips)  # without its parameters


@pytest.mark.parametrize("metric", [errors.psnr, errors.ssim, errors.relative_error])
def test_metrics_can_be_compiled_and_batched(pair, metric):
    noisy, original = pair
    images = np.stack([noisy, 0.5 * noisy, original[::-1]])
    together = jax.jit(jax.vmap(metric, in_axes=(0, None)))(images, original)
    expected = [metric(image, original) for image in images]
    np.testing.assert_allclose(together, expected, rtol=1e-5)
