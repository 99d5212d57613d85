"""PyTorch modules as representations.

torchax runs a module's own Python on JAX arrays, once, and `program` keeps what the
layer depends on. The caller's module is not touched: a copy is run that shares its
parameters, has none of its hooks and is in evaluation mode.

Importing torchax changes the process: `torch.backends.mha` loses its fast path, JAX is
given an option for its clients, and an environment variable is set. These are put back.
What stays is PyTorch's spare backend, which is called "jax" from then on.
"""

import collections
import contextlib
import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.representations.bridges import bridged, program
from invjax.representations.bridges.bridged import (
    BridgedRepresentation,
    Colour,
    LayerInfo,
    Preprocessing,
)

_LISTER = "invjax.torch_layers(module)"


def from_torch(
    module: Any,
    *,
    image_shape: Sequence[int],
    layer: str | None = None,
    mean: Colour = None,
    std: Colour = None,
    layout: str = "NCHW",
    output: int | str | None = None,
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> BridgedRepresentation:
    """Cuts a PyTorch module at a layer.

    The code is the layer's own output without its batch axis, such as [c, h, w] after a
    convolution. It is computed in evaluation mode, whatever mode the module is in; the
    module is not changed, and later changes of it do not change the representation. It
    is compared with PyTorch's own on one image before it is returned: print the
    representation, or see its `parity`.

    A layer that is called several times has its last output as its code. Outputs are
    taken as the layer returns them: a hook that keeps an output without a copy shows
    what an in-place ReLU after it has made of it.

    Args:
      module: a torch.nn.Module of any type of floating-point numbers, on any device.
      image_shape: (height, width, channels) of the images.
      layer: a name of `module.named_modules()`; None for what the module returns.
      mean: what is subtracted from an image: the mean of the images on which the module
        was trained, in units of [0, 1], as torchvision gives it; a number, or one per
        channel; None for 0.
      std: their standard deviation, in the same units; None for 1. A module that takes
        grey levels from 0 to 255 has std=1/255.
      layout: order of axes in which the module takes its image, one of NCHW, NHWC, CHW
        and HWC.
      output: position or name of the code where the layer returns several tensors.
      arguments: other arguments of the module's forward function, by name.
      name: name of the network in records; None for the name of the module's class.

    Raises:
      ImportError: PyTorch or torchax is not installed.
      ValueError: the module is no torch.nn.Module, has no such layer, cannot take the
        image, or cannot be translated; the layer's output is no tensor of
        floating-point numbers; the code differs from PyTorch's own; mean, std, layout
        or image_shape is not what is accepted.
    """
    bridged.require("torch", extra="torch", caller="from_torch")
    bridged.require("torchax", extra="torch", caller="from_torch")
    preprocessing = Preprocessing.of(image_shape, mean=mean, std=std, layout=layout)
    network = _Network.of(module, arguments, caller="from_torch", name=name)
    if layer is not None:
        names = [name for name, _ in network.module.named_modules() if name]
        bridged.check_layer(layer, names, network=network.name, lister=_LISTER)
    cut = _found(network, layer or "", output, preprocessing)
    return bridged.build(
        _traced(network, cut, preprocessing),
        lambda key: _array(network.tensors[key]),
        lambda _, x: _reference(network, cut, preprocessing, x),
        preprocessing,
        name=f"{network.name}/{layer or 'output'}",
        framework="PyTorch",
    )


def torch_layers(
    module: Any,
    *,
    image_shape: Sequence[int] = (224, 224, 3),
    layout: str = "NCHW",
    arguments: Mapping[str, Any] | None = None,
) -> list[LayerInfo]:
    """Lists the layers at which `from_torch` can cut a module, in the order of calls.

    Args:
      module, image_shape, layout, arguments: as in `from_torch`.

    Returns:
      Name, class and shape of the output of every layer that is called.

    Raises:
      ImportError: PyTorch is not installed.
      ValueError: the module is no torch.nn.Module or cannot take the image.
    """
    bridged.require("torch", extra="torch", caller="torch_layers")
    preprocessing = Preprocessing.of(image_shape, mean=None, std=None, layout=layout)
    network = _Network.of(module, arguments, caller="torch_layers", name=None)
    found: dict[str, LayerInfo] = {}

    def listing(key: str) -> Any:
        def hook(part: Any, _: Any, output: Any) -> None:
            try:
                code = bridged.chosen(output, None, layer=key, kind=_tensor_type())
                shape = tuple(preprocessing.unbatched(code).shape)
            except ValueError:
                shape = None
            found[key] = LayerInfo(key, type(part).__name__, shape)

        return hook

    for key, part in network.module.named_modules():
        if key:
            part.register_forward_hook(listing(key))
    error = network.error_of(preprocessing)
    if error is not None:
        raise _refused(network, "", preprocessing, error)
    return list(found.values())


class _Cut(NamedTuple):
    """Where a module is cut.

    Attributes:
      layer: name of the layer; "" for the whole module.
      output: position or name of the code among its outputs; None for the only one.
      call: number of the call whose output is the code, counted from 1.
    """

    layer: str
    output: int | str | None
    call: int


class _Network(NamedTuple):
    """A copy of a module, which can be run and given hooks.

    Attributes:
      module: the copy, which shares the parameters.
      tensors: parameters and buffers by name.
      arguments: what its forward function is given besides the image, by name.
      name: name of the network.
    """

    module: Any
    tensors: dict[str, Any]
    arguments: dict[str, Any]
    name: str

    @classmethod
    def of(
        cls,
        module: Any,
        arguments: Mapping[str, Any] | None,
        *,
        caller: str,
        name: str | None,
    ) -> "_Network":
        import torch

        if not isinstance(module, torch.nn.Module):
            raise bridged.Refused(
                f"{caller} takes a torch.nn.Module, not a {type(module).__name__}"
            )
        # What torch.compile returns holds the module.
        module = getattr(module, "_orig_mod", module)
        if isinstance(module, torch.jit.ScriptModule):
            raise bridged.Refused(
                f"{caller} takes the Python of a module, which a ScriptModule no "
                "longer has; the module that was scripted or traced is accepted"
            )
        try:
            copied = _private_copy(module)
        except Exception as error:
            raise bridged.Refused(
                f"{caller}: {type(module).__name__} cannot be copied "
                f"({bridged.first_line(error)})"
            ) from error
        tensors = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
        return cls(
            copied, tensors, dict(arguments or {}), name or type(module).__name__
        )

    def run(self, x: Any) -> Any:
        """What the copy returns for its input, in PyTorch."""
        return self.module(x, **self.arguments)

    def input_of(self, x: np.ndarray, preprocessing: Preprocessing) -> Any:
        """A preprocessed image [h, w, c] as the module takes it."""
        import torch

        floats = [t for t in self.tensors.values() if t.is_floating_point()]
        arranged = np.ascontiguousarray(preprocessing.arranged(x))
        tensor = torch.from_numpy(arranged)
        return tensor.to(floats[0].device, floats[0].dtype) if floats else tensor

    def error_of(self, preprocessing: Preprocessing) -> Exception | None:
        """Why the module cannot be run on a grey image; None if it can."""
        import torch

        x = np.full(preprocessing.image_shape, 0.5, np.float32)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.run(self.input_of(x, preprocessing))
            except Exception as error:
                return error
        return None


class _Reached(BaseException):
    """Ends a module's forward function where its layer has returned the code.

    No Exception, which the module might catch.
    """

    def __init__(self, code: Any) -> None:
        super().__init__()
        self.code = code


def _private_copy(module: Any) -> Any:
    """A copy that shares parameters, in evaluation mode and without the user's hooks.

    Hooks of PyTorch's own stay, which compute a weight (`weight_norm`). Tensors that
    are plain attributes become buffers.
    """
    import torch

    memo: dict[int, Any] = {id(weight): weight for weight in module.parameters()}
    for part in module.modules():
        for key, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                memo[id(value)] = value.detach()
            elif key.endswith("_hooks") and isinstance(value, dict):
                kept = {k: hook for k, hook in value.items() if _is_of_torch(hook)}
                memo[id(value)] = collections.OrderedDict(kept)
    copied = copy.deepcopy(module, memo)
    for part in copied.modules():
        for key, value in [*vars(part).items()]:
            if isinstance(value, torch.Tensor):
                del vars(part)[key]
                part.register_buffer(key, value, persistent=False)
    return copied.eval()


def _is_of_torch(hook: Any) -> bool:
    return type(hook).__module__.startswith("torch.nn.utils")


def _tensor_type() -> type:
    import torch

    return torch.Tensor


def _found(
    network: _Network,
    layer: str,
    output: int | str | None,
    preprocessing: Preprocessing,
) -> _Cut:
    """The last call of a layer for one image; refuses what cannot be computed.

    What is above the layer may fail, as dense layers do for images of other sizes.
    """
    outputs: list[Any] = []
    part = network.module.get_submodule(layer)
    handle = part.register_forward_hook(lambda _, __, found: outputs.append(found))
    error = network.error_of(preprocessing)
    handle.remove()
    if not outputs:
        if error is not None:
            raise _refused(network, layer, preprocessing, error)
        raise bridged.Refused(
            f"{network.name} does not call its layer {layer!r} for an image; {_LISTER} "
            "lists those that it calls"
        )
    bridged.chosen(outputs[-1], output, layer=layer, kind=_tensor_type())
    return _Cut(layer, output, len(outputs))


def _refused(
    network: _Network, layer: str, preprocessing: Preprocessing, error: Exception
) -> bridged.Refused:
    return bridged.not_computed(
        f"{layer} of {network.name}" if layer else network.name,
        preprocessing,
        error,
        computes=lambda other: network.error_of(other) is None,
    )


@contextlib.contextmanager
def _ending(network: _Network, cut: _Cut) -> Iterator[None]:
    """A context in which the copy ends with `_Reached` at the layer's last call."""
    calls = 0

    def hook(_: Any, __: Any, found: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == cut.call:
            raise _Reached(
                bridged.chosen(found, cut.output, layer=cut.layer, kind=_tensor_type())
            )

    handle = network.module.get_submodule(cut.layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _reference(
    network: _Network, cut: _Cut, preprocessing: Preprocessing, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """PyTorch's own code and gradient; see `bridged.Reference`."""
    import torch

    with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = network.input_of(x, preprocessing).requires_grad_()
        with _ending(network, cut):
            try:
                network.run(given)
                raise AssertionError(f"{cut.layer} is called less often than before")
            except _Reached as reached:
                code = preprocessing.unbatched(reached.code)
        along = torch.from_numpy(bridged.direction(tuple(code.shape)))
        try:
            (pulled,) = torch.autograd.grad(code, given, along.to(code))
        except RuntimeError:
            return _array(code).astype(np.float32), None
    gradient = _array(pulled).astype(np.float32)
    gradient = gradient[0] if preprocessing.has_batch else gradient
    if preprocessing.layout in ("NCHW", "CHW"):
        gradient = gradient.transpose(1, 2, 0)
    return _array(code).astype(np.float32), gradient


def _traced(
    network: _Network, cut: _Cut, preprocessing: Preprocessing
) -> program.Traced:
    """The equations of the code, by running the copy on JAX arrays."""
    import torch

    floats = [t for t in network.tensors.values() if t.is_floating_point()]
    dtype = _array(floats[0].new_empty(0)).dtype if floats else np.dtype(np.float32)

    def code(weights: dict[str, Any], x: Any) -> Any:
        tensors = environment.j2t_iso(weights)
        given = environment.j2t_iso(preprocessing.arranged(x).astype(dtype))
        with _ending(network, cut), environment, torch.no_grad():
            try:
                torch.func.functional_call(
                    network.module, tensors, (given,), network.arguments
                )
                raise AssertionError(f"{cut.layer} is called less often than before")
            except _Reached as reached:
                return environment.t2j_iso(reached.code)

    shapes = {
        key: jax.ShapeDtypeStruct(tuple(tensor.shape), _array(tensor[:0].cpu()).dtype)
        if tensor.ndim
        else jax.ShapeDtypeStruct((), _array(tensor).dtype)
        for key, tensor in network.tensors.items()
    }
    with _torchax() as environment:
        try:
            traced = program.trace(
                code,
                shapes,
                preprocessing.image_shape,
                has_batch=preprocessing.has_batch,
            )
        except Exception as error:
            raise bridged.Refused(
                f"torchax cannot compute {cut.layer or 'the output'} of {network.name} "
                f"({bridged.first_line(error)})"
            ) from error
    assert traced is not None
    return traced


@contextlib.contextmanager
def _torchax() -> Iterator[Any]:
    """torchax's environment; what importing it changes is put back."""
    import torch

    fast_path = torch.backends.mha.get_fastpath_enabled()
    variables = dict(os.environ)
    options = getattr(jax.config, "jax_pjrt_client_create_options", None)
    with warnings.catch_warnings():
        # It asks for 64-bit integers, and is told that it gets those of 32.
        warnings.simplefilter("ignore")
        try:
            from torchax import tensor

            torch.backends.mha.set_fastpath_enabled(False)
            with program.library_types():
                yield _environment(tensor)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for key in set(os.environ) - set(variables):
                del os.environ[key]
            if options is not None:
                jax.config.update("jax_pjrt_client_create_options", options)


def _environment(tensor: Any) -> Any:
    """An environment of torchax that takes PyTorch's tensors for constants.

    Modules make tensors without saying where (`torch.arange(n)`), or keep them in
    lists.
    """
    import torch

    class Translator(tensor.Environment):
        def t2j_iso(self, tensors: Any) -> Any:
            def to_jax(x: Any) -> Any:
                if isinstance(x, tensor.Tensor | tensor.View):
                    return x.jax()
                return x.item() if x.ndim == 0 else jnp.asarray(_array(x))

            return torch.utils._pytree.tree_map_only(torch.Tensor, to_jax, tensors)

    def left_to_parts(*_: Any, **__: Any) -> Any:
        raise tensor.OperatorNotFound

    environment = Translator()
    # Its forms of these lack some of their arguments; those of their parts do not.
    for function in (torch.nn.functional.linear, torch.nn.functional.interpolate):
        environment.override_op_definition(function, left_to_parts)
    return environment


def _array(tensor: Any) -> np.ndarray:
    """A tensor's values; those of 64 bits get 32, as they have in JAX."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
    array = tensor.numpy()
    narrow = {"float64": "float32", "int64": "int32", "complex128": "complex64"}
    return array.astype(narrow.get(array.dtype.name, array.dtype))
