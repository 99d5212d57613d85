"""Networks of other frameworks, of the kinds that people study, with random weights.

Each is built at its usual size, or small, and cut at a layer in its middle. torchvision
and timm have the PyTorch networks; those that they lack are written here. A framework
is imported when one of its networks is built.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import invjax
from invjax.callables import TracedCallable
from invjax.representations.hog import HogConfig, hog

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Step: TypeAlias = Callable[[], tuple[np.ndarray, np.ndarray]]
"""Returns a code and the image's gradient [h, w, 3] of |code - target|^2."""


class Subject(NamedTuple):
    """A network that is cut.

    Attributes:
      phi: the representation.
      whole: the same network with nothing cut off; None where there is nothing above.
      image_shape: (h, w, 3) of the images.
      own: (image, target) -> a step by the framework's own operations, from its own
        way to get at a layer; None where phi is a plain function.
    """

    phi: Any
    whole: Any | None
    image_shape: tuple[int, int, int]
    own: Callable[[np.ndarray, np.ndarray], Step] | None = None


def flops(phi: Any, image_shape: tuple[int, ...]) -> float:
    """Floating-point operations of the compiled program from an image to the code.

    Args:
      phi: a representation, or any other function of one image.
      image_shape: (h, w, c) of the image.
    """
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    program = jax.jit(lambda phi, image: phi(image))
    lowered = program.lower(TracedCallable.of(phi), image)
    costs: Any = lowered.compile().cost_analysis()
    return float((costs[0] if isinstance(costs, list) else costs)["flops"])


def target(code: np.ndarray) -> np.ndarray:
    """A target of a step: the code with noise of its own size, float32.

    What is normalised has a constant norm, so that a multiple of the code would have no
    gradient.
    """
    noise = np.random.default_rng(0).normal(size=code.shape)
    return (code + np.std(code) * noise).astype(np.float32)


def step(phi: Any, image: np.ndarray, target: np.ndarray) -> Step:
    """A step by JAX.

    Args:
      phi: a representation, or any other function of one image.
      image: [h, w, 3] in [0, 1].
      target: the code that is aimed at.
    """

    def loss(image: Array, phi: TracedCallable, target: Array) -> tuple[Array, Array]:
        code = phi(image)
        return jnp.sum((code - target) ** 2), code

    pull = jax.jit(jax.grad(loss, has_aux=True))
    given = (jnp.asarray(image), TracedCallable.of(phi), jnp.asarray(target))

    def call() -> tuple[np.ndarray, np.ndarray]:
        # As the libraries of JAX expect it.
        with jax.numpy_rank_promotion("allow"):
            gradient, code = jax.device_get(pull(*given))
        return code, gradient

    return call


def _torch_step(module: Any, layer: str, image: np.ndarray, target: np.ndarray) -> Step:
    """A step by PyTorch, whose forward pass a hook ends at the layer."""
    import torch

    class Reached(Exception):
        """Ends the forward pass."""

    reached = []

    def hook(_: Any, __: Any, found: Any) -> None:
        reached.append(found)
        raise Reached

    module.eval().requires_grad_(False)
    module.get_submodule(layer).register_forward_hook(hook)
    pixels = torch.from_numpy(np.array(image))
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    aim = torch.from_numpy(np.array(target))[None]

    def call() -> tuple[np.ndarray, np.ndarray]:
        given = pixels.clone().requires_grad_()
        try:
            module(((given - mean) / std).permute(2, 0, 1)[None])
        except Reached:
            code = reached.pop()
        (code - aim).square().sum().backward()
        return code[0].detach().numpy(), given.grad.numpy()

    return call


def _preprocessed(image: Array) -> Array:
    mean, std = (np.asarray(values, np.float32) for values in (MEAN, STD))
    return (image - mean) / std


def _of_torch(
    build: Callable[[bool], tuple[Any, str]], side: int, small_side: int, is_small: bool
) -> Subject:
    import torch

    torch.manual_seed(0)
    module, layer = build(is_small)
    size = small_side if is_small else side
    shape = (size, size, 3)
    options: dict[str, Any] = {"image_shape": shape, "mean": MEAN, "std": STD}
    return Subject(
        invjax.from_torch(module, layer=layer, **options),
        invjax.from_torch(module, **options),
        shape,
        functools.partial(_torch_step, module, layer),
    )


def _resnet(is_small: bool) -> tuple[Any, str]:
    from torchvision.models import resnet

    if is_small:
        return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]), "layer2"
    return resnet.resnet50(), "layer3"


