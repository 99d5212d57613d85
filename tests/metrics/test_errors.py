"""Metrics against their definitions and another library."""

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
