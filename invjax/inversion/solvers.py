"""Solvers of one lane: an initial state, and one update per gradient.

All of them minimise over z [h, w, c], the image in grey levels minus its centre (see
`objective`), and are given the gradient with respect to z. What they iterate on is z
itself (`HeavyBall`, `DecayedAdaGrad`, `Adam`) or an image pyramid (`PyramidAdam`).
Learning rates are traced arguments of `update`; the frozen fields of a solver are
static choices, part of the compiled program.

To add a solver, write a frozen dataclass with the four methods of `Solver` here, and a
row for it in `presets.PRESETS`.
"""

import dataclasses
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from invjax.inversion import pyramid
from invjax.inversion.objective import SIGMA
from invjax.inversion.pyramid import Levels
from invjax.types import Image, Scalar

State = TypeVar("State")


@runtime_checkable
class Solver(Protocol[State]):
    """The methods that every solver has. Solvers are hashable and methods are pure."""

    def init(self, z: Image) -> State:
        """The state before the first step, at the start z."""

    def variable(self, state: State) -> Image:
        """The z [h, w, c] at which the state is."""

    def update(self, gradient: Image, state: State, learning_rate: Scalar) -> State:
        """The state after one step; `gradient` is the energy's at `variable(state)`."""

    def move(self, state: State, z: Image) -> State:
        """The state at another z, with its memory of past gradients unchanged."""


class HeavyBallState(NamedTuple):
    """z, its momentum (grey levels), and the learning rate of the step that made it."""

    z: Image
    momentum: Image
    learning_rate: Scalar


@dataclasses.dataclass(frozen=True)
class HeavyBall:
    """The CVPR paper's momentum descent.

        m <- decay m - rate dE/dx,  x <- x + m,  with x = z / sigma,

    written in z, where it reads m <- decay m - rate sigma^2 dE/dz. The momentum is
    reset to zero whenever the learning rate changes, as in the paper's released code.
    """

    decay: float = 0.9

    def init(self, z: Image) -> HeavyBallState:
        return HeavyBallState(z, jnp.zeros_like(z), jnp.zeros((), z.dtype))

    def variable(self, state: HeavyBallState) -> Image:
        return state.z

    def update(
        self, gradient: Image, state: HeavyBallState, learning_rate: Scalar
    ) -> HeavyBallState:
        kept = jnp.where(learning_rate == state.learning_rate, self.decay, 0.0)
        momentum = kept * state.momentum - learning_rate * SIGMA**2 * gradient
        return HeavyBallState(state.z + momentum, momentum, learning_rate)

    def move(self, state: HeavyBallState, z: Image) -> HeavyBallState:
        return state._replace(z=z)


class DecayedAdaGradState(NamedTuple):
    """z, its momentum (grey levels) and G, the decayed sum of squared gradients."""

    z: Image
    momentum: Image
    sum_of_squares: Image


@dataclasses.dataclass(frozen=True)
class DecayedAdaGrad:
    """The IJCV paper's AdaGrad with forgetting, entry by entry.

        G <- decay G + g^2,  m <- decay m - g / (1 / rate + sqrt(G)),  z <- z + m.

    The learning rate only matters where gradients are smaller than its inverse:
    elsewhere a step is g / sqrt(G) grey levels. Unlike in Adam, neither the momentum
    nor G is an average or corrected for its start, so that the momentum grows to
    1 / (1 - decay) steps.
    """

    decay: float = 0.9

    def init(self, z: Image) -> DecayedAdaGradState:
        return DecayedAdaGradState(z, jnp.zeros_like(z), jnp.zeros_like(z))

    def variable(self, state: DecayedAdaGradState) -> Image:
        return state.z

    def update(
        self, gradient: Image, state: DecayedAdaGradState, learning_rate: Scalar
    ) -> DecayedAdaGradState:
        sum_of_squares = self.decay * state.sum_of_squares + gradient**2
        step = gradient / (1 / learning_rate + jnp.sqrt(sum_of_squares))
        momentum = self.decay * state.momentum - step
        return DecayedAdaGradState(state.z + momentum, momentum, sum_of_squares)

    def move(self, state: DecayedAdaGradState, z: Image) -> DecayedAdaGradState:
        return state._replace(z=z)


