"""Every public function that takes an image refuses what is none, in one line."""

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

import invjax
from invjax import images
from invjax.images import colour, pixels, spectrum
from invjax.images.pixels import ImageError
from invjax.metrics import (
    diversity,
    errors,
    identification,
    labels,
    locality,
    lpips,
    naturalness,
)
from invjax.metrics.labels import Classifier
from invjax.preimages import mcmc
from invjax.report import contrast
from invjax.representations import dsift, hog, paper
from invjax.sensitivity import (
    channel_split,
    effective_dimension,
    jacobian,
    transformations,
)
from tests.conftest import micro_representation
from tests.every_result import lpips_parameters, picture

SIDE = 32
GOOD = picture(SIDE, SIDE, 3)
LEVELS = np.rint(255 * GOOD).astype(np.uint8)
PHI = micro_representation("fc3")
KEY = jax.random.key(0)
LPIPS = lpips_parameters()

BAD = {
    "integers": (LEVELS, "not uint8: divide 8-bit pixels by 255"),
    "bool": (GOOD > 0.5, "not bool: divide 8-bit pixels by 255"),
    "NaN": (np.where(GOOD > 0.7, np.nan, GOOD), "infinite or not a number"),
    "infinite": (np.where(GOOD > 0.7, np.inf, GOOD), "infinite or not a number"),
    "levels": (255 * GOOD, "divide 8-bit levels by 255"),
    "standardised": (np.float32(4) * (GOOD - GOOD.mean()), r"\[0, 1\] is accepted"),
}
ANY = ("integers", "bool", "NaN", "infinite")
CLIPPED = (*ANY, "levels")
UNIT = (*CLIPPED, "standardised")
TYPE = ("integers", "bool")


def _invert(image):
    code = PHI(GOOD)
    return invjax.invert(KEY, code, PHI, num_steps=1, initial_image=image)


def _sample(image):
    code = PHI(GOOD)
    return mcmc.sample(KEY[None], code, PHI, image[None], temperature=1.0)


def _logits(image):
    return labels.logits(Classifier("micro/fc3", PHI), [image])


