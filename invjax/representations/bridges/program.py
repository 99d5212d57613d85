"""A function as the equations that compute one array from an image and weights.

Other frameworks hand over Python that builds a computation. `trace` runs it once and
keeps the equations (JAX's jaxpr) on which the array depends: what is above the cut is
gone, and so are the weights that only that needs. `evaluate` computes them again, with
the operations of `networks.ops` in place of the stock ones:

* depthwise convolutions, which XLA computes slowly on CPU;
* max-pools over square windows, whose stock gradient is slow;
* where a relaxation is asked for, ReLUs and max-pools with relaxed derivatives. A ReLU
  is what JAX calls one, or a maximum with zero; ReLU6 is one below a minimum.

Operations inside a loop (`scan`, `while`) or inside a function with a derivative of its
own are left as they are.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var
from jax.typing import ArrayLike

from invjax.networks.ops import activations, convolution, pooling
from invjax.networks.relaxation import Relaxation
from invjax.types import ordinary_types

_TAG = "invjax code of "
_CONSTANT = "constant"


# eq=False: compared by identity, since equations cannot be compared.
@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Equations from weights and a float32 image to one array.

    Attributes:
      equations: what is computed, in order.
      weights: the name and the variable of each array that the equations need.
      image: the variable of the image; None where the array does not depend on it.
      code: the variable of the array, or a constant.
      has_batch: whether its first axis, which is 1 long, is dropped.
      code_shape: its shape, without that axis.
      code_dtype: its type.
    """

    equations: tuple[JaxprEqn, ...]
    weights: tuple[tuple[str, Var], ...]
    image: Var | None
    code: Var | Literal
    has_batch: bool
    code_shape: tuple[int, ...]
    code_dtype: Any


class Traced(NamedTuple):
    """What `trace` returns.

    Attributes:
      program: the equations.
      constants: arrays that the function had inside of it, by the names that
        `program.weights` gives them.
    """

    program: Program
    constants: dict[str, Array]


def tagged(x: Array, layer: str) -> Array:
    """The same array, at which `trace` can cut a function.

    Args:
      x: the output of a layer.
      layer: name of the layer, as `trace` is given it.
    """
    return checkpoint_name(x, _TAG + layer)


def trace(
    function: Callable[[dict[str, Any], Array], Any],
    weights: Mapping[str, jax.ShapeDtypeStruct],
    image_shape: tuple[int, ...],
    *,
    layer: str | None = None,
    has_batch: bool = False,
) -> Traced | None:
    """The equations of a function of weights and an image, cut at a layer.

    Args:
      function: (weights by name, float32 image) -> one array. With a layer it may
        return anything.
      weights: shapes and types of the weights.
      image_shape: shape of the image.
      layer: name of the tag (`tagged`) whose array is the code, the last one where
        there are several; None for what the function returns.
      has_batch: whether the code's first axis is dropped if it is 1 long.

    Returns:
      The equations, or None if nothing with that tag is computed outside of loops.

    Examples:
      >>> double = lambda weights, image: image * weights["two"]
      >>> two = jax.ShapeDtypeStruct((), jnp.float32)
      >>> trace(double, {"two": two, "unused": two}, (2,)).program.code_shape
      (2,)
    """
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    with library_types():
        closed = jax.make_jaxpr(function)(dict(weights), image)
        inlined = jax.make_jaxpr(_inlined, static_argnums=0)(
            closed.jaxpr, list(closed.consts), [*_leaves(weights), image]
        )
    flat: Any = inlined.jaxpr
    codes = [*flat.outvars] if layer is None else [*_with_tag(flat.eqns, layer)]
    if not codes:
        return None
    code = codes[-1]
    needed = {code} if isinstance(code, Var) else set()
    equations = []
    for equation in reversed(flat.eqns):
        if not needed.isdisjoint(equation.outvars):
            equations.append(equation)
            needed.update(x for x in equation.invars if isinstance(x, Var))
    # Those of compiled functions inside of it are constants of the inlined equations.
    arrays = [*inlined.consts, *closed.consts]
    constants = [f"{_CONSTANT}/{number}" for number in range(len(arrays))]
    names = [*constants, *sorted(weights)]
    inputs: list[Any] = [*flat.constvars, *flat.invars]
    image_variable = inputs.pop()
    used = [(n, v) for n, v in zip(names, inputs, strict=True) if v in needed]
    shape: tuple[int, ...] = tuple(cast(Any, code.aval).shape)
    drops = has_batch and shape[:1] == (1,)
    program = Program(
        equations=tuple(reversed(equations)),
        weights=tuple(used),
        image=image_variable if image_variable in needed else None,
        code=code,
        has_batch=drops,
        code_shape=shape[1:] if drops else shape,
        code_dtype=dtype_of(code),
    )
    values = dict(zip(constants, arrays, strict=True))
    found = {name: jnp.asarray(values[name]) for name, _ in used if name in values}
    return Traced(program, found)


