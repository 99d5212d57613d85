"""One chain, a chunk of chains, and the loop over their steps; see `mcmc`.

The image is start + colour(offset). The offset is small, so that float32 holds the
differences on which acceptance depends. As for inversion, the loop runs on the
host with one chain per program on CPU, and is compiled elsewhere.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation import step_size as adaptation
from jaxtyping import Array, Bool, Float, Int

from invjax.callables import TracedCallable
from invjax.images import spectrum
from invjax.inversion import loop, objective
from invjax.inversion.lane import Program
from invjax.inversion.objective import PerLane, Shared
from invjax.preimages.kernels import Kernel
from invjax.types import Image, PRNGKey, PRNGKeys, Scalar, ordinary_types

NUM_PROJECTIONS = 8
"""Fixed directions whose coordinates are followed."""

_FIRST_NOISE = 0.01
"""Grey levels of noise per coordinate that the search for a step size starts from."""

_BLOCK = 5
_CALIBRATING = 0.75
"""Steps between corrections of T, and the fraction of the warm-up that has them."""


class Draw(NamedTuple):
    """What is kept of a state of a chain.

    Attributes:
      image: [h, w, c] in phi's range.
      energy: energy of the image.
      terms: summands of the energy.
      projections: [p], coordinates of the image along `projection_directions`.
    """

    image: Image
    energy: Scalar
    terms: objective.Terms
    projections: Float[Array, " p"]


class Chain(NamedTuple):
    """What a chain carries from step to step.

    Attributes:
      key: the chain's key.
      num_steps: number of steps taken.
      kernel: state of the kernel: offset, log density and its gradient at T.
      start: z [h, w, c] that the offset is added to.
      start_energy: energy at the start.
      temperature: T.
      rate: step size; see `kernels`.
      averaging: state of the adaptation of the step size.
    """

    key: PRNGKey
    num_steps: Int[Array, ""]
    kernel: Any
    start: Image
    start_energy: Scalar
    temperature: Scalar
    rate: Scalar
    averaging: adaptation.DualAveragingAdaptationState


class Density(NamedTuple):
    """The density up to its temperature, the same for all chains."""

    phi: TracedCallable
    shared: Shared
    problem: PerLane


def projection_directions(
    image_shape: tuple[int, int, int],
) -> Float[Array, "p h w c"]:
    """Directions of unit norm and natural spectrum, the same in every run."""
    keys = jax.random.split(jax.random.key(0), NUM_PROJECTIONS)
    return jax.vmap(lambda key: spectrum.natural_direction(key, image_shape))(keys)


class Run(NamedTuple):
    """What stays the same over the steps of a chunk of chains.

    Attributes:
      program: the energy and the image's shape.
      kernel: the Metropolis-Hastings kernel.
      scan: whether loops over steps are compiled.
      num_warmup, num_samples, thin: as in `sampling.sample`.
    """

    program: Program
    kernel: Kernel
    scan: bool
    num_warmup: int
    num_samples: int
    thin: int

    def chunk(self, target: Density, chains: Chain, goals: Any) -> tuple[Any, ...]:
        """Warms a chunk up and draws: the fields of `Samples` except the last."""
        directions = projection_directions(self.program.image_shape)
        num_blocks = -(-self.num_warmup // _BLOCK)
        num_calibrating = int(_CALIBRATING * num_blocks)
        logs = []
        for number in range(num_calibrating):
            chains, _ = self._advance(target, chains, _BLOCK, True)
            if goals is None:
                continue
            terms = _measure(self.program, target, directions, chains).terms
            chains = _calibrate(
                chains, jnp.sqrt(terms.data), goals, jnp.float32(_gain(number))
            )
            logs.append(np.log(chains.temperature))
        if logs:
            mean = np.mean(logs[len(logs) // 2 :], axis=0)
            chains = _set_temperature(chains, jnp.exp(jnp.asarray(mean)))
        chains = _restart_averaging(self.kernel, chains)
        for _ in range(num_blocks - num_calibrating):
            chains, _ = self._advance(target, chains, _BLOCK, True)
        chains = _freeze(self.kernel, chains)
        draws, acceptance = [], jnp.zeros_like(chains.rate)
        for _ in range(self.num_samples):
            chains, accepted = self._advance(target, chains, self.thin, False)
            acceptance += accepted / (self.num_samples * self.thin)
            draw = _measure(self.program, target, directions, chains)
            # To the host: the device holds one draw.
            draws.append(jax.tree.map(np.asarray, draw))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *draws)
        excess = stacked.energy.mean(axis=1) - chains.start_energy
        heating = 2 * excess / (chains.start[0].size * chains.temperature)
        return (*stacked, acceptance, chains.temperature, chains.rate, heating)

    def _advance(
        self, target: Density, chains: Chain, num_steps: int, adapt: bool
    ) -> tuple[Chain, Float[Array, " l"]]:
        """Steps of every chain, and the sum of their acceptance probabilities."""
        step = _scan if self.scan else _step
        call = functools.partial(step, self.program, self.kernel, target)
        total = jnp.zeros_like(chains.rate)
        flags = np.full(num_steps, adapt)
        for _, moved, accepted in loop.advance(call, chains, flags, scan=self.scan):
            chains = moved
            total += accepted
        return chains, total


def _gain(number: int) -> float:
    """Factor of the correction of log T: it falls, but its sum does not converge."""
    return 0.5 / (1 + number / 10) ** 0.75


def _log_density(
    program: Program, target: Density, chain: Chain, offset: Image
) -> Scalar:
    """(E(start) - E(x)) / T; the constant keeps float32's digits for differences."""
    z = chain.start + spectrum.colour(offset)
    energy, _ = program.energy_at(z, *target)
    return (chain.start_energy - energy) / chain.temperature