ENTRIES: dict[str, tuple[Callable, tuple[str, ...]]] = {
    # images
    "pixels.quantise": (pixels.quantise, CLIPPED),
    "pixels.centre_crop": (lambda x: images.centre_crop(x, 8), CLIPPED),
    "pixels.stretch": (lambda x: images.stretch(x, 8), CLIPPED),
    "pixels.fit_short_side": (lambda x: images.fit_short_side(x, 8), CLIPPED),
    "pixels.to_grey": (images.to_grey, ANY),
    "pixels.to_pillow": (images.to_pillow, CLIPPED),
    "pixels.image_id": (images.image_id, UNIT),
    "reading.write_png": (
        lambda x: images.write_png("/nowhere", x),
        CLIPPED,
    ),
    "colour.opponent": (colour.opponent, ANY),
    "colour.luminance_only": (colour.luminance_only, ANY),
    "colour.chroma_only": (colour.chroma_only, ANY),
    "spectrum.colour": (spectrum.colour, ANY),
    # report
    "contrast.stretched": (contrast.stretched, ANY),
    "contrast.write_stretched": (
        lambda x: contrast.write_stretched("/nowhere", x),
        ANY,
    ),
    # metrics
    "errors.psnr": (lambda x: errors.psnr(x, GOOD), CLIPPED),
    "errors.psnr, original": (lambda x: errors.psnr(GOOD, x), UNIT),
    "errors.ssim": (lambda x: errors.ssim(x, GOOD), CLIPPED),
    "errors.ssim, original": (lambda x: errors.ssim(GOOD, x), UNIT),
    "errors.likeness": (lambda x: errors.likeness(x, GOOD), CLIPPED),
    "errors.likeness, original": (lambda x: errors.likeness(GOOD, x), UNIT),
    "errors.lpips_of": (lambda x: errors.lpips_of(LPIPS, x, GOOD), CLIPPED),
    "errors.lpips_of, original": (lambda x: errors.lpips_of(LPIPS, GOOD, x), UNIT),
    "lpips.lpips": (lambda x: lpips.lpips(LPIPS, x, GOOD), UNIT),
    "lpips.lpips, second": (lambda x: lpips.lpips(LPIPS, GOOD, x), UNIT),
    "naturalness.naturalness": (lambda x: naturalness.naturalness(x, GOOD), CLIPPED),
    "naturalness.naturalness, original": (
        lambda x: naturalness.naturalness(GOOD, x),
        UNIT,
    ),
    "naturalness.orientation_histogram": (
        lambda x: naturalness.orientation_histogram(x[..., 0]),
        ANY,
    ),
    "naturalness.radial_spectrum": (
        lambda x: naturalness.radial_spectrum(x, num_rings=8),
        ANY,
    ),
    "naturalness.high_frequency_fraction": (
        lambda x: naturalness.high_frequency_fraction(x, 0.25),
        ANY,
    ),
    "naturalness.chroma_fraction": (naturalness.chroma_fraction, ANY),
    "naturalness.lattice_spikes": (lambda x: naturalness.lattice_spikes(x, 4), ANY),
    "labels.logits": (_logits, CLIPPED),
    "identification.features": (
        lambda x: identification.features(PHI, [x]),
        CLIPPED,
    ),
    "diversity.maps": (lambda x: diversity.maps(_two(x)), CLIPPED),
    "diversity.pairwise": (
        lambda x: diversity.pairwise(_two(x), np.array([[0, 1]])),
        CLIPPED,
    ),
    "diversity.to_original": (
        lambda x: diversity.to_original(_two(x), GOOD),
        CLIPPED,
    ),
    "diversity.to_original, original": (
        lambda x: diversity.to_original(_two(GOOD), x),
        UNIT,
    ),
    "diversity.spectrum": (lambda x: diversity.spectrum(_two(x)), CLIPPED),
    "diversity.principal_components": (
        lambda x: diversity.principal_components(_two(x), count=1),
        CLIPPED,
    ),
    "locality.unexplained": (lambda x: locality.unexplained(_two(x), GOOD), CLIPPED),
    "locality.unexplained, original": (
        lambda x: locality.unexplained(_two(GOOD), x),
        UNIT,
    ),
    "locality.detail": (lambda x: locality.detail(_two(x), GOOD), CLIPPED),
    "locality.detail, original": (lambda x: locality.detail(_two(GOOD), x), UNIT),
    # representations: an iterate may be anything
    "representations": (PHI, TYPE),
    "hog": (invjax.representation("hog"), TYPE),
    "hogb": (invjax.representation("hogb"), TYPE),
    "dsift": (invjax.representation("dsift"), TYPE),
    "dsift8": (lambda x: invjax.representation("dsift8")(_large(x)), TYPE),
    "paper.published_hog": (lambda x: paper.published_hog(x, assignment="hard"), TYPE),
    "paper.published_dsift": (paper.published_dsift, TYPE),
    # what starts from an image, or looks at one
    "api.invert": (_invert, ANY),
    "mcmc.sample": (_sample, ANY),
    "jacobian.leading_directions": (
        lambda x: jacobian.leading_directions(KEY, PHI, x, num=1),
        ANY,
    ),
    "jacobian.singular_values": (
        lambda x: jacobian.singular_values(KEY, PHI, x, num=1),
        ANY,
    ),
    "jacobian.null_direction": (lambda x: jacobian.null_direction(PHI, x, GOOD), ANY),
    "jacobian.null_direction, direction": (
        lambda x: jacobian.null_direction(PHI, GOOD, x),
        ANY,
    ),
    "jacobian.code_change": (lambda x: jacobian.code_change(PHI, x, GOOD, [0.1]), ANY),
    "effective_dimension.effective_dimension": (
        lambda x: effective_dimension.effective_dimension(KEY, PHI, x),
        ANY,
    ),
    "transformations.sensitivity": (
        lambda x: transformations.sensitivity(
            PHI, x, transformations.brightness, [0.1]
        ),
        ANY,
    ),
    "channel_split.find": (lambda x: channel_split.find(PHI, [x]), ANY),
}
"""Functions, and the images that each refuses."""


def _two(image):
    return np.stack([image, image])


def _large(image):
    return np.tile(image, (2, 2, 1))