def evaluate(
    program: Program,
    weights: Mapping[str, ArrayLike],
    image: ArrayLike,
    relaxation: Relaxation | None,
    *,
    stock: bool = False,
) -> Array:
    """The array that a program computes.

    Args:
      program: the equations.
      weights: arrays by name, all that `program.weights` names.
      image: an image; its shape is the one for which the program was traced.
      relaxation: how far derivatives are relaxed; None for the exact ones.
      stock: whether all operations are left as they are.
    """
    values: dict[Any, Any] = {
        variable: jnp.asarray(weights[name]) for name, variable in program.weights
    }
    if program.image is not None:
        values[program.image] = jnp.asarray(image, jnp.float32)
    with library_types():
        _run(program.equations, values, None if stock else _Replacing(relaxation))
    code = jnp.asarray(_value(program.code, values))
    return code[0] if program.has_batch else code


@contextlib.contextmanager
def library_types() -> Iterator[None]:
    """A context in which libraries find JAX's types and shapes to be as they expect.

    Examples:
      >>> with library_types():
      ...     (jnp.ones((2, 2)) + jnp.ones(2)).shape
      (2, 2)
    """
    with ordinary_types(), jax.numpy_rank_promotion("allow"):
        yield


def dtype_of(variable: Var | Literal) -> Any:
    """The type of the array that a variable stands for: NumPy's, or JAX's of keys."""
    return cast(Any, variable.aval).dtype


def _leaves(weights: Mapping[str, Any]) -> list[Any]:
    """In the order in which JAX flattens a dictionary."""
    return [weights[name] for name in sorted(weights)]


def _with_tag(equations: Iterable[JaxprEqn], layer: str) -> Iterator[Var]:
    for equation in equations:
        if equation.primitive.name == "name":
            if equation.params["name"] == _TAG + layer:
                yield equation.outvars[0]


# --- equations as operations ---

_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
    "closed_call": "call_jaxpr",
}
"""Equations that only call others, and the parameter that has them."""


def _inlined(jaxpr: Jaxpr, constants: list[Any], arguments: list[Any]) -> list[Any]:
    """Outputs of equations; where this is traced, calls are gone."""
    values = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)
    _run(jaxpr.eqns, values, None)
    return [_value(atom, values) for atom in jaxpr.outvars]


def _run(
    equations: Iterable[JaxprEqn],
    values: dict[Any, Any],
    replacing: "_Replacing | None",
) -> None:
    """Computes equations, and adds what they compute to the values of variables."""
    for equation in equations:
        name = equation.primitive.name
        inputs = [_value(atom, values) for atom in equation.invars]
        if name in _CALLS:
            outputs = _called(equation.params[_CALLS[name]], inputs, replacing)
        elif replacing and (found := replacing(equation, inputs)) is not None:
            outputs = found
        elif name == "convert_element_type" and _is_number(inputs[0]):
            # Stays a number, by which a ReLU is known.
            outputs = [np.asarray(inputs[0]).astype(equation.params["new_dtype"])[()]]
        else:
            primitive = equation.primitive
            params = primitive.get_bind_params(equation.params)
            outputs = primitive.bind(*inputs, **params)
            outputs = outputs if primitive.multiple_results else [outputs]
        values |= zip(equation.outvars, outputs, strict=True)


def _called(
    called: Any, inputs: list[Any], replacing: "_Replacing | None"
) -> list[Any]:
    jaxpr, constants = getattr(called, "jaxpr", called), getattr(called, "consts", ())
    values = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)
    _run(jaxpr.eqns, values, replacing)
    return [_value(atom, values) for atom in jaxpr.outvars]


def _value(atom: Any, values: dict[Any, Any]) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]


def _is_number(x: Any) -> bool:
    """Whether x is a constant without axes, as equations hold them."""
    return not isinstance(x, Array) and np.ndim(x) == 0


def _is_relu(called: Any) -> bool:
    """Whether a function is max(x, 0), or min(max(x, 0), number), and no more.

    JAX's have derivatives of their own, at zero.
    """
    names, bounds = [], []
    jaxpr = getattr(called, "jaxpr", called)
    while len(jaxpr.eqns) == 1 and jaxpr.eqns[0].primitive.name in _CALLS:
        (equation,) = jaxpr.eqns
        inner = equation.params[_CALLS[equation.primitive.name]]
        jaxpr = getattr(inner, "jaxpr", inner)
    for equation in jaxpr.eqns:
        names.append(equation.primitive.name)
        bounds += [x.val for x in equation.invars if isinstance(x, Literal)]
    is_clip = names in (["max"], ["max", "min"]) and len(bounds) == len(names)
    return is_clip and float(np.asarray(bounds[0])) == 0


