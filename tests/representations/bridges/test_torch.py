"""PyTorch modules as representations."""

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax.inversion import presets
from invjax.types import Relaxable
from tests.representations.bridges.cutting import distance, flops, gradient, picture

torch: Any = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("torchax", reason="needs torchax")
from tests.representations.bridges import torch_networks  # noqa: E402
from tests.representations.bridges.torch_networks import (  # noqa: E402
    ConvNeXt,
    Recurrent,
    ResNet,
    UNet,
    ViT,
    seeded,
)

SHAPE = (32, 32, 3)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def _bridged(module: Any, layer: str | None, **options: Any) -> Any:
    return invjax.from_torch(
        module, layer=layer, image_shape=SHAPE, mean=MEAN, std=STD, **options
    )


def _own(module: Any, layer: str | None, image: np.ndarray) -> np.ndarray:
    """The layer's output by PyTorch, in evaluation mode, without its batch axis."""
    was_training, kept = module.training, []
    part = module.get_submodule(layer or "")
    handle = part.register_forward_hook(lambda _, __, y: kept.append(y.clone()))
    x = torch.from_numpy(((image - MEAN) / STD).astype(np.float32))
    with torch.no_grad():
        module.eval()(x.permute(2, 0, 1)[None])
    handle.remove()
    module.train(was_training)
    return kept[-1][0].numpy()


@pytest.fixture(scope="module")
def resnet() -> Any:
    return seeded(ResNet).train()


@pytest.fixture(scope="module")
def layer1(resnet: Any) -> Any:
    return _bridged(resnet, "layer1")


@pytest.mark.parametrize(
    ("kind", "layer", "geometry"),
    [
        # Size of the first layer and its like are those of `layers.geometry`.
        (ResNet, "stem.0", ((6, 16, 16), 5, 2)),
        (ConvNeXt, None, ((8, 8, 8), 12, 4)),
        (ViT, "blocks.1", ((17, 16), 32, 8)),
        (UNet, None, ((3, 32, 32), 32, 1)),
    ],
)
def test_codes_are_those_of_pytorch(kind: Any, layer: Any, geometry: Any):
    module = seeded(kind)
    phi = _bridged(module, layer)
    image = picture(SHAPE, seed=3)
    assert phi(image).dtype == np.float32
    assert distance(phi(image), _own(module, layer, image)) < 1e-5
    assert phi.parity.code < 1e-5 and phi.parity.gradient < 1e-4
    assert phi.geometry[1:] == geometry
    assert phi.has_places
    assert phi.name == f"{kind.__name__}/{layer or 'output'}"


def test_only_weights_below_the_cut_are_traced(resnet: Any, layer1: Any):
    below = {"stem.0.weight", "stem.0.bias"}
    below |= {
        f"layer1.{name}"
        for name, _ in [
            *resnet.layer1.named_parameters(),
            *resnet.layer1.named_buffers(),
        ]
        if "num_batches" not in name
    }
    assert set(layer1.weights) == below
    traced = jax.make_jaxpr(lambda phi, image: phi(image))(layer1, picture(SHAPE))
    assert not traced.consts


def test_the_compiled_program_is_that_of_a_true_cut(resnet: Any, layer1: Any):
    cut = _bridged(torch.nn.Sequential(resnet.stem, resnet.layer1), None)
    assert flops(layer1) == flops(cut)
    assert flops(layer1) < 0.9 * flops(_bridged(resnet, None))


def test_evaluation_mode_is_used_and_the_module_is_left_as_it_is(resnet: Any):
    calls: list[Any] = []
    handle = resnet.head.register_forward_hook(lambda *_: calls.append(1))
    before = {key: value.clone() for key, value in resnet.state_dict().items()}
    modes = [module.training for module in resnet.modules()]
    hooks = [len(module._forward_hooks) for module in resnet.modules()]
    phi = _bridged(resnet, "head")
    handle.remove()
    image = picture(SHAPE, seed=4)
    assert distance(phi(image), _own(resnet, "head", image)) < 1e-5
    assert not calls
    assert hooks[-1] == 1 and modes == [m.training for m in resnet.modules()]
    after = resnet.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.grad is None and p.requires_grad for p in resnet.parameters())
    assert not phi.has_places


def test_later_changes_of_the_module_change_nothing():
    module = seeded(ConvNeXt)
    phi, image = _bridged(module, "stem"), picture(SHAPE)
    code = phi(image)
    with torch.no_grad():
        module.stem.weight.add_(1)
    assert np.array_equal(phi(image), code)
    again = _bridged(module, "stem")
    assert distance(again(image), code) > 0.1
    assert again.weights_digest != phi.weights_digest


def test_derivatives_are_relaxed(layer1: Any):
    image = picture(SHAPE, seed=5)
    assert issubclass(type(layer1), Relaxable)
    exact, none, full = (
        gradient(phi, image)
        for phi in (layer1, *(layer1.relaxed(jnp.float32(a)) for a in (0, 1)))
    )
    assert distance(none, exact) < 1e-6
    assert distance(full, exact) > 0.01
    relaxed: Any = layer1.relaxed(jnp.float32(1))
    assert np.array_equal(relaxed(image), layer1(image))


def test_the_amount_of_relaxation_is_traced(layer1: Any):
    count = 0

    @jax.jit
    def code(phi: Any, amount: Any) -> Any:
        nonlocal count
        count += 1
        return phi.relaxed(amount)(jnp.zeros(SHAPE))

    for amount in (0.0, 0.5, 1.0):
        code(layer1, jnp.float32(amount))
    assert count == 1


