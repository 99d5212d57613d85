"""Metropolis-Hastings kernels of one chain, by BlackJAX.

All take the same two numbers: the temperature T and a step size r, called rate. A step
is a gradient step of size r on the energy E, plus the noise that belongs to it at T. So
the rate does not depend on the temperature: it is bounded by E's curvature.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from blackjax.mcmc import hmc, mala

from invjax.types import Image, PRNGKey, Scalar, ordinary_types


@runtime_checkable
class Kernel(Protocol):
    """The methods that every kernel has. Kernels are hashable and methods are pure."""

    @property
    def target_acceptance(self) -> float:
        """Probability of acceptance that the step size is adapted to."""

    def init(self, position: Image, log_density: Callable[[Image], Scalar]) -> Any:
        """A state with fields position, logdensity and logdensity_grad."""

    def step(
        self,
        key: PRNGKey,
        state: Any,
        log_density: Callable[[Image], Scalar],
        temperature: Scalar,
        rate: Scalar,
    ) -> tuple[Any, Any]:
        """The next state, and an info with a field acceptance_rate."""


@dataclasses.dataclass(frozen=True)
class Mala:
    """Metropolis-adjusted Langevin: x <- x - r grad E + sqrt(2 r T) noise.

    One gradient per step. The target is optimal in many dimensions (Roberts and
    Rosenthal 1998).
    """

    target_acceptance: float = 0.574

    def init(
        self, position: Image, log_density: Callable[[Image], Scalar]
    ) -> mala.MALAState:
        return mala.init(position, log_density)

    def step(
        self,
        key: PRNGKey,
        state: mala.MALAState,
        log_density: Callable[[Image], Scalar],
        temperature: Scalar,
        rate: Scalar,
    ) -> tuple[mala.MALAState, mala.MALAInfo]:
        with ordinary_types():
            return mala.build_kernel()(key, state, log_density, rate * temperature)


@dataclasses.dataclass(frozen=True)
class Hmc:
    """Hamiltonian Monte Carlo with `num_leaps` leapfrog steps.

    A leap is sqrt(2 r T) long, so that one of them is a step of `Mala`; its length is
    drawn from 0.8 to 1.2 of that anew for each trajectory, since a fixed one can fall
    in step with a period of the target (Neal 2011). Noise is refreshed every
    `num_leaps` gradients, which carries a chain further than as many steps of `Mala`:
    after 1,600 gradients of warm-up at AlexNet's relu1 (224 px, T = 1e-7) `heating`
    (see `mcmc.Samples`) is 0.19 with `Mala`, 0.41 with 8 leaps, 0.57 with 32.
    The leaps are a compiled loop, which runs convolutions slowly on CPU. The target
    is optimal in many dimensions (Beskos et al. 2013).
    """

    num_leaps: int = 8
    target_acceptance: float = 0.651

    def init(
        self, position: Image, log_density: Callable[[Image], Scalar]
    ) -> hmc.HMCState:
        return hmc.init(position, log_density)

    def step(
        self,
        key: PRNGKey,
        state: hmc.HMCState,
        log_density: Callable[[Image], Scalar],
        temperature: Scalar,
        rate: Scalar,
    ) -> tuple[hmc.HMCState, hmc.HMCInfo]:
        length_key, key = jax.random.split(key)
        factor = jax.random.uniform(length_key, (), rate.dtype, 0.8, 1.2)
        leap = factor * jnp.sqrt(2 * rate * temperature)
        inverse_mass = jnp.ones(state.position.size, state.position.dtype)
        with ordinary_types():
            return hmc.build_kernel()(
                key, state, log_density, leap, inverse_mass, self.num_leaps
            )
