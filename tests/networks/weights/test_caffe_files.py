"""Caffe's files give the original's numbers, or are refused in one line."""

import json
import pathlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest

from invjax.networks.weights import caffe_format, formats, pretrained
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.readers import UnreadableWeights
from tests.networks.weights import caffe_makers
from tests.networks.weights.caffe_makers import CHAIN, WEIGHTS, Weights, X

CaffeWriter: TypeAlias = Callable[..., tuple[pathlib.Path, pathlib.Path]]


@pytest.fixture
def caffe(tmp_path: pathlib.Path) -> CaffeWriter:
    def write(
        weights: Weights = WEIGHTS,
        prototxt: str = caffe_makers.PROTOTXT,
        old: bool = False,
    ) -> tuple[pathlib.Path, pathlib.Path]:
        path, text = tmp_path / "net.caffemodel", tmp_path / "net.prototxt"
        path.write_bytes(caffe_makers.caffemodel(weights, old=old))
        text.write_text(prototxt)
        return path, text

    return write


@pytest.mark.parametrize("old", [False, True])
def test_caffe(caffe: CaffeWriter, old: bool) -> None:
    text = caffe_makers.OLD_PROTOTXT if old else caffe_makers.PROTOTXT
    path, prototxt = caffe(prototxt=text, old=old)
    params, preprocessing = formats.read(path, CHAIN, prototxt=prototxt)
    # Caffe's network takes BGR, ours RGB.
    caffe_makers.assert_computes(params, X, caffe_makers.original(X[:, :, ::-1]))
    assert preprocessing is not None
    red, green, blue = preprocessing.mean
    assert red > green > blue


def test_the_original_channel_order_is_recorded(
    caffe: CaffeWriter, tmp_path: pathlib.Path
) -> None:
    path, prototxt = caffe()
    folder = tmp_path / "weights" / CHAIN.name
    pretrained.convert_file(CHAIN, path, folder, prototxt=prototxt)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source_channels"] == "BGR"
    assert manifest["preprocessing"]["channels"] == "RGB"
    assert manifest["source_file"] == "net.caffemodel"


def test_damaged_caffemodels(caffe: CaffeWriter) -> None:
    path, prototxt = caffe()
    data = path.read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], b"", b"\xff" * 99, b"text"):
        path.write_bytes(damaged)
        caffe_makers.refused(UnreadableWeights, path, prototxt=prototxt)


@pytest.mark.parametrize(
    "text", ["layer { name: ", "layer { ", "}", "3: 4", "a { b: }"]
)
def test_damaged_prototxts(caffe: CaffeWriter, text: str) -> None:
    path, prototxt = caffe(prototxt=text)
    with pytest.raises(UnreadableWeights, match="not a prototxt"):
        formats.read(path, CHAIN, prototxt=prototxt)


def test_a_caffemodel_that_does_not_fit_its_prototxt(caffe: CaffeWriter) -> None:
    path, prototxt = caffe(prototxt=caffe_makers.PROTOTXT.replace('"fc7"', '"fc9"'))
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert "layer fc9 has no kernel and bias in the caffemodel" in message


def test_caffe_s_normalisation_is_compared(caffe: CaffeWriter) -> None:
    text = caffe_makers.PROTOTXT.replace("0.0001", "0.0005")
    path, prototxt = caffe(prototxt=text)
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    expected = "layer norm1: alpha / size 0.0001, but invjax's caffenet has 2e-05"
    assert message == f"{path}: {expected}"


def test_a_caffemodel_needs_its_prototxt(caffe: CaffeWriter) -> None:
    path, prototxt = caffe()
    assert "--prototxt" in caffe_makers.refused(UnreadableWeights, path)
    other = path.with_suffix(".mat")
    path.rename(other)
    assert "--prototxt" in caffe_makers.refused(
        UnreadableWeights, other, prototxt=prototxt
    )


def test_caffe_blobs_in_both_generations(tmp_path: pathlib.Path) -> None:
    for old in (False, True):
        path = tmp_path / f"{old}.caffemodel"
        path.write_bytes(caffe_makers.caffemodel(WEIGHTS, old=old))
        found = caffe_format.read_caffemodel(path)
        assert [layer.name for layer in found] == list(WEIGHTS)
        for layer in found:
            kernel, bias = WEIGHTS[layer.name]
            np.testing.assert_array_equal(layer.blobs[0].ravel(), kernel.ravel())
            np.testing.assert_array_equal(layer.blobs[1].ravel(), bias)