def _convnext(is_small: bool) -> tuple[Any, str]:
    from torchvision.models import convnext

    if is_small:
        sizes = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
        return convnext.ConvNeXt(sizes), "features.1"
    return convnext.convnext_tiny(), "features.5"


def _timm(name: str, is_small: bool, **small: Any) -> tuple[Any, str]:
    import timm

    if is_small:
        small = {"img_size": 32, "embed_dim": 32, "num_heads": 2, "depth": 2} | small
        return timm.create_model(name, pretrained=False, **small), "blocks.0"
    return timm.create_model(name, pretrained=False), "blocks.5"


def _vit(is_small: bool) -> tuple[Any, str]:
    return _timm("vit_small_patch16_224", is_small)


def _clip(is_small: bool) -> tuple[Any, str]:
    return _timm("vit_base_patch16_clip_224", is_small)


def _swin(is_small: bool) -> tuple[Any, str]:
    from torchvision.models import swin_transformer

    if is_small:
        swin = swin_transformer.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4])
        return swin, "features.1"
    return swin_transformer.swin_t(), "features.5"


def _unet(is_small: bool) -> tuple[Any, str]:
    import torch
    from torch import nn

    width = 8 if is_small else 64

    def block(ins: int, outs: int) -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU()),
            *(nn.Conv2d(outs, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU()),
        )

    class UNet(nn.Module):
        """Two steps down, and two up with skip connections."""

        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2 = block(3, width), block(width, 2 * width)
            self.pool, self.middle = nn.MaxPool2d(2), block(2 * width, 4 * width)
            self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
            self.back2 = block(4 * width, 2 * width)
            self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
            self.back1, self.last = block(2 * width, width), nn.Conv2d(width, 2, 1)

        def forward(self, x: Any) -> Any:
            fine = self.down1(x)
            coarse = self.down2(self.pool(fine))
            x = self.up2(self.middle(self.pool(coarse)))
            x = self.up1(self.back2(torch.cat([x, coarse], 1)))
            return self.last(self.back1(torch.cat([x, fine], 1)))

    return UNet(), "middle"


def _nnx(is_small: bool) -> Subject:
    from flax import nnx

    side, width = (32, 8) if is_small else (224, 64)
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Conv(3, width, (7, 7), strides=4, rngs=rngs),
        nnx.BatchNorm(width, rngs=rngs),
        nnx.relu,
        nnx.Conv(width, 2 * width, (3, 3), rngs=rngs),
        nnx.relu,
        nnx.Conv(2 * width, 4 * width, (3, 3), strides=2, rngs=rngs),
    )
    bridge = functools.partial(
        invjax.from_nnx, model, image_shape=(side, side, 3), mean=MEAN, std=STD
    )
    below = nnx.Sequential(*model.layers[:4])
    below.eval()
    own = jax.tree_util.Partial(lambda net, x: net(_preprocessed(x)[None])[0], below)
    return Subject(
        bridge(layer="layers.3"),
        bridge(),
        (side, side, 3),
        functools.partial(step, own),
    )


