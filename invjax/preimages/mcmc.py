"""Samples of the images that have a code, from p(x | phi0) ~ exp(-E(x) / T).

E is the energy of inversion (`objective`), so an inversion is the mode, and the
temperature says how far from it an image may be and still count as having the code.
Chains start at inversions and move by a Metropolis-Hastings kernel of BlackJAX, in
coordinates in which natural images are white (`spectrum.colour`).

The warm-up adapts the step size and, if asked for, the temperature; both are then
frozen, and from there on p is the stationary distribution of the chain, whatever the
warm-up did. A chain is a function of its own key, its start and the settings. On CPU it
has the same bits alone and in any batch; elsewhere `Execution.width` is part of its
identity.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from blackjax import diagnostics as statistics
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from invjax import identity
from invjax.images import pixels
from invjax.inversion import devices, keeping, loop, memory, request
from invjax.inversion.execution import Execution, default_execution
from invjax.inversion.keeping import Keeper
from invjax.inversion.memory import OnNarrower
from invjax.inversion.objective import Terms
from invjax.preimages import chain
from invjax.preimages.chain import Density, Run
from invjax.preimages.kernels import Kernel, Mala
from invjax.types import (
    KeysLike,
    RepresentationLike,
    ordinary_types,
)


class Diagnostics(NamedTuple):
    """How well the draws are mixed, over all chains; NaN where they are too few.

    Attributes:
      energy_ess, projection_ess: effective sample size of the draws, by the energy and
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
      energies: energies of the images.
      terms: summands of the energies, each [l, k].
      projections: coordinates of the images along `chain.projection_directions`.
      acceptance: mean probability of acceptance after the warm-up.
      temperatures: T of each chain: as given, or as calibrated by that chain alone.
      rates: frozen step sizes in squared grey levels per unit of energy; see `kernels`.
      heating: 2 mean(E - E(start)) / (n T), n the numbers of an image: about 1 for a
        chain that started at a mode and has reached its temperature in every direction,
        less while slow directions are still cold, which R-hat cannot see.
      diagnostics: diagnostics of all chains together. With a `target_error` each chain
        has its own temperature, and R-hat includes their differences.
    """

    images: Float[np.ndarray, "l k h w c"]
    energies: Float[np.ndarray, "l k"]
    terms: Terms
    projections: Float[np.ndarray, "l k p"]
    acceptance: Float[np.ndarray, " l"]
    temperatures: Float[np.ndarray, " l"]
    rates: Float[np.ndarray, " l"]
    heating: Float[np.ndarray, " l"]
    diagnostics: Diagnostics

    @property
    def relative_errors(self) -> Float[np.ndarray, "l k"]:
        """|M (phi(x) - phi0)| / |M phi0|."""
        return np.sqrt(self.terms.data)


def sample(
    keys: KeysLike,
    code: Any,
    phi: RepresentationLike,
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
    code_weights: Any = None,
    centre: Any = None,
    execution: Execution | None = None,
    on_narrower: OnNarrower | None = None,
    keeper: Keeper | None = None,
) -> Samples:
    """Draws images that have `code`, by chains that start from images near it.

    With a `target_error` e each chain is calibrated to the temperature at which the
    mean of its relative errors is e: every few steps of the first three quarters of the
    warm-up, log T moves by a decreasing fraction of 2 log(e / error), and the mean of
    log T over their second half is kept. The error at the mode, which the regularisers
    cause, is a lower bound at any temperature, and a chain that mixes slowly may still
    be moving; `Samples.relative_errors` has the errors of the draws. For draws of one
    density calibrate first and then pass the mean of `temperatures` as `temperature`.

    The regularisers are tempered with the data term. In directions that phi ignores
    they alone keep the density proper: without weight on them the chain drifts.

    Args:
      keys: [l], a key per chain, as `lane_key` makes them.
      code: phi0, one for all chains.
      phi: the representation, or its name.
      images: [l, h, w, c], the starts: inversions of `code`.
      kernel: the Metropolis-Hastings kernel.
      temperature: T, in units of the energy: a number, or one per chain [l].
      target_error: e, instead of a temperature: a number, or one per chain [l].
      num_samples: number of draws of each chain, all of them held in memory.
      num_warmup: number of steps before the first draw, in blocks of five.
      thin: number of steps per draw.
      tv_weight, alpha_weight, mask, code_weights, centre: the energy's, as in `invert`.
      execution: how chains are run, as lanes are in `invert_batch`.
      on_narrower, keeper: as in `invert_stream`.

    Raises:
      ValueError: a setting, the code or the starts do not fit, or not exactly one of
        temperature and target error is given.

    Returns:
      The draws and their diagnostics.
    """
    request.refuse_transformed((keys, code, phi, images))
    starts = jnp.asarray(pixels.checked(images, name="images"), jnp.float32)
    _check(starts.shape, num_samples, num_warmup, thin)
    keys = identity.lane_keys(keys, num=len(starts), what="images")
    plan = request.prepare(
        request.one_code(code, phi, image_shape=starts.shape[1:]),
        phi,
        1,
        image_shape=starts.shape[1:],
        tv_weight=tv_weight,
        alpha_weight=alpha_weight,
        mask=mask,
        code_weights=code_weights,
        centre=centre,
    )
    program = plan.phases[0].program
    target = Density(plan.phi, plan.shared, plan.of(np.asarray(0)).settings.problem)
    goals = None
    if (temperature is None) == (target_error is None):
        raise ValueError("give either temperature or target_error, and not both")
    if target_error is not None:
        goals = _per_chain("target_error", target_error, len(keys))
        # Were every feature a free Gaussian, the data term would be that many T / 2.
        num_features = sum(part.size for part in jax.tree.leaves(target.problem.target))
        num_terms = min(starts[0].size, num_features)
        temperatures = 2 * goals**2 / num_terms
    else:
        temperatures = _per_chain("temperature", cast(Any, temperature), len(keys))
    execution = execution or default_execution()
    run = Run(program, kernel, execution.scan, num_warmup, num_samples, thin)
    how = (kernel, execution.scan, num_warmup, num_samples, thin)

    def draw(chains: np.ndarray, execution: Execution) -> memory.LaneStream[Any]:
        mesh = execution.mesh
        there = target if mesh is None else devices.replicate(target, mesh)
        for lanes, kept in loop.chunks(chains, execution.lanes_per_call):
            own = (
                starts[lanes],
                temperatures[lanes],
                None if goals is None else goals[lanes],
            )
            chain_keys, (images, begin_at, own_goals) = devices.split(
                (keys[lanes], own), mesh
            )
            state = chain.start(
                chain_keys, run.program, kernel, there, images, begin_at
            )
            if not np.all(np.isfinite(state.start_energy)):
                raise ValueError("the energy of a start is not finite")
            name = ""
            if keeper is not None:
                name = keeping.name_of(keys[lanes], own, target.problem, options=how)
            part = run.chunk(there, state, own_goals, name=name, keeper=keeper)
            rows = jax.tree.map(lambda leaf, n=kept: np.asarray(leaf)[:n], part)
            yield lanes[:kept], rows

    parts = [
        part
        for _, part in memory.narrowing(
            draw, len(keys), execution=execution, on_narrower=on_narrower
        )
    ]
    fields = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return Samples._make((*fields, diagnose(fields[1], fields[3])))


def diagnose(
    energies: Float[np.ndarray, "l k"], projections: Float[np.ndarray, "l k p"]
) -> Diagnostics:
    """Effective sample sizes and R-hat of chains, by BlackJAX's estimators.

    Args:
      energies: [l, k], energies of the draws.
      projections: [l, k, p], any functions of the draws.
    """
    num_chains, num_draws = energies.shape
    traces = np.concatenate([energies[..., None], projections], axis=2)
    sizes = np.full(traces.shape[2], np.nan)
    ratios = np.full(traces.shape[2], np.nan)
    if num_draws >= 4:
        # Relative to their own spread: the energy's is far below its value.
        centred = traces - traces.mean((0, 1))
        scaled = centred / np.maximum(centred.std((0, 1)), 1e-30)
        with ordinary_types(), jax.numpy_rank_promotion("allow"):
            scaled = jnp.asarray(scaled, jnp.float32)
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
    shape: tuple[int, ...],
    num_samples: int,
    num_warmup: int,
    thin: int,
) -> None:
    if len(shape) != 4:
        raise ValueError(
            f"images have shape {shape}; a start [h, w, c] for each key is accepted"
        )
    for name, number, least in (
        ("num_samples", num_samples, 1),
        ("num_warmup", num_warmup, 40),
        ("thin", thin, 1),
    ):
        if number < least:
            raise ValueError(f"{name} is {number}; from {least} up is accepted")
