"""Statistics of pictures whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.metrics import naturalness


def _grating(frequency, angle=0.0, size=96):
    """A wave along the direction `angle` (y down); frequency in cycles per pixel."""
    rows, columns = np.mgrid[:size, :size]
    along = np.cos(angle) * columns + np.sin(angle) * rows
    return 0.5 + 0.4 * np.cos(2 * np.pi * frequency * along)


def _image(grey):
    return np.repeat(np.asarray(grey, np.float32)[..., None], 3, axis=-1)


def _cloudy(size=128, seed=0):
    """Noise with a power of 1 / frequency^2, about that of photographs, in [0, 1]."""
    random = np.random.default_rng(seed)
    rows = np.fft.fftfreq(size)[:, None]
    radius = np.maximum(np.hypot(rows, rows.T), 1 / size)
    grey = np.fft.ifft2(np.fft.fft2(random.normal(size=(size, size))) / radius).real
    return (grey - grey.min()) / np.ptp(grey)


@pytest.fixture
def noise():
    return np.random.default_rng(0).uniform(size=(96, 96)).astype(np.float32)


def test_a_ramp_has_one_orientation():
    ramp = np.add.outer(np.arange(40.0), 3 * np.arange(40.0)).astype(np.float32)
    found = np.asarray(naturalness.orientation_histogram(jnp.asarray(ramp)))
    # Rising to the right and down: -18.4 degrees, the ninth of 20 degrees each. The
    # replicated border halves one derivative.
    assert found[8] > 0.9
    assert found.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turning_a_picture_turns_its_histogram(noise, quarters):
    histogram = jax.jit(naturalness.orientation_histogram, static_argnames="num_bins")
    first = histogram(jnp.asarray(noise), num_bins=36)
    second = histogram(jnp.asarray(np.rot90(noise, quarters).copy()), num_bins=36)
    np.testing.assert_allclose(jnp.roll(first, 9 * quarters), second, atol=1e-5)


def test_histogram_against_its_definition_in_numpy(noise):
    padded = np.pad(noise.astype(np.float64), 1, mode="edge")
    kernel = np.outer([1, 2, 1], [-1, 0, 1])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    right = np.einsum("hwij,ij->hw", windows, kernel)
    down = np.einsum("hwij,ij->hw", windows, kernel.T)
    degrees = np.degrees(np.arctan2(-down, right))
    edges = np.linspace(-180, 180, 19)
    expected = np.zeros(18)
    for index in range(18):
        inside = (degrees > edges[index]) & (degrees <= edges[index + 1])
        expected[index] = np.hypot(right, down)[inside].sum()
    found = naturalness.orientation_histogram(jnp.asarray(noise))
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-5)


def test_naturalness():
    image, other = _image(_grating(0.1)), _image(_grating(0.1, angle=np.pi / 2))
    assert naturalness.naturalness(image, image) == pytest.approx(1, abs=1e-6)
    assert naturalness.naturalness(image, other) < 0.1
    # Contrast does not matter.
    assert naturalness.naturalness(0.5 * image, image) == pytest.approx(1, abs=1e-4)
    assert naturalness.naturalness(0 * image, image) == 0
    assert np.isnan(jax.jit(naturalness.naturalness)(np.nan * image, image))
    with pytest.raises(ValueError, match="infinite or not a number"):
        naturalness.naturalness(np.nan * image, image)


def test_statistics_can_be_jitted_and_vmapped(noise):
    images = jnp.stack([_image(noise), _image(noise.T), _image(_grating(0.1))])
    original = _image(_cloudy(96))
    functions = (
        lambda image: naturalness.naturalness(image, original),
        lambda image: naturalness.high_frequency_fraction(image, 0.25),
        naturalness.chroma_fraction,
        lambda image: naturalness.lattice_spikes(image, 8),
    )
    for function in functions:
        one_by_one = [function(image) for image in images]
        found = jax.jit(jax.vmap(function))(images)
        np.testing.assert_allclose(found, one_by_one, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("frequency", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("angle", [0.0, 0.6])
def test_a_wave_s_energy_is_at_its_frequency(frequency, angle):
    image = _image(_grating(frequency, angle))
    assert naturalness.high_frequency_fraction(image, frequency - 0.03) > 0.99
    assert naturalness.high_frequency_fraction(image, frequency + 0.03) < 0.01
    spectrum = naturalness.radial_spectrum(image, num_rings=25)
    peak = spectrum.frequency[jnp.argmax(spectrum.power)]
    assert peak == pytest.approx(frequency, abs=0.011)


def test_spectrum_of_noise():
    white = np.random.default_rng(0).normal(size=(128, 128))
    spectrum = naturalness.radial_spectrum(_image(white), num_rings=16)
    assert np.all(np.diff(spectrum.frequency) > 0)
    np.testing.assert_allclose(
        spectrum.power[2:] / spectrum.power[2:].mean(), 1, atol=0.3
    )
    cloudy = naturalness.radial_spectrum(_image(_cloudy()), num_rings=16)
    slope = np.polyfit(np.log(cloudy.frequency[1:]), np.log(cloudy.power[1:]), 1)[0]
    assert slope == pytest.approx(-2, abs=0.25)


def test_a_flat_image_has_no_energy():
    flat = np.full((32, 32, 3), 0.3, np.float32)
    assert naturalness.high_frequency_fraction(flat, 0.0) == 0
    assert (
        naturalness.chroma_fraction(flat * np.array([0.2, 0.7, 0.9], np.float32)) == 0
    )


def test_chroma_fraction(noise):
    assert naturalness.chroma_fraction(_image(noise)) == pytest.approx(0, abs=1e-6)
    random = np.random.default_rng(0).normal(size=(96, 96, 3))
    # Independent channels: two of three dimensions are chroma.
    assert naturalness.chroma_fraction(random) == pytest.approx(2 / 3, abs=0.01)
    red_green = noise[..., None] * np.array([1, -1, 0])
    assert naturalness.chroma_fraction(red_green) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("offset", [0, 3])
def test_spikes_on_a_lattice_stand_out(stride, offset):
    ground = 0.5 * _cloudy()
    spiked = ground.copy()
    spiked[offset::stride, offset::stride] += 0.3
    random = np.random.default_rng(0)
    scattered = ground.ravel().copy()
    count = (128 // stride) ** 2
    scattered[random.choice(scattered.size, count, replace=False)] += 0.3
    found = [
        float(naturalness.lattice_spikes(_image(grey), stride))
        for grey in (ground, scattered.reshape(128, 128), spiked)
    ]
    assert found[0] < 1.8
    assert found[1] < 4
    assert found[2] > 10
    # Of another period they are no lattice.
    assert naturalness.lattice_spikes(_image(spiked), 7) < 3


def test_refusals():
    image = np.zeros((32, 40, 3), np.float32)
    for stride in (3, 16):
        with pytest.raises(ValueError, match=f"stride is {stride}"):
            naturalness.lattice_spikes(image, stride)
    with pytest.raises(ValueError, match="num_rings is 17"):
        naturalness.radial_spectrum(image, num_rings=17)
