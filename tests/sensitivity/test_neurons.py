"""Neurons are found by channel and by class, and refused in one line."""

import numpy as np
import pytest

from invjax import callables
from invjax.networks import class_names
from invjax.sensitivity import neurons
from invjax.sensitivity.neurons import Neuron, Peak
from tests.conftest import micro_representation


def test_channels_are_neurons():
    phi = micro_representation("conv2")
    assert neurons.parse(("3", " 0"), phi) == [Neuron("3", 3), Neuron("0", 0)]
    assert [neuron.channel for neuron in neurons.parse(None, phi)] == list(range(6))


def test_classes_are_neurons_of_a_classifier(monkeypatch):
    phi = micro_representation("fc3")
    names = ("goose", "black swan", *map(str, range(2, 10)))
    monkeypatch.setattr(class_names, "class_names", lambda: names)
    monkeypatch.setattr(neurons, "is_classifier", lambda phi: True)
    found = neurons.parse(("black swan", "0"), phi)
    assert found == [Neuron("black swan", 1), Neuron("goose", 0)]
    with pytest.raises(ValueError, match="names of ImageNet's classes"):
        neurons.parse(("tree frog",), phi)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("12",), "12: of micro/conv2, numbers from 0 to 11 are accepted"),
        (("-1",), "-1: of micro/conv2, numbers from 0 to 11 are accepted"),
        (("goose",), "goose: of micro/conv2, numbers from 0 to 11 are accepted"),
        (("1", " 1"), "1, 1: a neuron of micro/conv2 is named twice"),
    ],
)
def test_refusals(words, message):
    with pytest.raises(ValueError) as caught:
        neurons.parse(words, micro_representation("conv2"))
    assert str(caught.value) == message


def test_a_picture_is_as_large_as_a_cell_of_the_mosaic():
    # conv2 of the micro network: field 17 and stride 4; 1.1 field / stride is 5 places
    # when rounded, and 17 px, 9 after conv1, have 5 after the pool.
    phi = micro_representation("conv2")
    assert (phi.geometry.receptive_field, phi.geometry.stride) == (17, 4)
    side = neurons.image_side(phi)
    assert callables.code_shape(phi, (side, side, 3)) == (5, 5, 12)
    assert callables.code_shape(phi, (side + 1, side + 1, 3))[0] > 5
    assert neurons.image_side(micro_representation("fc3")) == 32
    assert neurons.place((5, 5, 12), 7) == (2, 2, 7)
    assert neurons.place((10,), 7) == (7,)


def test_the_direction_is_the_published_one():
    phi = micro_representation("conv2")
    side = neurons.image_side(phi)
    weights = neurons.direction(phi, Neuron("7", 7), side, 4.0)
    assert np.count_nonzero(weights) == 1
    assert weights[2, 2, 7] == pytest.approx(1e4 / 17**2 / 4.0)


def test_peaks_are_where_photographs_excite_a_unit():
    phi = micro_representation("conv2")
    generator = np.random.default_rng(1)
    photographs = {
        name: generator.uniform(size=(32, 32, 3)).astype(np.float32)
        for name in ("one", "two")
    }
    found = neurons.peaks(phi, photographs)
    codes = {name: np.asarray(phi(image)) for name, image in photographs.items()}
    for channel, peak in enumerate(found):
        largest = {name: code[..., channel].max() for name, code in codes.items()}
        assert peak.image == max(largest, key=lambda name: largest[name])
        assert peak.activation == pytest.approx(max(largest.values()), rel=1e-6)
        assert max(peak.patch.shape[:2]) <= 17


def test_the_scale_of_a_unit_that_photographs_hardly_excite():
    patch = np.zeros((1, 1, 3), np.float32)
    found = [Peak(value, "one", patch) for value in (0.1, 4.0, -1.0)]
    assert neurons.scale(found, 0, has_places=True) == 0.1
    assert neurons.scale(found, 0, has_places=False) == 4.0
    assert neurons.scale(found, 2, has_places=True) == 4.0
    with pytest.raises(ValueError, match="photographs"):
        neurons.scale(found[2:], 0, has_places=True)
