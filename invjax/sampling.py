"""Samples of the images that have a code, from p(x | phi0) ~ exp(-E(x) / T).

E is the energy of inversion (`objective`), so an inversion is the mode and the
temperature says how far from it images are taken as having the code. Chains start at
inversions and move by a Metropolis-Hastings kernel of BlackJAX, in coordinates in which
natural images are white (`spectrum.colour`): the image is start + colour(offset), the
offset being small, so that float32 holds the differences the acceptance depends on.

The warm-up adapts step size and, if asked for, temperature; both are then frozen, and
from there on the chain is a proper one: its law is that of p, whatever the warm-up did.
A chain is a function of its own key, start and the settings. On CPU it has the same
bits alone and in any batch; elsewhere `Execution.width` is part of its identity.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from blackjax import diagnostics as statistics
from blackjax.adaptation import step_size as adaptation
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from invjax import engine, inversion, objective, spectrum
from invjax.engine import Execution
from invjax.kernels import Kernel, Mala
from invjax.representations.tracing import Argument
from invjax.types import Image, PRNGKey, PRNGKeys, Representation, Scalar

NUM_PROJECTIONS = 8
"""Fixed directions whose coordinates are followed."""

_FIRST_NOISE = 0.01
"""Grey levels of noise per coordinate that the search for a step size starts from."""

_BLOCK = 5
_CALIBRATING = 0.75
"""Steps of the warm-up between corrections of T, and the share of it that has them."""


class Diagnostics(NamedTuple):
    """How well the draws are mixed, over all chains; NaN where they are too few.

    Attributes:
      energy_ess, projection_ess: effective number of the draws kept, by the energy and
        by each fixed projection [p].
      energy_rhat, projection_rhat: rank-normalised split R-hat (Vehtari et al. 2021);
        about 1 where chains agree. Needs two chains and four draws.
    """

    energy_ess: Float[np.ndarray, ""]
    energy_rhat: Float[np.ndarray, ""]
    projection_ess: Float[np.ndarray, " p"]
    projection_rhat: Float[np.ndarray, " p"]


class Samples(NamedTuple):
    """Draws of every chain, in the host's memory.

    Attributes:
      images: [l, k, h, w, c] in phi's range, not clipped.
      energies: of the images.
      relative_errors: |M (phi(x) - phi0)| / |M phi0|.
      projections: of the images on `projection_directions`.
      acceptance: mean probability of acceptance after the warm-up.
      temperatures: T of each chain: as given, or as calibrated by it alone.
      rates: frozen step size: squared grey levels per unit of energy; see `kernels`.
      heating: 2 mean(E - E(start)) / (n T), n the numbers of an image: about 1 for a
        chain that started at a mode and has reached its temperature in every direction,
        less while slow directions are still cold, which R-hat cannot see.
      diagnostics: of all chains together. With a `target_error` each has its own
        temperature, and R-hat includes their differences.
    """

    images: Float[np.ndarray, "l k h w c"]
    energies: Float[np.ndarray, "l k"]
    relative_errors: Float[np.ndarray, "l k"]
    projections: Float[np.ndarray, "l k p"]
    acceptance: Float[np.ndarray, " l"]
    temperatures: Float[np.ndarray, " l"]
    rates: Float[np.ndarray, " l"]
    heating: Float[np.ndarray, " l"]
    diagnostics: Diagnostics


class _Draw(NamedTuple):
    """What is kept of a state."""

    image: Image
    energy: Scalar
    relative_error: Scalar
    projections: Float[Array, " p"]


class _Chain(NamedTuple):
    """Carry of a chain. `kernel` holds offset, log density and its gradient at T."""

    key: PRNGKey
    num_steps: Int[Array, ""]
    kernel: Any
    start: Image
    start_energy: Scalar
    temperature: Scalar
    rate: Scalar
    averaging: adaptation.DualAveragingAdaptationState


class _Target(NamedTuple):
    """The density up to its temperature; shared by the chains."""

    phi: Argument
    problem: objective.Problem


def sample(
    keys: PRNGKeys | Sequence[PRNGKey],
    code: Any,
    phi: Representation,
    images: ArrayLike,
    *,
    kernel: Kernel = Mala(),  # noqa: B008 (frozen)
    temperature: ArrayLike | None = None,
    target_error: ArrayLike | None = None,
    num_samples: int = 100,
    num_warmup: int = 1000,
    thin: int = 10,
    tv_weight: ArrayLike | None = None,
    alpha_weight: ArrayLike | None = None,
    mask: Any = None,
    centre: Any = None,
    execution: Execution | None = None,
) -> Samples:
    """Draws images that have `code`, by chains that start from images near it.

    With a `target_error` e each chain looks for the temperature at which the mean of
    its relative errors is e: every few steps of the first three quarters of the
    warm-up log T moves by a falling share of 2 log(e / error), and the mean of log T
    over their second half is kept. The error at the mode, which the regularisers cause,
    is a floor that no temperature gets under, and a chain that mixes slowly is still on
    its way; `Samples.relative_errors` says what was reached. For draws of one density
    calibrate first and then pass the mean of `temperatures` as `temperature`.

    The regularisers are tempered with the rest. Where phi ignores a direction they
    alone keep the density proper: with no weight on them the chain drifts.

    Args:
      keys: [l], of the chains, as `lane_key` makes them.
      code: phi0, one for all chains.
      phi: the representation.
      images: [l, h, w, c], the starts: inversions of `code`.
      kernel: which Metropolis-Hastings kernel.
      temperature: T, in units of the energy: a number, or one per chain [l].
      target_error: e, instead of a temperature: a number, or one per chain [l].
      num_samples: draws kept of each chain, all of them held at once.
      num_warmup: steps of the kernel before the first draw, in blocks of five.
      thin: steps of the kernel per draw kept.
      tv_weight, alpha_weight, mask, centre: the energy's, as in `invert`.
      execution: how to run chains: lanes of the engine.

    Raises:
      ValueError: a setting, the code or the starts do not fit, or not exactly one of
        temperature and target error is given.

    Returns:
      The draws and what is known about them.
    """
    keys = jnp.stack(keys) if isinstance(keys, Sequence) else keys
    starts = jnp.asarray(images, jnp.float32)
    _check(len(keys), starts.shape, num_samples, num_warmup, thin)
    plan = inversion.prepare(
        jnp.asarray(code)[None],
        phi,
        1,
        image_shape=starts.shape[1:],
        tv_weight=tv_weight,
        alpha_weight=alpha_weight,
        mask=mask,
        centre=centre,
    )
    problem = objective.Problem(
        *(
            leaf if axis is None else leaf[0]
            for leaf, axis in zip(plan.problems, engine.LANE_AXES, strict=True)
        )
    )
    target = _Target(plan.phi, problem)
    goals = None
    if (temperature is None) == (target_error is None):
        raise ValueError("give either temperature or target_error, and not both")
    if target_error is not None:
        goals = _per_chain("target_error", target_error, len(keys))
        # Were every feature a free Gaussian, the data term would be that many T / 2.
        num_terms = min(starts[0].size, problem.target.size)
        temperatures = 2 * goals**2 / num_terms
    else:
        temperatures = _per_chain("temperature", cast(Any, temperature), len(keys))
    execution = execution or engine.default_execution()
    if execution.width < 1:
        raise ValueError(f"execution.width is {execution.width}; it must be positive")
    run = _Run(plan.program, kernel, execution.scan, num_warmup, num_samples, thin)
    parts = []
    for first in range(0, len(keys), execution.width):
        # The last chunk is filled up with copies of its first chain.
        numbers = np.arange(first, first + execution.width)
        lanes = np.where(numbers < len(keys), numbers, first)
        chains = _start(
            run.program, kernel, target, keys[lanes], starts[lanes], temperatures[lanes]
        )
        if not np.all(np.isfinite(chains.start_energy)):
            raise ValueError("the energy of a start is not finite")
        part = run.chunk(target, chains, None if goals is None else goals[lanes])
        kept = min(execution.width, len(keys) - first)
        parts.append(jax.tree.map(lambda leaf, n=kept: np.asarray(leaf)[:n], part))
    fields = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return Samples._make((*fields, diagnose(fields[1], fields[3])))


def projection_directions(
    image_shape: tuple[int, int, int],
) -> Float[Array, "p h w c"]:
    """Directions of unit norm and natural spectrum, the same in every run."""
    keys = jax.random.split(jax.random.key(0), NUM_PROJECTIONS)
    return jax.vmap(lambda key: spectrum.natural_direction(key, image_shape))(keys)


def diagnose(
    energies: Float[np.ndarray, "l k"], projections: Float[np.ndarray, "l k p"]
) -> Diagnostics:
    """Effective sample sizes and R-hat of chains, by BlackJAX's estimators.

    Args:
      energies: of the draws.
      projections: of the draws, any functions of them.
    """
    num_chains, num_draws = energies.shape
    traces = np.concatenate([energies[..., None], projections], axis=2)
    sizes = np.full(traces.shape[2], np.nan)
    ratios = np.full(traces.shape[2], np.nan)
    if num_draws >= 4:
        # Relative to their own spread: the energy's is far below its value.
        centred = traces - traces.mean((0, 1))
        scaled = jnp.asarray(centred / np.maximum(centred.std((0, 1)), 1e-30))
        with jax.numpy_rank_promotion("allow"):
            sizes = np.asarray(_effective_sample_size(scaled))
            if num_chains >= 2:
                ratios = np.asarray(_rhat(scaled))
    return Diagnostics(
        energy_ess=np.asarray(sizes[0]),
        energy_rhat=np.asarray(ratios[0]),
        projection_ess=sizes[1:],
        projection_rhat=ratios[1:],
    )


_effective_sample_size = jax.jit(statistics.effective_sample_size)
_rhat = jax.jit(statistics.rhat)


class _Run(NamedTuple):
    """What stays the same over a chunk's steps."""

    program: engine.Program
    kernel: Kernel
    scan: bool
    num_warmup: int
    num_samples: int
    thin: int

    def chunk(self, target: _Target, chains: _Chain, goals: Any) -> tuple[Any, ...]:
        """Warm-up and draws of a chunk: the fields of `Samples` but the last."""
        directions = projection_directions(self.program.image_shape)
        num_blocks = -(-self.num_warmup // _BLOCK)
        num_calibrating = int(_CALIBRATING * num_blocks)
        logs = []
        for number in range(num_calibrating):
            chains, _ = self._advance(target, chains, _BLOCK, True)
            if goals is None:
                continue
            errors = _measure(self.program, target, directions, chains).relative_error
            chains = _calibrate(chains, errors, goals, jnp.float32(_gain(number)))
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
        self, target: _Target, chains: _Chain, num_steps: int, adapt: bool
    ) -> tuple[_Chain, Float[Array, " l"]]:
        """Steps of every chain, and the sum of their acceptance probabilities."""
        arguments = (self.program, self.kernel, target)
        flag = jnp.asarray(adapt)
        if self.scan:
            return _scan(*arguments, chains, flag, num_steps)
        total = jnp.zeros_like(chains.rate)
        for _ in range(num_steps):
            chains, accepted = _step(*arguments, chains, flag)
            total += accepted
        return chains, total