@pytest.mark.parametrize(
    ("entry", "kind"),
    [(entry, kind) for entry, (_, kinds) in ENTRIES.items() for kind in kinds],
)
def test_what_is_no_image_is_refused_in_one_line(entry, kind):
    image, words = BAD[kind]
    with pytest.raises(ImageError, match=words) as caught:
        ENTRIES[entry][0](image)
    assert "\n" not in str(caught.value)


def test_no_function_that_takes_an_image_is_left_out():
    """Those without a row change images whose pixels they are not told the range of."""
    exempt = {
        "errors.normalised_error",
        "pixels.checked",
        "pixels.check_type",
        "pixels.is_in_range",
        "orientation.image_planes",
        "hog.hog",
        "dsift.dsift",
        "dsift.dsift_frames",
        "jacobian.num_features",
        "jacobian.linearise",
        # Paths of pictures, which it reads itself.
        "over_starts.write",
        *(f"transformations.{name}" for name in transformations.TRANSFORMATIONS),
    }
    rows = {entry.partition(",")[0] for entry in ENTRIES} | exempt
    missing = set()
    for place in ("images", "metrics", "report", "representations", "sensitivity"):
        package = importlib.import_module(f"invjax.{place}")
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"invjax.{place}.{found.name}")
            for name, function in vars(module).items():
                is_own = getattr(function, "__module__", None) == module.__name__
                if not is_own or name.startswith("_") or not callable(function):
                    continue
                if inspect.isclass(function):
                    continue
                names = set(inspect.signature(function).parameters)
                if names & {"image", "original", "samples", "picture", "pictures"}:
                    missing.add(f"{found.name}.{name}")
    assert not missing - rows


@pytest.mark.parametrize("kind", ["any", "clipped", "unit"])
@pytest.mark.parametrize(
    "image",
    [
        GOOD,
        GOOD.astype(np.float64),
        GOOD.astype(np.float16),
        GOOD.astype(ml_dtypes.bfloat16),
        jnp.asarray(GOOD),
        np.zeros((0, 3, 1), np.float32),
        np.array([[[-0.05, 1.05]]], np.float32),
        GOOD.tolist(),
    ],
)
def test_images_are_returned_as_they_are(image, kind):
    assert pixels.checked(image, values=kind) is image


def test_optimised_images_are_clipped(tmp_path):
    """They leave [0, 1] on both sides, however far a diverging lane has gone."""
    for scale in (1.0, 100.0):
        wild = scale * (GOOD - np.float32(0.5)) + np.float32(0.5)
        images.write_png(tmp_path / "wild.png", wild)
        np.testing.assert_array_equal(
            images.read(tmp_path / "wild.png"), pixels.quantise(wild) / np.float32(255)
        )
        assert errors.psnr(wild, GOOD) == errors.psnr(np.clip(wild, 0, 1), GOOD)


def test_pixels_as_pillow_gives_them_are_refused(tmp_path):
    levels = np.asarray(Image.fromarray(LEVELS))
    with pytest.raises(ImageError, match="divide 8-bit pixels by 255"):
        images.write_png(tmp_path / "white.png", levels)
    assert not (tmp_path / "white.png").exists()


def test_the_type_of_a_traced_image_is_checked_and_its_values_are_not():
    for function in (colour.opponent, lambda x: errors.psnr(x, GOOD), PHI):
        assert jnp.isnan(jax.jit(function)(np.nan * GOOD)).any()
        with pytest.raises(ImageError, match="not uint8"):
            jax.jit(function)(LEVELS)


def test_exact_descriptors_read_integers_as_float32():
    np.testing.assert_array_equal(hog.hog(LEVELS), hog.hog(LEVELS.astype(np.float32)))
    grey = LEVELS[..., 0]
    np.testing.assert_array_equal(
        dsift.dsift(grey), dsift.dsift(grey.astype(np.float32))
    )


def test_a_start_beyond_the_range_is_warned_of():
    code = PHI(GOOD)
    with pytest.warns(UserWarning, match=r"from -0.5 to .*, beyond \[0, 1\]"):
        _invert(GOOD - np.where(GOOD == GOOD.max(), 0.5 + GOOD.max(), 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        invjax.invert(KEY, code, PHI, num_steps=1, initial_image=1.05 * GOOD)
    with pytest.raises(ImageError, match="initial_image holds .* 8-bit levels"):
        _invert(255 * GOOD)
