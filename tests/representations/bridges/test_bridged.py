"""What all bridges have in common: preprocessing, messages, presets, records."""

import dataclasses
import importlib.util
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import invjax
from invjax.callables import TracedCallable
from invjax.inversion import presets
from invjax.representations import is_registered
from invjax.representations.bridges import bridged
from invjax.representations.bridges.bridged import Preprocessing
from tests.representations.bridges.cutting import distance, picture

SHAPE = (12, 12, 3)


@pytest.fixture(scope="module")
def phi() -> Any:
    model = nnx.Conv(3, 4, (3, 3), strides=4, rngs=nnx.Rngs(0))
    return invjax.from_nnx(
        model, image_shape=SHAPE, mean=(0.5, 0.4, 0.3), std=0.25, name="conv"
    )


def test_images_are_preprocessed_in_units_of_the_image(phi: Any):
    image = picture(SHAPE)
    plain = dataclasses.replace(phi, mean=jnp.zeros(3), std=jnp.ones(3))
    wanted = plain((image - np.array([0.5, 0.4, 0.3], np.float32)) / np.float32(0.25))
    assert distance(phi(image), wanted) < 1e-6
    assert np.allclose(phi.centre, [127.5, 102, 76.5])


def test_inversions_begin_at_mid_grey_where_no_mean_is_given():
    given = Preprocessing.of(SHAPE, mean=None, std=None, layout="HWC")
    assert np.array_equal(given.centre, [128, 128, 128])


def test_weights_are_arguments_of_what_is_compiled(phi: Any):
    other = dataclasses.replace(
        phi, weights={key: 2 * value for key, value in phi.weights.items()}
    )
    ours: Any
    ours, theirs = (jax.tree.structure(TracedCallable.of(p)) for p in (phi, other))
    assert ours == theirs
    assert distance(other(picture(SHAPE)), phi(picture(SHAPE))) > 0.5


def test_it_is_known_to_be_pure_and_says_what_it_is(phi: Any):
    assert is_registered(phi)
    assert repr(phi).startswith(
        "<conv/output: image [12, 12, 3] -> code [3, 3, 4], receptive field 3 px, "
        "stride 4 px, "
    )
    assert len(phi.weights_digest) == 64


@pytest.mark.parametrize(
    ("stride", "tv_weight", "jitter"), [(4, 0.5, 1), (16, 5.0, 4), (32, 50.0, 8)]
)
def test_presets_go_by_the_stride(phi: Any, stride: int, tv_weight: float, jitter: int):
    geometry = phi.geometry._replace(stride=stride)
    deep = dataclasses.replace(phi, geometry=geometry)
    assert presets.tv_weight(deep) == tv_weight
    assert presets.jitter(deep) == jitter


def test_presets_go_by_depth_and_places(phi: Any):
    weights = {f"weight{n}": jnp.zeros((1, 1)) for n in range(9)}
    deep = dataclasses.replace(phi, weights=weights)
    rates = [presets.find("fast", phi=p).learning_rate for p in (phi, deep)]
    assert rates == [4.0, 2.0]
    without = dataclasses.replace(phi, has_places=False)
    assert presets.find("natural", phi=phi).views is None
    assert presets.find("natural", phi=without).views is not None


@pytest.mark.parametrize("preset", ["cvpr2015", "fast", "ijcv2016", "natural"])
def test_every_preset_inverts(key: jax.Array, phi: Any, preset: str):
    code = phi(picture(SHAPE))
    # A stride of 8, so that there is jitter.
    wide = dataclasses.replace(phi, geometry=phi.geometry._replace(stride=8))
    result = invjax.invert(key, code, wide, preset=preset, num_steps=4)
    assert result.image.shape == SHAPE and np.isfinite(result.energy)


@pytest.mark.parametrize("layout", bridged.LAYOUTS)
def test_layouts(layout: str):
    given = Preprocessing.of((4, 6, 3), mean=None, std=None, layout=layout)
    arranged = given.arranged(picture((4, 6, 3)))
    sizes = {"N": 1, "C": 3, "H": 4, "W": 6}
    assert arranged.shape == tuple(sizes[axis] for axis in layout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 116.0}, "mean is 116.0, which looks like grey levels"),
        ({"std": (58, 57, 57)}, "std is .* looks like grey levels"),
        ({"mean": -0.5}, "mean is -0.5; numbers from 0 to 1 are accepted"),
        ({"std": 0.0}, "std is 0.0; numbers above 0"),
        ({"mean": (0.5, 0.5)}, r"shape \(2,\); a number, one per channel \(3\)"),
        ({"mean": float("nan")}, "mean is nan; finite numbers are accepted"),
        ({"layout": "CWH"}, "layout is 'CWH'; NCHW, NHWC, CHW, HWC are accepted"),
        ({"image_shape": (8, 8)}, r"image_shape is \(8, 8\); \(height, width, chann"),
        ({"image_shape": (3, 64, 64)}, r"channels first; .* here \(64, 64, 3\)"),
    ],
)
def test_wrong_preprocessing_is_refused(options: Any, message: str):
    given = {"image_shape": SHAPE, "mean": None, "std": None, "layout": "HWC"} | options
    with pytest.raises(ValueError, match=message) as caught:
        Preprocessing.of(given.pop("image_shape"), **given)
    assert "\n" not in str(caught.value)


def test_other_images_are_refused(phi: Any):
    with pytest.raises(ValueError, match=r"takes images of \[12, 12, 3\], not \[8, 8"):
        phi(picture((8, 8, 3)))
    with pytest.raises(ValueError, match="conv/output"):
        phi(np.zeros(SHAPE, np.uint8))


def test_codes_that_do_not_depend_on_the_image_are_refused():
    class Constant(nnx.Module):
        def __call__(self, x: Any) -> Any:
            return jnp.ones((1, 3))

    with pytest.raises(ValueError, match="does not depend on the image"):
        invjax.from_nnx(Constant(), image_shape=SHAPE)


@pytest.mark.parametrize(
    ("bridge", "extra"),
    [
        (invjax.from_torch, "torch"),
        (invjax.torch_layers, "torch"),
        (invjax.from_equinox, "equinox"),
        (invjax.from_keras, "keras"),
    ],
)
def test_a_framework_that_is_not_installed_is_named(
    bridge: Any, extra: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"pip install 'invjax\[{extra}\]'"):
        bridge(None, image_shape=SHAPE)


def test_invjax_imports_no_other_framework():
    code = """
import sys
import invjax
found = {"torch", "torchax", "keras", "equinox"} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True)