@functools.partial(jax.jit, static_argnames=("program", "kernel"))
def start(
    keys: PRNGKeys,
    program: Program,
    kernel: Kernel,
    target: Density,
    images: Float[Array, "l h w c"],
    temperatures: Float[Array, " l"],
) -> Chain:
    """Chains at their starts, with a step size that is accepted about as wanted.

    Args:
      keys: [l], a key per chain.
      program: the energy.
      kernel: the Metropolis-Hastings kernel.
      target: the density.
      images: [l, h, w, c], the starts, in phi's range.
      temperatures: [l], T of each chain.
    """

    def lane(key: PRNGKey, image: Image, temperature: Scalar) -> Chain:
        z = objective.to_variable(image, target.shared.centre)
        energy, _ = program.energy_at(z, *target)
        search_key, key = jax.random.split(key)
        rate = jnp.float32(_FIRST_NOISE**2 / 2) / temperature
        chain = Chain(
            key=key,
            num_steps=jnp.asarray(0, jnp.int32),
            kernel=None,
            start=z,
            start_energy=energy,
            temperature=temperature,
            rate=rate,
            averaging=_averaging(kernel, rate),
        )
        density = functools.partial(_log_density, program, target, chain)
        state = kernel.init(jnp.zeros_like(z), density)

        def at_rate(rate: Scalar) -> Any:
            return lambda key, state: kernel.step(
                key, state, density, temperature, rate
            )

        with ordinary_types():
            rate = adaptation.find_reasonable_step_size(
                search_key, at_rate, state, rate, kernel.target_acceptance
            )
        return chain._replace(
            kernel=state, rate=rate, averaging=_averaging(kernel, rate)
        )

    return jax.vmap(lane)(keys, images, temperatures)