def _gain(number: int) -> float:
    """Share of the correction of log T: falls, but its sum does not converge."""
    return 0.5 / (1 + number / 10) ** 0.75


def _log_density(
    program: engine.Program, target: _Target, chain: _Chain, offset: Image
) -> Scalar:
    """(E(start) - E(x)) / T; the constant keeps float32's digits for differences."""
    z = chain.start + spectrum.colour(offset)
    energy, _ = program.energy(z, *target)
    return (chain.start_energy - energy) / chain.temperature


@functools.partial(jax.jit, static_argnames=("program", "kernel"))
def _start(
    program: engine.Program,
    kernel: Kernel,
    target: _Target,
    keys: PRNGKeys,
    images: Float[Array, "l h w c"],
    temperatures: Float[Array, " l"],
) -> _Chain:
    """Chains at their starts, with a step size that is neither useless nor refused."""

    def lane(key: PRNGKey, image: Image, temperature: Scalar) -> _Chain:
        z = objective.to_variable(image, target.problem.centre)
        energy, _ = program.energy(z, *target)
        search_key, key = jax.random.split(key)
        rate = jnp.float32(_FIRST_NOISE**2 / 2) / temperature
        chain = _Chain(
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

        rate = adaptation.find_reasonable_step_size(
            search_key, at_rate, state, rate, kernel.target_acceptance
        )
        return chain._replace(
            kernel=state, rate=rate, averaging=_averaging(kernel, rate)
        )

    return jax.vmap(lane)(keys, images, temperatures)


def _step_lanes(
    program: engine.Program,
    kernel: Kernel,
    target: _Target,
    chains: _Chain,
    adapt: Array,
) -> tuple[_Chain, Float[Array, " l"]]:
    """One step of every chain, and its probability of acceptance."""
    _, update, _ = adaptation.dual_averaging_adaptation(kernel.target_acceptance)

    def lane(chain: _Chain) -> tuple[_Chain, Scalar]:
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
    jax.jit,
    static_argnames=("program", "kernel", "num_steps"),
    donate_argnames="chains",
)
def _scan(
    program: engine.Program,
    kernel: Kernel,
    target: _Target,
    chains: _Chain,
    adapt: Array,
    num_steps: int,
) -> tuple[_Chain, Float[Array, " l"]]:
    chains, acceptance = jax.lax.scan(
        lambda chains, _: _step_lanes(program, kernel, target, chains, adapt),
        chains,
        length=num_steps,
    )
    return chains, jnp.sum(acceptance, axis=0)


