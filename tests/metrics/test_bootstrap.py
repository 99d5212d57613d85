"""Intervals contain the true value as often as their level says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.metrics import bootstrap


def test_the_mean_s_interval_is_the_normal_one(key):
    values = np.random.default_rng(0).normal(3, 2, size=400)
    found = bootstrap.interval(key, values)
    error = values.std() / np.sqrt(400)
    assert found.estimate == pytest.approx(values.mean(), rel=1e-5)
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    narrow = bootstrap.interval(key, values, level=0.68)
    assert narrow.high - narrow.low == pytest.approx(2 * error, rel=0.1)


def test_intervals_hold_the_truth(key):
    random = np.random.default_rng(0)
    held = 0
    for one in jax.random.split(key, 200):
        found = bootstrap.interval(
            one, random.normal(size=40), level=0.9, num_resamples=400
        )
        held += bool(found.low <= 0 <= found.high)
    # 180 expected; four standard deviations are 17.
    assert 160 <= held <= 197


def test_starts_of_one_image_are_not_independent(key):
    random = np.random.default_rng(0)
    per_image = random.normal(size=(20, 1))
    values = np.broadcast_to(per_image, (20, 50))
    both = bootstrap.interval(key, values)
    images = bootstrap.interval(key, per_image[:, 0])
    flat = bootstrap.interval(key, values.ravel())
    width, expected, naive = (float(i.high - i.low) for i in (both, images, flat))
    assert width == pytest.approx(expected, rel=0.1)
    assert naive < 0.25 * width


def test_starts_count_where_images_are_alike(key):
    values = np.random.default_rng(0).normal(size=(1, 100))
    found = bootstrap.interval(key, values)
    assert found.high - found.low == pytest.approx(3.92 * values.std() / 10, rel=0.15)


def test_other_statistics_and_repetition(key):
    values = np.arange(101.0)
    found = bootstrap.interval(key, values, statistic=jnp.median)
    assert found.estimate == 50
    assert found.low < 50 < found.high
    assert found == bootstrap.interval(key, values, statistic=jnp.median)
    constant = bootstrap.interval(key, np.full(5, 2.0))
    assert constant == (2, 2, 2, 0.95)


def test_intervals_can_be_jitted_and_vmapped(key):
    values = np.random.default_rng(0).normal(size=(3, 5, 8))
    keys = jax.random.split(key, 3)
    found = jax.jit(jax.vmap(bootstrap.interval))(keys, values)
    for number, (one, some) in enumerate(zip(keys, values, strict=True)):
        alone = bootstrap.interval(one, some)
        for name in ("estimate", "low", "high"):
            np.testing.assert_allclose(
                getattr(found, name)[number], getattr(alone, name), rtol=1e-5
            )
    spoilt = jax.jit(bootstrap.interval)(key, np.array([1.0, np.nan]))
    assert np.isnan(spoilt.low) and np.isnan(spoilt.high)


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (np.zeros((2, 2, 2)), {}, "shape"),
        (np.zeros(0), {}, "shape"),
        (np.array([1.0, np.nan]), {}, "not finite"),
        (np.zeros(3), {"level": 95.0}, "level is 95"),
        (np.zeros(3), {"num_resamples": 0}, "num_resamples is 0"),
    ],
)
def test_refusals(key, values, options, words):
    with pytest.raises(ValueError, match=words):
        bootstrap.interval(key, values, **options)
