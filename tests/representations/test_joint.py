"""Several representations at once: codes, gradients, one pass, presets, bad names."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax import callables
from invjax.inversion import presets
from invjax.representations import is_registered
from invjax.representations.joint import JointRepresentation
from invjax.types import Relaxable
from tests.conftest import micro_representation

NAMES = ("micro/relu1", "hogb", "micro/fc3")
KEY = jax.random.key(0)


@pytest.fixture
def image():
    return jax.random.uniform(jax.random.key(4), (32, 32, 3))


def joint() -> JointRepresentation:
    """Two layers of the small network, and HOG with bilinear orientations."""
    parts = (micro_representation("fc3"), invjax.representation("hogb"))
    return JointRepresentation(
        parts, "+".join(NAMES), (("micro/relu1", "micro/fc3"), ("hogb",))
    )


def _singles():
    return {
        "micro/relu1": micro_representation("relu1"),
        "micro/fc3": micro_representation("fc3"),
        "hogb": invjax.representation("hogb"),
    }


def test_codes_are_those_of_the_representations(image):
    codes = callables.encode(joint(), image)
    assert set(codes) == set(NAMES)
    for name, phi in _singles().items():
        np.testing.assert_allclose(codes[name], callables.encode(phi, image), atol=1e-6)


@pytest.mark.parametrize("amount", [None, 0.7])
def test_gradients_are_the_sum_of_those_of_the_representations(image, amount):
    def gradient(phi):
        assert isinstance(phi, Relaxable) or phi is _singles()["hogb"]
        if amount is not None and isinstance(phi, Relaxable):
            phi = phi.relaxed(jnp.float32(amount))

        def size(image):
            return sum(jnp.sum(part**2) for part in jax.tree.leaves(phi(image)))

        return jax.jit(jax.grad(size))(image)

    expected = sum(gradient(phi) for phi in _singles().values())
    found = gradient(joint())
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_layers_of_a_network_take_one_pass(image):
    def flops(phi):
        def size(phi, image):
            return sum(jnp.sum(part**2) for part in jax.tree.leaves(phi(image)))

        traced = callables.TracedCallable.of(phi)
        lowered = jax.jit(jax.grad(size, argnums=1)).lower(traced, image)
        costs: Any = lowered.compile().cost_analysis()
        return costs["flops"]

    deepest = micro_representation("fc3")
    both = JointRepresentation(
        (deepest,), "micro/relu1+micro/fc3", (("micro/relu1", "micro/fc3"),)
    )
    assert flops(both) < 1.2 * flops(deepest)


def test_each_representation_by_name(image):
    each = joint().each
    assert tuple(each) == NAMES
    for name, phi in _singles().items():
        assert each[name].name == name
        np.testing.assert_array_equal(
            callables.encode(each[name], image), callables.encode(phi, image)
        )
    with pytest.raises(ValueError, match="micro up to relu1 has no layer 'fc3'"):
        micro_representation("relu1").until("fc3")


def test_what_presets_and_runs_ask_for():
    phi = joint()
    assert phi.image_shape == (32, 32, 3) and not phi.is_shallow
    np.testing.assert_array_equal(phi.centre, micro_representation("fc3").centre)
    assert is_registered(phi)
    singles = _singles().values()
    assert presets.tv_weight(phi) == min(map(presets.tv_weight, singles))
    assert presets.data_weight(phi) == max(map(presets.data_weight, singles))
    assert presets.jitter(phi) == min(map(presets.jitter, singles))
    # One of them has features by place, so that views would move its code.
    assert presets.find("natural", phi=phi).views is None


def test_shallow_ones_together_are_shallow():
    phi: Any = invjax.representation("hogb+dsift")
    assert phi.is_shallow and getattr(phi, "image_shape", None) is None
    for name in presets.PRESETS:
        assert presets.find(name, phi=phi) == presets.find(
            name, phi=invjax.representation("hogb")
        )
    hard = invjax.representation("dsift+hog")
    assert presets.find("fast", phi=hard) == presets.find(
        "fast", phi=invjax.representation("hog")
    )


def test_is_inverted(image):
    phi = joint()
    code = callables.encode(phi, image)
    weights = {"micro/relu1": 1.0, "micro/fc3": 0.5, "hogb": 0.2}
    result = invjax.invert(
        KEY, code, phi, num_steps=60, code_weights=weights, tv_weight=0.05
    )
    found = callables.encode(phi, result.image)
    for name in NAMES:
        error = np.linalg.norm(found[name] - code[name]) / np.linalg.norm(code[name])
        assert error < 0.5, name


@pytest.mark.parametrize(
    "name, words",
    [
        ("hogb+hogb", "one twice"),
        ("hogb+", "unknown representation ''"),
        ("+", "unknown representation ''"),
        ("hogb+hogg", "unknown representation 'hogg'"),
        ("hogb+alexnet/relu9", "alexnet has no layer 'relu9'"),
        (
            "efficientnet_lite1/pooled+alexnet/relu1",
            "different sizes, efficientnet_lite1 240 px, alexnet 224 px",
        ),
    ],
)
def test_refuses_in_one_line(name, words):
    with pytest.raises(ValueError) as caught:
        invjax.representation(name)
    assert words in str(caught.value) and "\n" not in str(caught.value)