class _Replacing:
    """Finds the operations that `networks.ops` has."""

    def __init__(self, relaxation: Relaxation | None) -> None:
        self._relaxation = relaxation
        # id of a ReLU's output -> (that output, which keeps the id its own, its input)
        self._relus: dict[int, tuple[Any, Any]] = {}

    def __call__(self, equation: JaxprEqn, inputs: list[Any]) -> list[Any] | None:
        """Outputs of an equation, or None for one that is left as it is."""
        match equation.primitive.name:
            case "conv_general_dilated":
                return _listed(_convolution(equation, *inputs))
            case "reduce_window_max":
                return _listed(_max_pool(equation, inputs[0], self._relaxation))
            case "custom_jvp_call" if _is_relu(equation.params["call_jaxpr"]):
                replacing = _Replacing(self._relaxation or _EXACT)
                return _called(equation.params["call_jaxpr"], inputs, replacing)
            case "max" | "min" if self._relaxation is not None:
                return _listed(self._clipped(equation, inputs))
        return None

    def _clipped(self, equation: JaxprEqn, inputs: list[Any]) -> Array | None:
        """A ReLU; ReLU6 of its input where it is a minimum with a ReLU's output."""
        assert self._relaxation is not None
        numbers = [x for x in inputs if _is_number(x)]
        arrays = [x for x in inputs if not _is_number(x)]
        if len(numbers) != 1 or not jnp.issubdtype(arrays[0].dtype, jnp.floating):
            return None
        bound, x = float(np.asarray(numbers[0])), arrays[0]
        if equation.primitive.name == "max":
            if bound != 0:
                return None
            y = activations.relu(x, self._relaxation)
            self._relus[id(y)] = (y, x)
            return y
        if id(x) not in self._relus or not bound > 0:
            return None
        _, x = self._relus[id(x)]
        return activations.relu(x, self._relaxation, ceiling=bound)


_EXACT = Relaxation(*(cast(Array, np.float32(0)),) * 2)


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes one."""
    return tuple(order.index(axis) for axis in range(len(order)))


def _listed(found: Array | None) -> list[Array] | None:
    return None if found is None else [found]


def _convolution(equation: JaxprEqn, x: Array, kernel: Array) -> Array | None:
    """A depthwise convolution of one image; None for any other."""
    options = equation.params
    numbers = options["dimension_numbers"]
    stride, padding = options["window_strides"], options["padding"]
    channels = x.shape[numbers.lhs_spec[1]]
    is_depthwise = (
        x.ndim == 4
        and x.shape[numbers.lhs_spec[0]] == 1
        and 1 < channels == options["feature_group_count"]
        and kernel.shape[numbers.rhs_spec[0]] == channels
        and {*options["lhs_dilation"], *options["rhs_dilation"]} == {1}
        and len({*stride}) == len({*padding}) == 1
        and min(padding[0]) >= 0
        and x.dtype == kernel.dtype
    )
    if not is_depthwise:
        return None
    batch, channel, *places = numbers.lhs_spec
    outs, ins, *taps = numbers.rhs_spec
    y = convolution.depthwise_convolution(
        jnp.transpose(x, (batch, *places, channel))[0],
        jnp.transpose(kernel, (*taps, ins, outs)),
        stride=stride[0],
        padding=tuple(padding[0]),
    )[None]
    batch, channel, *places = numbers.out_spec
    return jnp.transpose(y, _inverse((batch, *places, channel)))


def _max_pool(
    equation: JaxprEqn, x: Array, relaxation: Relaxation | None
) -> Array | None:
    """A max-pool over square windows of one image; None for any other."""
    options = equation.params
    window, stride = options["window_dimensions"], options["window_strides"]
    padding = options["padding"]
    if x.ndim != 4 or x.shape[0] != 1 or not jnp.issubdtype(x.dtype, jnp.floating):
        return None
    channel = 1 if window[1] == 1 else 3
    first, second = (axis for axis in (1, 2, 3) if axis != channel)
    is_square = (
        {*options["base_dilation"], *options["window_dilation"]} == {1}
        and {window[0], window[channel], stride[0], stride[channel]} == {1}
        and {*padding[0], *padding[channel]} == {0}
        and window[first] == window[second] > 1
        and stride[first] == stride[second]
        and tuple(padding[first]) == tuple(padding[second])
        and min(padding[first]) >= 0
    )
    if not is_square:
        return None
    order = (0, first, second, channel)
    image = jnp.transpose(x, order)[0]
    form: dict[str, Any] = {
        "window": window[first],
        "stride": stride[first],
        "padding": tuple(padding[first]),
    }
    if relaxation is None:
        y = pooling.max_pool(image, **form)
    else:
        spread = jnp.asarray(relaxation.pool_spread, x.dtype)
        y = pooling.spreading_max_pool(image, spread, **form)
    return jnp.transpose(y[None], _inverse(order))