class AdamState(NamedTuple):
    """z (grey levels), and Adam's moments of its gradient."""

    z: Image
    adam: optax.ScaleByAdamState


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam on the pixels of z; the rate is in grey levels.

    Attributes:
      b1, b2, eps: as in `optax.adam`. eps matters, since gradients are about 1e-6 per
        grey level.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def init(self, z: Image) -> AdamState:
        return AdamState(z, _adam_at_zero(self._adam(), z))

    def variable(self, state: AdamState) -> Image:
        return state.z

    def update(
        self, gradient: Image, state: AdamState, learning_rate: Scalar
    ) -> AdamState:
        steps, adam = self._adam().update(gradient, state.adam)
        return AdamState(state.z - learning_rate * steps, adam)

    def move(self, state: AdamState, z: Image) -> AdamState:
        return state._replace(z=z)

    def _adam(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)


COLOURS = np.array(
    [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32
)
"""Columns are decorrelated colours: about the principal axes of photographs' RGB.

The first, brightness, varies most, and has norm 1.
"""
COLOURS /= np.max(np.linalg.norm(COLOURS, axis=0))


def _mixed(z: Image, matrix: np.ndarray) -> Image:
    """Every pixel's channels multiplied by a 3 x 3 matrix, in full float32.

    Written out, since XLA would round the inputs of a matrix product on GPUs.
    """
    channels = [
        sum(jnp.float32(factor) * z[..., n] for n, factor in enumerate(row))
        for row in np.asarray(matrix, np.float32)
    ]
    return jnp.stack(channels, axis=-1)


class PyramidAdamState(NamedTuple):
    """Levels of the image pyramid, and Adam's moments."""

    levels: Levels
    adam: optax.ScaleByAdamState


@dataclasses.dataclass(frozen=True)
class PyramidAdam:
    """Adam on the levels of an image pyramid; see `pyramid`.

    b2 is small, so that squared gradients are forgotten within some ten steps: while
    the image takes shape, gradients change by orders of magnitude.

    Attributes:
      b1, b2, eps: as in `optax.adam`. eps matters, since gradients are about 1e-6 per
        grey level.
      colours: whether the levels of an RGB image hold decorrelated colours, `COLOURS`,
        in place of red, green and blue. Images of other numbers of channels have none.
    """

    b1: float = 0.93
    b2: float = 0.9
    eps: float = 1e-8
    colours: bool = False

    def init(self, z: Image) -> PyramidAdamState:
        levels = pyramid.analyse(self._in_basis(z))
        return PyramidAdamState(levels, _adam_at_zero(self._adam(), levels))

    def variable(self, state: PyramidAdamState) -> Image:
        z = pyramid.synthesise(state.levels)
        return _mixed(z, COLOURS) if self._has_basis(z) else z

    def update(
        self, gradient: Image, state: PyramidAdamState, learning_rate: Scalar
    ) -> PyramidAdamState:
        if self._has_basis(gradient):
            gradient = _mixed(gradient, COLOURS.T)
        steps, adam = self._adam().update(pyramid.adjoint(gradient), state.adam)
        levels = jax.tree.map(
            lambda level, step: level - learning_rate * step, state.levels, steps
        )
        return PyramidAdamState(levels, adam)

    def move(self, state: PyramidAdamState, z: Image) -> PyramidAdamState:
        finest, *coarser = state.levels
        moved = finest + self._in_basis(z - self.variable(state))
        return state._replace(levels=(moved, *coarser))

    def _has_basis(self, z: Image) -> bool:
        return self.colours and z.shape[-1] == len(COLOURS)

    def _in_basis(self, z: Image) -> Image:
        return _mixed(z, np.linalg.inv(COLOURS)) if self._has_basis(z) else z

    def _adam(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)


def _adam_at_zero(
    adam: optax.GradientTransformation, params: Image | Levels
) -> optax.ScaleByAdamState:
    """Adam's state before its first step.

    The step counter is float32: optax computes b^count, whose type for an integer
    count would be JAX's default for floats.
    """
    return adam.init(params)._replace(count=jnp.zeros((), jnp.float32))
