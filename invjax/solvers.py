"""Solvers of one lane: an initial state, and one update per gradient.

All of them minimise over z [h, w, c], the image in grey levels around its centre (see
`objective`), and are told the gradient with respect to z; what they iterate on is their
own: z itself (`HeavyBall`, `DecayedAdaGrad`, `Adam`) or its spectrum (`FourierAdam`).
Learning rates are traced arguments of `update`; the frozen fields of a solver are
choices, part of the compiled program.
"""

import dataclasses
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

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


class FourierAdamState(NamedTuple):
    """Real and imaginary parts of the scaled spectrum, and Adam's moments."""

    spectrum: Float[Array, "2 h half_w c"]
    adam: optax.ScaleByAdamState


@dataclasses.dataclass(frozen=True)
class FourierAdam:
    """Adam on the spectrum of z, scaled so that natural images look white.

        z = irfft2(q weight),  weight ~ 1 / sqrt(fx^2 + fy^2 + (1 / max(h, w))^2),

    orthonormal, the weight scaled to unit mean square over the half plane. One step of
    size r in every coefficient then moves low frequencies most, as natural images do,
    which is what plain Adam in pixels spends its first thousands of steps on.

    Attributes:
      decay, squares_decay: Adam's b1 and b2.
      epsilon: Adam's; it matters, since gradients are about 1e-6 in grey levels.
    """

    decay: float = 0.9
    squares_decay: float = 0.99
    epsilon: float = 1e-8

    def init(self, z: Image) -> FourierAdamState:
        spectrum = _analyse(z)
        return FourierAdamState(spectrum, self._adam().init(spectrum))

    def variable(
        self, state: FourierAdamState, image_shape: tuple[int, int, int]
    ) -> Image:
        return _synthesise(state.spectrum, image_shape)

    def update(
        self, gradient: Image, state: FourierAdamState, learning_rate: Scalar
    ) -> FourierAdamState:
        transpose = jax.linear_transpose(
            lambda spectrum: _synthesise(spectrum, gradient.shape), state.spectrum
        )
        (spectral_gradient,) = transpose(gradient)
        steps, adam = self._adam().update(spectral_gradient, state.adam)
        return FourierAdamState(state.spectrum - learning_rate * steps, adam)

    def move(self, state: FourierAdamState, z: Image) -> FourierAdamState:
        return state._replace(spectrum=_analyse(z))

    def _adam(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.decay, self.squares_decay, self.epsilon)


def _analyse(z: Image) -> Float[Array, "2 h half_w c"]:
    weight = jnp.asarray(_spectral_weight(*z.shape[:2]), z.dtype)
    scaled = jnp.fft.rfft2(z, axes=(0, 1), norm="ortho") / weight
    return jnp.stack([scaled.real, scaled.imag])


def _synthesise(
    spectrum: Float[Array, "2 h half_w c"], image_shape: tuple[int, ...]
) -> Image:
    weight = jnp.asarray(_spectral_weight(*image_shape[:2]), spectrum.dtype)
    scaled = jax.lax.complex(spectrum[0], spectrum[1]) * weight
    return jnp.fft.irfft2(scaled, s=image_shape[:2], axes=(0, 1), norm="ortho")


def _spectral_weight(height: int, width: int) -> np.ndarray:
    """[h, w // 2 + 1, 1]: amplitudes of natural images, unit mean square."""
    vertical = np.fft.fftfreq(height)[:, None]
    horizontal = np.fft.rfftfreq(width)[None, :]
    lowest = 1 / max(height, width)
    weight = 1 / np.sqrt(vertical**2 + horizontal**2 + lowest**2)
    return (weight / np.sqrt(np.mean(weight**2)))[..., None]