@functools.partial(jax.jit, static_argnames="program")
def _measure(
    program: engine.Program,
    target: _Target,
    directions: Float[Array, "p h w c"],
    chains: _Chain,
) -> _Draw:
    def lane(chain: _Chain) -> _Draw:
        z = chain.start + spectrum.colour(chain.kernel.position)
        energy, terms = program.energy(z, *target)
        image = objective.to_image(z, target.problem.centre)
        return _Draw(
            image=image,
            energy=energy,
            relative_error=jnp.sqrt(terms.data),
            projections=jnp.tensordot(directions, image, axes=3),
        )

    return jax.vmap(lane)(chains)


@jax.jit
def _set_temperature(chains: _Chain, temperatures: Float[Array, " l"]) -> _Chain:
    def lane(chain: _Chain, temperature: Scalar) -> _Chain:
        ratio = chain.temperature / temperature
        state = chain.kernel._replace(
            logdensity=chain.kernel.logdensity * ratio,
            logdensity_grad=chain.kernel.logdensity_grad * ratio,
        )
        return chain._replace(kernel=state, temperature=temperature)

    return jax.vmap(lane)(chains, temperatures)


@jax.jit
def _calibrate(
    chains: _Chain,
    errors: Float[Array, " l"],
    goals: Float[Array, " l"],
    gain: Scalar,
) -> _Chain:
    # Errors grow with the root of T.
    corrections = jnp.clip(2 * jnp.log(goals / errors), -1, 1)
    return _set_temperature(chains, chains.temperature * jnp.exp(gain * corrections))


