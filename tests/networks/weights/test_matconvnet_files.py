"""MatConvNet's files give the original's numbers, or are refused in one line."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest

from invjax.networks import NETWORKS
from invjax.networks.weights import formats, pretrained
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.readers import UnreadableWeights
from tests.networks.weights import caffe_makers
from tests.networks.weights.caffe_makers import CHAIN, WEIGHTS, X

MatWriter: TypeAlias = Callable[..., pathlib.Path]

COLOUR = [[[123.0, 117.0, 104.0]]]


@pytest.fixture
def mat(tmp_path: pathlib.Path) -> MatWriter:
    pytest.importorskip("scipy")

    def write(rows: list[dict[str, Any]] | None = None, **options: Any) -> pathlib.Path:
        rows = caffe_makers.matconvnet_layers(WEIGHTS) if rows is None else rows
        options = {"mean": COLOUR} | options
        return caffe_makers.write_matconvnet(tmp_path / "net.mat", rows, **options)

    return write


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("meta", [False, True])
def test_matconvnet(mat: MatWriter, old: bool, meta: bool) -> None:
    rows = caffe_makers.matconvnet_layers(WEIGHTS, old=old)
    params, preprocessing = formats.read(mat(rows, meta=meta), CHAIN)
    caffe_makers.assert_computes(params, X, caffe_makers.original(X))
    assert preprocessing is not None
    assert preprocessing.mean == (123.0, 117.0, 104.0)
    assert preprocessing.std == (1.0, 1.0, 1.0)


def test_a_mean_image_is_kept_with_the_weights(
    mat: MatWriter, tmp_path: pathlib.Path
) -> None:
    mean = np.random.RandomState(6).uniform(90, 140, (33, 33, 3)).astype(np.float32)
    folder = tmp_path / "weights" / CHAIN.name
    pretrained.convert_file(CHAIN, mat(mean=mean), folder)
    loaded = pretrained.load(CHAIN, "fc7", weights_dir=folder.parent)
    np.testing.assert_array_equal(loaded.preprocessing.mean, mean)
    np.testing.assert_allclose(
        loaded.preprocessing.mean_colour, mean.mean((0, 1)), rtol=1e-5
    )
    assert loaded.params.keys() == {"conv1", "conv2", "fc6", "fc7"}
    assert hash(loaded.preprocessing) != hash(None)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["preprocessing"]["mean"] == "image"
    assert manifest["source_channels"] == "RGB"
    available = pretrained.available(CHAIN, weights_dir=folder.parent)
    assert available == set(CHAIN.layer_names)


def test_matconvnet_layers_that_differ_are_listed_with_both_sides(
    mat: MatWriter,
) -> None:
    rows = caffe_makers.matconvnet_layers(WEIGHTS)
    rows[2], rows[3] = rows[3], rows[2]  # normalise before pooling: another network
    rows[4]["pad"] = np.array([[2, 2, 2, 2]])
    message = caffe_makers.refused(ConversionError, mat(rows))
    ours = "but invjax's caffenet has"
    assert (
        f"layer norm1: a local response normalisation, {ours} a pool there" in message
    )
    assert f"layer pool1: a pool, {ours} a local response normalisation" in message
    assert f"layer conv2: padding 2, {ours} 1" in message


def test_matconvnet_with_one_layer_less_or_more(mat: MatWriter) -> None:
    rows = caffe_makers.matconvnet_layers(WEIGHTS)
    message = caffe_makers.refused(ConversionError, mat([*rows[:2], *rows[3:]]))
    ours = "but invjax's caffenet"
    assert f"norm1: a local response normalisation, {ours} has a pool there" in message
    assert "mpool1" in message
    message = caffe_makers.refused(
        ConversionError, mat([*rows[:-1], {"type": "relu", "name": "relu7"}])
    )
    assert f"layer relu7: a ReLU layer, {ours} ends with fc7" in message


@pytest.mark.parametrize(("kept", "last"), [(9, "fc6"), (5, "conv2"), (1, "conv1")])
def test_a_file_that_ends_early_gives_the_layers_that_it_has(
    mat: MatWriter, kept: int, last: str
) -> None:
    rows = caffe_makers.matconvnet_layers(WEIGHTS)[:kept]
    params = formats.read(mat(rows), CHAIN).params
    expected = formats.read(mat(), CHAIN).params
    assert list(params)[-1] == last
    for name, leaves in params.items():
        np.testing.assert_array_equal(leaves["kernel"], expected[name]["kernel"])


def test_matconvnet_of_another_shape_size_or_mean(mat: MatWriter) -> None:
    wrong = dict(WEIGHTS)
    wrong["conv1"] = (np.zeros((8, 3, 7, 7), np.float32), WEIGHTS["conv1"][1])
    rows = caffe_makers.matconvnet_layers(wrong)
    message = caffe_makers.refused(ConversionError, mat(rows))
    assert "layer conv1: kernel 7, but invjax's caffenet has 5" in message
    message = caffe_makers.refused(ConversionError, mat(size=40))
    assert "input is (40, 40), not (33, 33)" in message
    message = caffe_makers.refused(ConversionError, mat(mean=np.ones((9, 9, 3))))
    assert "averageImage is (9, 9, 3), not (33, 33, 3)" in message


def test_damaged_mat_files(mat: MatWriter, tmp_path: pathlib.Path) -> None:
    data = mat().read_bytes()
    for name, damaged in {"half": data[: len(data) // 2], "no": b"no"}.items():
        path = tmp_path / f"{name}.mat"
        path.write_bytes(damaged)
        caffe_makers.refused(UnreadableWeights, path)


def test_networks_that_were_never_in_a_format(mat: MatWriter) -> None:
    message = caffe_makers.refused(ConversionError, mat(), NETWORKS["resnet50"])
    assert "resnet50 was never published in this format" in message
