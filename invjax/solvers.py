"""Solvers of one lane: an initial state, and one update per gradient.

All of them minimise over z [h, w, c], the image in grey levels around its centre (see
`objective`), and are told the gradient with respect to z; what they iterate on is their
own: z itself (`HeavyBall`, `DecayedAdaGrad`, `Adam`) or a pyramid (`PyramidAdam`).
Learning rates are traced arguments of `update`; the frozen fields of a solver are
choices, part of the compiled program.
"""

import dataclasses
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from invjax import pyramid
from invjax.objective import SIGMA
from invjax.types import Image, Scalar

State = TypeVar("State")


@runtime_checkable
class Solver(Protocol[State]):
    """What `inversion` asks of a solver. Hashable; every method is pure."""

    def init(self, z: Image) -> State:
        """The state that stands for the start z."""

    def variable(self, state: State, image_shape: tuple[int, int, int]) -> Image:
        """The z that a state stands for."""

    def update(self, gradient: Image, state: State, learning_rate: Scalar) -> State:
        """The state after one step along the energy's gradient at `variable`."""

    def move(self, state: State, z: Image) -> State:
        """The state that stands for z instead, its memory of gradients kept."""


class HeavyBallState(NamedTuple):
    """z, its momentum (grey levels) and the rate that made it."""

    z: Image
    momentum: Image
    learning_rate: Scalar


@dataclasses.dataclass(frozen=True)
class HeavyBall:
    """The CVPR paper's momentum descent.

        m <- decay m - rate dE/dx,  x <- x + m,  with x = z / sigma,

    kept in z, where it reads m <- decay m - rate sigma^2 dE/dz. The momentum is
    forgotten whenever the rate changes, as in the paper's released code.
    """

    decay: float = 0.9

    def init(self, z: Image) -> HeavyBallState:
        return HeavyBallState(z, jnp.zeros_like(z), jnp.zeros((), z.dtype))

    def variable(
        self, state: HeavyBallState, image_shape: tuple[int, int, int]
    ) -> Image:
        del image_shape
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
    """z, its momentum (grey levels) and the decayed sum of squared gradients, G."""

    z: Image
    momentum: Image
    squares: Image


@dataclasses.dataclass(frozen=True)
class DecayedAdaGrad:
    """The IJCV paper's AdaGrad with forgetting, entry by entry.

        G <- decay G + g^2,  m <- decay m - g / (1 / rate + sqrt(G)),  z <- z + m.

    The rate only matters where gradients are smaller than its inverse: elsewhere a step
    is g / sqrt(G) grey levels. Unlike Adam, nothing is averaged or corrected for its
    start, so that the momentum grows to 1 / (1 - decay) steps.
    """

    decay: float = 0.9

    def init(self, z: Image) -> DecayedAdaGradState:
        return DecayedAdaGradState(z, jnp.zeros_like(z), jnp.zeros_like(z))

    def variable(
        self, state: DecayedAdaGradState, image_shape: tuple[int, int, int]
    ) -> Image:
        del image_shape
        return state.z

    def update(
        self, gradient: Image, state: DecayedAdaGradState, learning_rate: Scalar
    ) -> DecayedAdaGradState:
        squares = self.decay * state.squares + gradient**2
        step = gradient / (1 / learning_rate + jnp.sqrt(squares))
        momentum = self.decay * state.momentum - step
        return DecayedAdaGradState(state.z + momentum, momentum, squares)

    def move(self, state: DecayedAdaGradState, z: Image) -> DecayedAdaGradState:
        return state._replace(z=z)


class AdamState(NamedTuple):
    """z (grey levels), and Adam's moments."""

    z: Image
    adam: optax.ScaleByAdamState


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam on the pixels of z; the rate is in grey levels.

    Attributes:
      decay, squares_decay: Adam's b1 and b2.
      epsilon: Adam's; it matters, since gradients are about 1e-6 in grey levels.
    """

    decay: float = 0.9
    squares_decay: float = 0.999
    epsilon: float = 1e-8

    def init(self, z: Image) -> AdamState:
        return AdamState(z, self._adam().init(z))

    def variable(self, state: AdamState, image_shape: tuple[int, int, int]) -> Image:
        del image_shape
        return state.z

    def update(
        self, gradient: Image, state: AdamState, learning_rate: Scalar
    ) -> AdamState:
        steps, adam = self._adam().update(gradient, state.adam)
        return AdamState(state.z - learning_rate * steps, adam)

    def move(self, state: AdamState, z: Image) -> AdamState:
        return state._replace(z=z)

    def _adam(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.decay, self.squares_decay, self.epsilon)


class PyramidAdamState(NamedTuple):
    """Levels of the image pyramid, and Adam's moments."""

    levels: pyramid.Levels
    adam: optax.ScaleByAdamState


@dataclasses.dataclass(frozen=True)
class PyramidAdam:
    """Adam on the levels of an image pyramid; see `pyramid`.

    The squares are forgotten soon, within some ten steps: while the image takes shape,
    gradients change by orders of magnitude.

    Attributes:
      decay, squares_decay: Adam's b1 and b2.
      epsilon: Adam's; it matters, since gradients are about 1e-6 in grey levels.
    """

    decay: float = 0.93
    squares_decay: float = 0.9
    epsilon: float = 1e-8

    def init(self, z: Image) -> PyramidAdamState:
        levels = pyramid.analyse(z)
        return PyramidAdamState(levels, self._adam().init(levels))

    def variable(
        self, state: PyramidAdamState, image_shape: tuple[int, int, int]
    ) -> Image:
        del image_shape
        return pyramid.synthesise(state.levels)

    def update(
        self, gradient: Image, state: PyramidAdamState, learning_rate: Scalar
    ) -> PyramidAdamState:
        steps, adam = self._adam().update(pyramid.adjoint(gradient), state.adam)
        levels = jax.tree.map(
            lambda level, step: level - learning_rate * step, state.levels, steps
        )
        return PyramidAdamState(levels, adam)

    def move(self, state: PyramidAdamState, z: Image) -> PyramidAdamState:
        finest, *coarser = state.levels
        moved = finest + (z - pyramid.synthesise(state.levels))
        return state._replace(levels=(moved, *coarser))

    def _adam(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.decay, self.squares_decay, self.epsilon)