def _averaging(kernel: Kernel, rate: Scalar) -> adaptation.DualAveragingAdaptationState:
    """A new dual averaging of log rate (Hoffman and Gelman 2014)."""
    begin, _, _ = adaptation.dual_averaging_adaptation(kernel.target_acceptance)
    state = begin(rate)
    # Types as after an update, or the second step would be compiled anew.
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            leaf, jnp.int32 if isinstance(leaf, int) else jnp.float32
        ),
        state,
    )


@functools.partial(jax.jit, static_argnames="kernel")
def _restart_averaging(kernel: Kernel, chains: _Chain) -> _Chain:
    """Forgets the way to the typical set, where smaller steps were needed."""

    def lane(chain: _Chain) -> _Chain:
        return chain._replace(averaging=_averaging(kernel, chain.rate))

    return jax.vmap(lane)(chains)


@functools.partial(jax.jit, static_argnames="kernel")
def _freeze(kernel: Kernel, chains: _Chain) -> _Chain:
    _, _, final = adaptation.dual_averaging_adaptation(kernel.target_acceptance)
    return chains._replace(rate=jax.vmap(final)(chains.averaging))


def _per_chain(name: str, value: Any, num_chains: int) -> Float[Array, " l"]:
    array = np.asarray(value, np.float32)
    if array.shape not in ((), (num_chains,)):
        raise ValueError(
            f"{name} has shape {array.shape}; a number or one per chain, "
            f"({num_chains},), is accepted"
        )
    if not np.all(np.isfinite(array)) or np.any(array <= 0):
        raise ValueError(f"{name} is {value}; finite numbers above 0 are accepted")
    return jnp.broadcast_to(array, (num_chains,))


def _check(
    num_chains: int,
    shape: tuple[int, ...],
    num_samples: int,
    num_warmup: int,
    thin: int,
) -> None:
    if len(shape) != 4 or num_chains < 1 or shape[0] != num_chains:
        raise ValueError(
            f"{num_chains} keys and images of shape {shape}; a start [h, w, c] for "
            "each key, and at least one, is accepted"
        )
    for name, number, least in (
        ("num_samples", num_samples, 1),
        ("num_warmup", num_warmup, 40),
        ("thin", thin, 1),
    ):
        if number < least:
            raise ValueError(f"{name} is {number}; from {least} up is accepted")