def _step_lanes(
    program: Program,
    kernel: Kernel,
    target: Density,
    chains: Chain,
    adapt: Array,
) -> tuple[Chain, Float[Array, " l"]]:
    """One step of every chain, and its probability of acceptance."""
    _, update, _ = adaptation.dual_averaging_adaptation(kernel.target_acceptance)

    def lane(chain: Chain) -> tuple[Chain, Scalar]:
        density = functools.partial(_log_density, program, target, chain)
        state, info = kernel.step(
            jax.random.fold_in(chain.key, chain.num_steps),
            chain.kernel,
            density,
            chain.temperature,
            chain.rate,
        )
        # A proposal of no finite energy is refused, with probability one.
        acceptance = jnp.nan_to_num(info.acceptance_rate)
        with ordinary_types():
            averaging = update(chain.averaging, acceptance)
        rate = jnp.where(adapt, jnp.exp(averaging.log_step_size), chain.rate)
        moved = chain._replace(
            num_steps=chain.num_steps + 1, kernel=state, rate=rate, averaging=averaging
        )
        return moved, acceptance

    return jax.vmap(lane)(chains)


_step = functools.partial(
    jax.jit, static_argnames=("program", "kernel"), donate_argnames="chains"
)(_step_lanes)


@functools.partial(
    jax.jit, static_argnames=("program", "kernel"), donate_argnames="chains"
)
def _scan(
    program: Program,
    kernel: Kernel,
    target: Density,
    chains: Chain,
    adapt: Bool[Array, " t"],
) -> tuple[Chain, Float[Array, " l"]]:
    chains, acceptance = jax.lax.scan(
        lambda chains, adapt: _step_lanes(program, kernel, target, chains, adapt),
        chains,
        adapt,
    )
    return chains, jnp.sum(acceptance, axis=0)


@functools.partial(jax.jit, static_argnames="program")
def _measure(
    program: Program,
    target: Density,
    directions: Float[Array, "p h w c"],
    chains: Chain,
) -> Draw:
    def lane(chain: Chain) -> Draw:
        z = chain.start + spectrum.colour(chain.kernel.position)
        energy, terms = program.energy_at(z, *target)
        image = objective.to_image(z, target.shared.centre)
        return Draw(
            image=image,
            energy=energy,
            terms=terms,
            projections=jnp.tensordot(directions, image, axes=3),
        )

    return jax.vmap(lane)(chains)


@jax.jit
def _set_temperature(chains: Chain, temperatures: Float[Array, " l"]) -> Chain:
    def lane(chain: Chain, temperature: Scalar) -> Chain:
        ratio = chain.temperature / temperature
        state = chain.kernel._replace(
            logdensity=chain.kernel.logdensity * ratio,
            logdensity_grad=chain.kernel.logdensity_grad * ratio,
        )
        return chain._replace(kernel=state, temperature=temperature)

    return jax.vmap(lane)(chains, temperatures)


@jax.jit
def _calibrate(
    chains: Chain,
    errors: Float[Array, " l"],
    goals: Float[Array, " l"],
    gain: Scalar,
) -> Chain:
    # Errors grow with the root of T.
    corrections = jnp.clip(2 * jnp.log(goals / errors), -1, 1)
    return _set_temperature(chains, chains.temperature * jnp.exp(gain * corrections))


def _averaging(kernel: Kernel, rate: Scalar) -> adaptation.DualAveragingAdaptationState:
    """A new dual averaging of log rate (Hoffman and Gelman 2014)."""
    begin, _, _ = adaptation.dual_averaging_adaptation(kernel.target_acceptance)
    with ordinary_types():
        state = begin(rate)
    # Types as after an update, or the second step would be compiled anew.
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            leaf, jnp.int32 if isinstance(leaf, int) else jnp.float32
        ),
        state,
    )


@functools.partial(jax.jit, static_argnames="kernel")
def _restart_averaging(kernel: Kernel, chains: Chain) -> Chain:
    """Forgets the way to the typical set, where smaller steps were needed."""

    def lane(chain: Chain) -> Chain:
        return chain._replace(averaging=_averaging(kernel, chain.rate))

    return jax.vmap(lane)(chains)


@functools.partial(jax.jit, static_argnames="kernel")
def _freeze(kernel: Kernel, chains: Chain) -> Chain:
    _, _, final = adaptation.dual_averaging_adaptation(kernel.target_acceptance)
    return chains._replace(rate=jax.vmap(final)(chains.averaging))