def _linen(is_small: bool) -> Subject:
    from flax import linen

    side, width, depth = (32, 16, 2) if is_small else (224, 192, 6)

    class Block(linen.Module):
        """A block of a transformer."""

        @linen.compact
        def __call__(self, x: Array) -> Array:
            x = x + linen.MultiHeadDotProductAttention(2)(linen.LayerNorm()(x))
            y = linen.gelu(linen.Dense(4 * width)(linen.LayerNorm()(x)))
            return x + linen.Dense(width)(y)

    class ViT(linen.Module):
        """Patches of 16 (or 8) px, and the blocks."""

        @linen.compact
        def __call__(self, x: Array) -> Array:
            patch = 8 if is_small else 16
            x = linen.Conv(width, (patch, patch), patch, "VALID")(x)
            x = x.reshape(x.shape[0], -1, width)
            places = self.param("places", linen.initializers.normal(), x.shape[1:])
            x = x + places[None]
            for number in range(depth):
                x = Block(name=f"block{number}")(x)
            return x

    module = ViT()
    variables = module.init(jax.random.key(0), jnp.ones((1, side, side, 3)))
    bridge = functools.partial(
        invjax.from_linen,
        module,
        variables=variables,
        image_shape=(side, side, 3),
        mean=MEAN,
        std=STD,
    )
    layer = f"block{depth // 2 - 1}"

    def own(variables: Any, image: Array) -> Array:
        _, state = module.apply(
            variables,
            _preprocessed(image)[None],
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return state["intermediates"][layer]["__call__"][0][0]

    return Subject(
        bridge(layer=layer),
        bridge(),
        (side, side, 3),
        functools.partial(step, jax.tree_util.Partial(own, variables)),
    )


def _equinox(is_small: bool) -> Subject:
    import equinox

    side, width = (32, 8) if is_small else (224, 64)
    keys = jax.random.split(jax.random.key(0), 3)
    model = equinox.nn.Sequential(
        [
            equinox.nn.Conv2d(3, width, 5, 2, 2, key=keys[0]),
            equinox.nn.Lambda(jax.nn.relu),
            equinox.nn.MaxPool2d(3, 2, 1),
            equinox.nn.Conv2d(width, 2 * width, 3, 1, 1, key=keys[1]),
            equinox.nn.Lambda(jax.nn.relu),
            equinox.nn.Conv2d(2 * width, 4 * width, 3, 2, 1, key=keys[2]),
        ]
    )
    bridge = functools.partial(
        invjax.from_equinox, model, image_shape=(side, side, 3), mean=MEAN, std=STD
    )
    below = equinox.nn.Sequential(model.layers[:4])
    own = jax.tree_util.Partial(
        lambda net, x: net(_preprocessed(x).transpose(2, 0, 1)), below
    )
    return Subject(
        bridge(layer="layers.3"),
        bridge(),
        (side, side, 3),
        functools.partial(step, own),
    )


def _keras(is_small: bool) -> Subject:
    import keras

    side = 32 if is_small else 224
    keras.utils.set_random_seed(0)
    width = 0.35 if is_small else 1.0
    model = keras.applications.MobileNetV2((side, side, 3), alpha=width, weights=None)
    layer = "block_1_expand_relu" if is_small else "block_6_expand_relu"
    bridge = functools.partial(
        invjax.from_keras, model, image_shape=(side, side, 3), mean=0.5, std=0.5
    )
    below = keras.Model(model.input, model.get_layer(layer).output)

    def own(weights: Any, image: Array) -> Array:
        code, _ = below.stateless_call(*weights, 2 * image[None] - 1, training=False)
        return code[0]

    weights = (
        [variable.value for variable in below.trainable_variables],
        [variable.value for variable in below.non_trainable_variables],
    )
    return Subject(
        bridge(layer=layer),
        bridge(),
        (side, side, 3),
        functools.partial(step, jax.tree_util.Partial(own, weights)),
    )


def _plain(is_small: bool) -> Subject:
    side = 32 if is_small else 224
    random = np.random.default_rng(0)
    kernel = random.normal(size=(8, 8, 3, 64)).astype(np.float32) / 8

    def filters(kernel: Array, image: Array) -> Array:
        found = jax.lax.conv_general_dilated(
            image[None] - 0.5,
            kernel,
            (4, 4),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.abs(found[0])

    phi = jax.tree_util.Partial(filters, jnp.asarray(kernel))
    return Subject(phi, None, (side, side, 3))


def _hogs(is_small: bool) -> Subject:
    side = 32 if is_small else 224
    configs = [HogConfig(assignment="bilinear", cell_size=size) for size in (4, 8, 16)]

    def hogs(image: Array) -> Array:
        found = [hog(255 * image, config=config) for config in configs]
        return jnp.concatenate([code.ravel() for code in found])

    return Subject(hogs, None, (side, side, 3))


class Kind(NamedTuple):
    """A row of the table.

    Attributes:
      packages: what has to be installed.
      build: from whether it is to be small.
    """

    packages: tuple[str, ...]
    build: Callable[[bool], Subject]


def _torch_kind(
    build: Callable[[bool], tuple[Any, str]],
    *packages: str,
    side: int = 224,
    small_side: int = 32,
) -> Kind:
    return Kind(
        ("torch", "torchax", *packages),
        functools.partial(_of_torch, build, side, small_side),
    )


KINDS = {
    "ResNet-50": _torch_kind(_resnet, "torchvision"),
    "ConvNeXt-T": _torch_kind(_convnext, "torchvision"),
    "ViT-S": _torch_kind(_vit, "timm"),
    "Swin-T": _torch_kind(_swin, "torchvision"),
    "CLIP ViT-B": _torch_kind(_clip, "timm"),
    "U-Net": _torch_kind(_unet, side=128),
    "CNN of Flax NNX": Kind((), _nnx),
    "ViT of Flax Linen": Kind((), _linen),
    "CNN of Equinox": Kind(("equinox",), _equinox),
    "MobileNetV2 of Keras": Kind(("keras",), _keras),
    "plain function": Kind((), _plain),
    "HOG of three cell sizes": Kind((), _hogs),
}
"""By the name in the table."""
