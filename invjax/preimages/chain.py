"""One chain, a chunk of chains, and the loop over their steps; see `mcmc`.

The image is start + colour(offset). The offset is small, so that float32 holds the
differences on which acceptance depends. As for inversion, the loop runs on the
host with one chain per program on CPU, and is compiled elsewhere; there chains are
spread over devices as lanes are.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation import step_size as adaptation
from jaxtyping import Array, Bool, Float, Int

from invjax.callables import TracedCallable
from invjax.images import spectrum
from invjax.inversion import devices, loop, objective
from invjax.inversion.keeping import Keeper
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
    # One by one, since norms of many rows at once are rounded by the number of threads.
    return jnp.stack([spectrum.natural_direction(key, image_shape) for key in keys])


class Run(NamedTuple):
    """What stays the same over the steps of a chunk of chains.

    Attributes:
      program: the energy and the image's shape.
      kernel: the Metropolis-Hastings kernel.
      scan: whether loops over steps are compiled.
      num_warmup, num_samples, thin: as in `mcmc.sample`.
    """

    program: Program
    kernel: Kernel
    scan: bool
    num_warmup: int
    num_samples: int
    thin: int

    def chunk(
        self,
        target: Density,
        chains: Chain,
        goals: Any,
        *,
        name: str = "",
        keeper: Keeper | None = None,
    ) -> tuple[Any, ...]:
        """Warms a chunk up and draws: the fields of `Samples` except the last.

        Args:
          target: the density, on the devices of the chains.
          chains: [l], the chains at their starts; their memory is taken over.
          goals: [l], the relative errors that temperatures are calibrated to; None
            where the temperatures are given.
          name: what the keeper knows the chunk by.
          keeper: keeps how far the chunk has come; None for nobody.
        """
        mesh = devices.mesh_of(chains)
        directions = devices.replicate(
            projection_directions(self.program.image_shape), mesh
        )
        progress = _Progress(
            chains,
            jnp.zeros_like(chains.rate),
            np.zeros((self._num_calibrating, len(chains.rate)), np.float32),
            self._no_draws(target, directions, chains),
        )
        begun = 0
        if keeper is not None:
            like = jax.eval_shape(lambda: progress)
            found = keeper.restore(name, lambda _: like)
            if found is not None:
                begun, kept = found
                chains, acceptance = devices.split((kept.chains, kept.acceptance), mesh)
                progress = kept._replace(chains=chains, acceptance=acceptance)
        for position in range(begun, self._num_blocks + self.num_samples):
            if position < self._num_blocks:
                progress = self._warmed(position, target, directions, progress, goals)
            else:
                progress = self._drawn(position, target, directions, progress)
            if keeper is not None and keeper.is_due(name):
                keeper.save(name, position + 1, progress)
        chains = progress.chains
        start_energy, temperature = jax.device_get(
            (chains.start_energy, chains.temperature)
        )
        excess = progress.draws.energy.mean(axis=1) - start_energy
        heating = 2 * excess / (math.prod(chains.start.shape[1:]) * temperature)
        return (
            *progress.draws,
            progress.acceptance,
            temperature,
            chains.rate,
            heating,
        )

    @property
    def _num_blocks(self) -> int:
        """Number of blocks of steps of the warm-up."""
        return -(-self.num_warmup // _BLOCK)

    @property
    def _num_calibrating(self) -> int:
        """Number of blocks after which T may be corrected."""
        return int(_CALIBRATING * self._num_blocks)

    def _no_draws(
        self, target: Density, directions: Float[Array, "p h w c"], chains: Chain
    ) -> Draw:
        """Room for all draws, [l, k, ...], in the host's memory."""
        one = _measure.eval_shape(self.program, target, directions, chains)
        return jax.tree.map(
            lambda leaf: np.zeros(
                (len(leaf), self.num_samples, *leaf.shape[1:]), leaf.dtype
            ),
            one,
        )

    def _warmed(
        self,
        position: int,
        target: Density,
        directions: Float[Array, "p h w c"],
        progress: "_Progress",
        goals: Any,
    ) -> "_Progress":
        """One block of the warm-up."""
        chains, logs = progress.chains, progress.logs
        if position == self._num_calibrating:
            if goals is not None:
                mean = np.mean(logs[len(logs) // 2 :], axis=0)
                temperatures = devices.split(np.exp(mean), devices.mesh_of(chains))
                chains = _set_temperature(chains, temperatures)
            chains = _restart_averaging(self.kernel, chains)
        chains, _ = self._advance(target, chains, _BLOCK, True)
        if position < self._num_calibrating and goals is not None:
            terms = _measure(self.program, target, directions, chains).terms
            chains = _calibrate(
                chains, jnp.sqrt(terms.data), goals, jnp.float32(_gain(position))
            )
            logs[position] = np.log(chains.temperature)
        return progress._replace(chains=chains)

    def _drawn(
        self,
        position: int,
        target: Density,
        directions: Float[Array, "p h w c"],
        progress: "_Progress",
    ) -> "_Progress":
        """One draw of every chain."""
        chains, number = progress.chains, position - self._num_blocks
        if number == 0:
            chains = _freeze(self.kernel, chains)
        chains, accepted = self._advance(target, chains, self.thin, False)
        draw = _measure(self.program, target, directions, chains)
        # To the host: the device holds one draw.
        rooms, drawn = jax.tree.leaves(progress.draws), jax.tree.leaves(draw)
        for room, leaf in zip(rooms, drawn, strict=True):
            room[:, number] = leaf
        acceptance = progress.acceptance + accepted / (self.num_samples * self.thin)
        return progress._replace(chains=chains, acceptance=acceptance)

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


class _Progress(NamedTuple):
    """How far a chunk of chains has come.

    Attributes:
      chains: [l], the chains.
      acceptance: [l], sum over the draws so far of the mean probability of acceptance,
        divided by the number of all draws.
      logs: [b, l], log T after every block that corrects it; 0 for those to come.
      draws: [l, k, ...], the draws; 0 for those to come.
    """

    chains: Chain
    acceptance: Float[Array, " l"]
    logs: np.ndarray
    draws: Draw


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

    def lane(target: Density, key: PRNGKey, image: Image, temperature: Scalar) -> Chain:
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

    return _over_chains(lane, target, keys, images, temperatures)


def _over_chains(one: Callable[..., Any], common: Any, *chains: Any) -> Any:
    """`one(common, *chain)` for every chain, on the device that it is on."""
    many = jax.vmap(one, in_axes=(None, *[0] * len(chains)))
    return devices.on_each(many, common, *chains)


def _step_lanes(
    program: Program,
    kernel: Kernel,
    target: Density,
    chains: Chain,
    adapt: Array,
) -> tuple[Chain, Float[Array, " l"]]:
    """One step of the chains of a device, and their probability of acceptance."""
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


# The host's loop, which is on one device, repeats it.
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
    """`_step_lanes` for t steps in one program, and the sums of the probabilities."""

    def steps(common: Any, chains: Chain) -> Any:
        target, adapt = common
        chains, acceptance = jax.lax.scan(
            lambda chains, adapt: _step_lanes(program, kernel, target, chains, adapt),
            chains,
            adapt,
        )
        return chains, jnp.sum(acceptance, axis=0)

    return devices.on_each(steps, (target, adapt), chains)


@functools.partial(jax.jit, static_argnames="program")
def _measure(
    program: Program,
    target: Density,
    directions: Float[Array, "p h w c"],
    chains: Chain,
) -> Draw:
    def lane(common: Any, chain: Chain) -> Draw:
        target, directions = common
        z = chain.start + spectrum.colour(chain.kernel.position)
        energy, terms = program.energy_at(z, *target)
        image = objective.to_image(z, target.shared.centre)
        return Draw(
            image=image,
            energy=energy,
            terms=terms,
            projections=jnp.tensordot(directions, image, axes=3),
        )

    return _over_chains(lane, (target, directions), chains)


@jax.jit
def _set_temperature(chains: Chain, temperatures: Float[Array, " l"]) -> Chain:
    def lane(_: None, chain: Chain, temperature: Scalar) -> Chain:
        ratio = chain.temperature / temperature
        state = chain.kernel._replace(
            logdensity=chain.kernel.logdensity * ratio,
            logdensity_grad=chain.kernel.logdensity_grad * ratio,
        )
        return chain._replace(kernel=state, temperature=temperature)

    return _over_chains(lane, None, chains, temperatures)


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

    def lane(_: None, chain: Chain) -> Chain:
        return chain._replace(averaging=_averaging(kernel, chain.rate))

    return _over_chains(lane, None, chains)


@functools.partial(jax.jit, static_argnames="kernel")
def _freeze(kernel: Kernel, chains: Chain) -> Chain:
    _, _, final = adaptation.dual_averaging_adaptation(kernel.target_acceptance)

    def lane(_: None, chain: Chain) -> Chain:
        return chain._replace(rate=final(chain.averaging))

    return _over_chains(lane, None, chains)
