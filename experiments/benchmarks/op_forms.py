"""Fast forms of `invjax.networks.ops` beside stock operations, at networks' shapes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.benchmarks import precisions, stock
from experiments.benchmarks.report import MILLISECONDS, Report, Subject
from experiments.benchmarks.timing import Contestant
from invjax.networks.ops import activations, convolution, pooling

_STOCK = "stock"


class _Op(NamedTuple):
    """An operation of a network, and the forms in which it can be computed.

    Attributes:
      name: where in which network it stands.
      shape: [h, w, c] of its input.
      kernel_shape: shape of its kernel; () where it has none.
      chosen: the form that `invjax.networks.ops` takes on this backend.
      forms: functions (x, kernel) -> y by name.
    """

    name: str
    shape: tuple[int, int, int]
    kernel_shape: tuple[int, ...]
    chosen: Callable
    forms: dict[str, Callable]


def run(
    report: Report,
    *,
    batch: int,
    precision: str,
    rounds: int,
    least_seconds: float,
    only_first: bool,
) -> None:
    """Times value and gradient with respect to the image, for a vmapped batch.

    `used` in a record says whether `invjax.networks.ops` takes this form on this
    backend.

    Args:
      report: where the records go.
      batch: number of images.
      precision: a word of `precisions.PRECISIONS`.
      rounds, least_seconds: as in `timing.take_turns`.
      only_first: leave out all operations but the first.
    """
    for op in _ops()[: 1 if only_first else None]:
        subject = Subject("ops", f"{op.name}, per image", batch, precision)
        report.race(
            subject,
            _contestants(op, batch, precision),
            MILLISECONDS,
            baselines=(_STOCK,),
            rounds=rounds,
            least_seconds=least_seconds,
        )


def differences(precision: str, *, only_first: bool) -> dict[str, tuple[float, float]]:
    """How far the fast forms are from the stock ones, for two images.

    Args:
      precision: a word of `precisions.PRECISIONS`.
      only_first: leave out all operations but the first.

    Returns:
      Operation -> largest relative differences of the value and of the gradient:
      norms of the differences, divided by the norms for the stock form.
    """
    found = {}
    for op in _ops()[: 1 if only_first else None]:
        x, kernel, pulled = _inputs(op, 2, precision)
        stock_values, *others = (
            jax.device_get(_compiled(form, x, kernel, pulled, precision)())
            for form in op.forms.values()
        )
        found[op.name] = (
            max(_distance(other[0], stock_values[0]) for other in others),
            max(_distance(other[1], stock_values[1]) for other in others),
        )
    return found


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    wide = np.asarray(expected, np.float64)
    return float(np.linalg.norm(found - wide) / np.linalg.norm(wide))


def _contestants(op: _Op, batch: int, precision: str) -> list[Contestant]:
    x, kernel, pulled = _inputs(op, batch, precision)
    chosen = _program(op.chosen, x[0], kernel)
    return [
        Contestant(
            name,
            _waiting(_compiled(form, x, kernel, pulled, precision)),
            batch,
            notes={"used": form is op.chosen or _program(form, x[0], kernel) == chosen},
        )
        for name, form in op.forms.items()
    ]


def _inputs(op: _Op, batch: int, precision: str) -> tuple[Array, Array, Array]:
    """Random images, kernel, and cotangents of the results."""
    random = np.random.default_rng(0)
    dtype = precisions.compute_dtype(precision)
    x = jnp.asarray(random.normal(size=(batch, *op.shape)), dtype)
    kernel = jnp.asarray(random.normal(size=op.kernel_shape), dtype)
    y_shape = jax.eval_shape(jax.vmap(op.chosen, (0, None)), x, kernel).shape
    return x, kernel, jnp.asarray(random.normal(size=y_shape), dtype)


def _compiled(
    form: Callable, x: Array, kernel: Array, pulled: Array, precision: str
) -> Callable[[], tuple[Array, Array]]:
    """A call that gives the values and the gradients; compiled at its first use."""

    @jax.jit
    def run(x: Array, kernel: Array, pulled: Array) -> tuple[Array, Array]:
        y, pull = jax.vjp(lambda x: jax.vmap(form, (0, None))(x, kernel), x)
        return y, pull(pulled)[0]

    @functools.cache
    def program() -> Callable:
        with precisions.in_jax(precision):
            return run.lower(x, kernel, pulled).compile()

    return lambda: program()(x, kernel, pulled)


def _waiting(call: Callable[[], Any]) -> Callable[[], None]:
    def wait() -> None:
        jax.block_until_ready(call())

    return wait


def _program(form: Callable, x: Array, kernel: Array) -> str:
    return str(jax.make_jaxpr(form)(x, kernel))


def _ops() -> list[_Op]:
    return [
        _strided("alexnet conv1", (224, 224, 3), (11, 11, 3, 64), 4, (2, 2)),
        _pool("alexnet pool1", (55, 55, 64), 3, 2, (0, 0)),
        _pool("vgg16 pool1", (224, 224, 64), 2, 2, (0, 0)),
        _strided("resnet50 stem", (224, 224, 3), (7, 7, 3, 64), 2, (3, 3)),
        _pool("resnet50 pool", (112, 112, 64), 3, 2, (1, 1)),
        _norm("caffenet norm1", (27, 27, 96)),
        _depthwise("efficientnet_lite0 block2, 3 x 3", (56, 56, 144), 3, 1, (1, 1)),
        _depthwise("efficientnet_lite0 block3, 5 x 5", (56, 56, 144), 5, 2, (1, 2)),
        _depthwise("efficientnet_lite0 block4, 5 x 5", (28, 28, 240), 5, 1, (2, 2)),
    ]


def _strided(
    name: str,
    shape: tuple[int, int, int],
    kernel_shape: tuple[int, ...],
    stride: int,
    padding: tuple[int, int],
) -> _Op:
    def bind(function: Callable) -> Callable:
        return functools.partial(function, stride=stride, padding=padding)

    forms = {
        _STOCK: bind(convolution.stock_strided_convolution),
        "space to depth": bind(convolution.space_to_depth_convolution),
    }
    return _Op(name, shape, kernel_shape, bind(convolution.strided_convolution), forms)


def _depthwise(
    name: str,
    shape: tuple[int, int, int],
    size: int,
    stride: int,
    padding: tuple[int, int],
) -> _Op:
    def bind(function: Callable) -> Callable:
        return functools.partial(function, stride=stride, padding=padding)

    forms = {
        _STOCK: bind(convolution.stock_depthwise_convolution),
        "shifted": bind(convolution.shifted_depthwise_convolution),
    }
    kernel_shape = (size, size, 1, shape[-1])
    return _Op(
        name, shape, kernel_shape, bind(convolution.depthwise_convolution), forms
    )


def _pool(
    name: str,
    shape: tuple[int, int, int],
    window: int,
    stride: int,
    padding: tuple[int, int],
) -> _Op:
    options: dict[str, Any] = {"window": window, "stride": stride, "padding": padding}
    chosen = _without_kernel(functools.partial(pooling.max_pool, **options))
    forms = {
        _STOCK: _without_kernel(functools.partial(stock.max_pool, **options)),
        "arg-max kept": chosen,
    }
    return _Op(name, shape, (), chosen, forms)


def _norm(name: str, shape: tuple[int, int, int]) -> _Op:
    options: dict[str, Any] = {"size": 5, "kappa": 1.0, "alpha": 2e-5, "beta": 0.75}
    chosen = _without_kernel(
        functools.partial(activations.local_response_norm, **options)
    )
    forms = {
        _STOCK: _without_kernel(
            functools.partial(stock.local_response_norm, **options)
        ),
        "derivative written out": chosen,
    }
    return _Op(name, shape, (), chosen, forms)


def _without_kernel(function: Callable) -> Callable:
    return lambda x, kernel: function(x)
