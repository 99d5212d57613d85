"""Neurons are found by channel and by class, and refused in one line."""

import pytest

from invjax.networks import class_names
from invjax.sensitivity import neurons
from invjax.sensitivity.neurons import Neuron
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