def test_presets_read_what_was_probed(layer1: Any):
    assert presets.tv_weight(layer1) == 0.5
    assert presets.jitter(layer1) == 1
    assert presets.find("fast", phi=layer1).learning_rate == 4.0
    assert presets.find("natural", phi=layer1).views is None


def test_recorded_activations_are_inverted(key: Any, resnet: Any, layer1: Any):
    image = picture(SHAPE, seed=6)
    recorded = _own(resnet, "layer1", image)
    result = invjax.invert(key, recorded, layer1, num_steps=60, tv_weight=0.05)
    assert result.image.shape == SHAPE
    assert distance(layer1(result.image), recorded) < 0.5
    assert float(result.energy) < 0.3 * float(result.history[0])


def test_layers_are_listed_in_the_order_of_calls():
    found = invjax.torch_layers(seeded(ViT), image_shape=SHAPE)
    names = [row.name for row in found]
    assert names.index("patches") < names.index("blocks.0") < names.index("head")
    shapes = {row.name: row.shape for row in found}
    assert shapes["patches"] == (16, 4, 4) and shapes["blocks.1"] == (17, 16)
    recurrent = invjax.torch_layers(seeded(Recurrent), image_shape=SHAPE)
    assert {row.name: row.shape for row in recurrent}["lstm"] == (1024, 4)


def test_one_of_several_outputs_is_the_code():
    module = seeded(Recurrent)
    phi = _bridged(module, "attention", output=1)
    assert phi.geometry.shape == (1024, 1024)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "layer3"}, r"no layer 'layer3'; close are layer\d, .*torch_layers"),
        ({"layer": "conv2"}, r"close are .*layer1.conv2"),
        ({"layout": "NHWC"}, r"layout 'NHWC' \(.*\); with layout='NCHW' it can"),
        ({"layout": "CN"}, r"layout is 'CN'; NCHW, NHWC, CHW, HWC are accepted"),
        ({"layer": None, "image_shape": (40, 40, 3)}, r"\(40, 40, 3\).*shapes cannot"),
        ({"image_shape": (3, 32, 32)}, r"channels first; .* here \(32, 32, 3\)"),
        ({"mean": (123.7, 116.3, 103.5)}, r"grey levels; .* divide it by 255"),
        ({"std": (0.2, 0.2)}, r"std has shape \(2,\); a number, one per channel"),
    ],
)
def test_what_is_refused_is_said_in_one_line(resnet: Any, options: Any, message: str):
    given = {"layer": "layer1", "image_shape": SHAPE} | options
    with pytest.raises(ValueError, match=message) as caught:
        invjax.from_torch(resnet, **given)
    assert "\n" not in str(caught.value)


def test_images_of_other_sizes_are_taken_below_a_dense_layer(resnet: Any):
    phi = invjax.from_torch(resnet, layer="stem.0", image_shape=(24, 40, 3))
    assert phi.geometry.shape == (6, 12, 20)
    with pytest.raises(ValueError, match=r"takes images of \[24, 40, 3\], not"):
        phi(picture(SHAPE))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("attention", r"returns a tuple and not one array; output=0 or 1 chooses one"),
        ("unused", r"does not call its layer 'unused'"),
    ],
)
def test_layers_without_a_code_are_refused(layer: str, message: str):
    with pytest.raises(ValueError, match=message):
        _bridged(seeded(Recurrent), layer)


def test_random_numbers_are_refused():
    class Noisy(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x + torch.randn_like(x)

    with pytest.raises(ValueError, match="from PyTorch's own code of one image"):
        _bridged(Noisy(), None)


def test_other_things_than_modules_are_refused():
    with pytest.raises(ValueError, match="takes a torch.nn.Module, not a str"):
        _bridged("resnet50", None)


@pytest.mark.parametrize("kind", ["float64", "float16", "bfloat16"])
def test_modules_of_other_types(kind: str):
    module = torch.nn.Conv2d(3, 4, 3).to(getattr(torch, kind))
    phi = _bridged(module, None)
    assert phi(picture(SHAPE)).dtype == np.float32
    assert phi.parity.code < (1e-5 if kind == "float64" else 0.02)


def test_tensors_that_are_no_parameters():
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.full((3, 1, 1), 2.0)
            self.shifts = [torch.full((1, 3, 1, 1), 0.5)]
            self.cache: Any = None

        def forward(self, x: Any) -> Any:
            if self.cache is None:
                self.cache = torch.arange(x.shape[-1])
            return x * self.scale + self.shifts[0] + self.cache

    module, image = Odd(), picture(SHAPE)
    phi = invjax.from_torch(module, image_shape=SHAPE)
    wanted = 2 * image + 0.5 + np.arange(32)[None, :, None]
    assert distance(phi(image), wanted.transpose(2, 0, 1)) < 1e-6
    assert module.cache is None


def test_torchax_leaves_the_process_as_it_was():
    code = """
import os, sys
import jax, torch
from tests.representations.bridges.torch_networks import ConvNeXt, seeded
import invjax
assert not {"torchax", "keras", "equinox"} & set(sys.modules)
before = dict(os.environ), torch.backends.mha.get_fastpath_enabled(), jax.config.values
invjax.from_torch(seeded(ConvNeXt), layer="stem", image_shape=(16, 16, 3))
assert "torchax" in sys.modules
after = dict(os.environ), torch.backends.mha.get_fastpath_enabled(), jax.config.values
assert before == after
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
    assert torch_networks.__name__ in sys.modules
