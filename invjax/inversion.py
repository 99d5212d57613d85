"""Inversion of codes: what a user calls, checked and handed to the engine.

A lane is one code, one start and one set of weights. Nothing in the mathematics couples
lanes, and a lane's key comes from what it is (`lane_key`), not from its place in a
batch.
"""

import functools
import inspect
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from invjax import chunks, engine, starting
from invjax.engine import Execution
from invjax.planning import Plan, Settings, prepare
from invjax.results import Result
from invjax.types import PRNGKey, PRNGKeys, Representation

Function = TypeVar("Function", bound=Callable)


class Estimate(NamedTuple):
    """What `estimate` predicts: seconds per lane, and bytes while lanes run.

    The bytes are of all chunks that run side by side, what they share counted in each.
    """

    seconds_per_lane: float
    num_bytes: int


def lane_key(seed: int, image_id: int, start: int) -> PRNGKey:
    """The key of a lane, from what it is and not from where it stands.

    Args:
      seed: of the run, 0 <= seed < 2^32.
      image_id: 32 bits that name the image or code; `images.image_id`.
      start: number of the start, from 0.

    Raises:
      ValueError: one of them is not in 32 bits.
    """
    for name, number in (("seed", seed), ("image_id", image_id), ("start", start)):
        if not 0 <= number < 2**32:
            raise ValueError(f"{name} is {number}; 0 to 2^32 - 1 is accepted")
    key = jax.random.fold_in(jax.random.key(seed), np.uint32(image_id))
    return jax.random.fold_in(key, np.uint32(start))


def _with_settings(function: Function) -> Function:
    """Shows the keywords of `prepare`, with defaults, in place of **settings.

    They are written down once, but help() and completion list them for every function
    that hands them on.
    """
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    keywords = [
        parameter
        for parameter in inspect.signature(prepare).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    positional = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    options = [p for p in own if p.kind is p.KEYWORD_ONLY]
    shown = signature.replace(parameters=[*positional, *keywords, *options])
    function.__signature__ = shown  # type: ignore[attr-defined]
    return function


@_with_settings
def invert(
    key: PRNGKey,
    code: Any,
    phi: Representation,
    *,
    history_every: int = 10,
    execution: Execution | None = None,
    **settings: Unpack[Settings],
) -> Result:
    """Finds an image whose code is `code`, by descent from noise.

    Args:
      key: of the lane: it draws the start, and the jitter where there is some.
      code: phi0, float32, of phi's shape; what else a data term may want of it, such as
        the direction w of `objective.activation_maximisation`.
      phi: pure function of one image [h, w, c] in [0, 1]; a registered representation
        or any of your own. Arrays inside a pytree are traced; a new plain function
        object is compiled anew.
      image_shape: (h, w, c) of the image sought; phi's own by default.
      preset: a row of `presets.PRESETS`, where everything not given here comes from.
      num_steps: length of the descent; schedules and phases are stretched to it.
      learning_rate: largest step size, in the solver's units.
      tv_weight: lambda_V, of `Result.energy` and, under all presets but ijcv2016, of
        what is minimised. Under ijcv2016 the paper's own weight is multiplied by
        tv_weight / (the layer's lambda_V), so that the default is the paper's, half of
        it halves the regulariser, and 0 leaves it out.
      alpha_weight: lambda_alpha, likewise.
      data_weight: C of ijcv2016; refused under other presets, whose data term counts
        once. By default that of the layer, `presets.data_weight`.
      data_term: (code, target, mask) -> scalar, to be minimised in place of
        `objective.squared_error`: `objective.activation_maximisation`,
        `objective.caricature`, or a pure function of your own. It is compiled in by
        identity; numbers that vary belong in `code` and `mask`. Under ijcv2016 the
        paper's two have 300 steps, all with jitter, and C = 1.
      beta: exponent of the total variation. lambda_V is in the units of sigma^beta:
        its default is multiplied by sigma^(beta - 2), as in the released code.
      jitter: places T of the image along each axis of a canvas enlarged by T - 1
        pixels, one drawn at each step; 1 is none. By default what the preset says:
        under ijcv2016 a quarter of the layer's stride, in its first phase. The presets
        without jitter take a given one in all their steps.
      range_bound: largest norm of a pixel's colour vector around the centre, grey
        levels, imposed after every step; infinite for none. By default 160 under
        ijcv2016, none elsewhere.
      tolerance: ends a lane, as "converged", when `engine.PATIENCE` steps in a row have
        lowered the best value of what is minimised by less than this share of it. By
        default no lane ends before its steps: the papers' methods have no such rule.
        It knows nothing of the schedule: a lane that makes no progress at a high rate,
        or that jitters, ends though lower rates might take it further. In a descent of
        several phases it ends the phase, and the next one begins.
      dead_relu: what is done where noise has switched off every ReLU that could pass a
        gradient, which `Result.dead_start` tells: "restart" draws noise anew, up to
        `starting.MOST_RESTARTS` times, so that starts are noise on condition that it is
        alive; "leaky" takes up to `starting.MOST_RELAXED_STEPS` steps more with the
        relaxed derivative before the descent, so that starts are pulled towards the
        target, and needs a representation that can be relaxed. `Result.num_revivals`
        counts either. By default nothing is done.
      initial_image: [h, w, c] in [0, 1] to start from in place of noise.
      mask: M, broadcast against the code: zero where a feature is free.
      centre: grey levels (0 to 255) that the regularisers pull towards; by default
        phi's mean colour or mean image (under ijcv2016 the mean image's mean colour),
        and 128 where it has none.
      history_every: k of `Result.history`.
      execution: how to run it; by default what suits the backend.

    Raises:
      ValueError: code, mask, shape or a setting does not fit; the target is zero
        under the mask (in a caricature: has no positive part).

    Returns:
      A `Result` for this lane.
    """
    batch = invert_batch(
        jnp.stack([key]),
        jnp.asarray(code)[None],
        phi,
        history_every=history_every,
        execution=execution,
        **settings,
    )
    return jax.tree.map(lambda leaf: leaf[0], batch)


@_with_settings
def invert_batch(
    keys: PRNGKeys | Sequence[PRNGKey],
    codes: Any,
    phi: Representation,
    *,
    history_every: int = 10,
    execution: Execution | None = None,
    **settings: Unpack[Settings],
) -> Result:
    """Inverts many codes, starts and weights, lane by lane; see `invert`.

    Args:
      keys: [l], or a list of keys, as `lane_key` makes them.
      codes: [l, ...].
      phi, image_shape, preset, num_steps, data_term, beta, jitter, dead_relu,
        mask, centre, history_every: shared by the lanes, as in `invert`.
      learning_rate, tv_weight, alpha_weight, data_weight, range_bound, tolerance: a
        number, or one per lane [l].
      initial_image: [h, w, c], or one per lane [l, h, w, c].
      execution: how to run it. On CPU a lane has the same bits alone and in any batch.

    Raises: as `invert`.

    Returns:
      A `Result` whose fields have a leading [l].
    """
    if isinstance(keys, Sequence):
        keys = jnp.stack(keys)
    plan = prepare(codes, phi, len(keys), **settings)
    if history_every < 1:
        raise ValueError(f"history_every is {history_every}; it must be positive")
    execution = execution or engine.default_execution()
    return chunks.run(keys, plan, execution=execution, history_every=history_every)


@_with_settings
def estimate(
    code: Any,
    phi: Representation,
    *,
    execution: Execution | None = None,
    **settings: Unpack[Settings],
) -> Estimate:
    """Predicts time and memory of an inversion, from steps of its first phase.

    Three of them in each thread, or as many as one call of a compiled loop takes.

    Args:
      code: one target.
      phi: the representation.
      execution: as in `invert_batch`.
      **settings: other keywords of `invert`, but `history_every`.

    Raises: as `invert`.
    """
    execution = execution or engine.default_execution()
    plan, states = _chunk(code, phi, execution, settings)
    steps = chunks.compile_steps(plan, states, scan=execution.scan)

    def take(num_calls: int, states: engine.LaneState) -> engine.LaneState:
        for _ in range(num_calls):
            states, _ = steps.call(plan.phi, plan.problems, states, *steps.pace)
        return jax.block_until_ready(states)

    num_timed = 1 if execution.scan else 3
    side_by_side = execution.num_threads
    # A step takes its argument over.
    copies = [jax.tree.map(jnp.copy, states) for _ in range(side_by_side)]
    with ThreadPoolExecutor(side_by_side) as pool:
        begun = list(pool.map(functools.partial(take, 1), copies))
        began = time.perf_counter()
        list(pool.map(functools.partial(take, num_timed), begun))
        seconds = time.perf_counter() - began
    per_step = seconds / (num_timed * steps.num_steps)
    return Estimate(
        per_step * plan.num_steps / execution.lanes_at_once,
        chunks.num_bytes(steps.call) * side_by_side,
    )


@_with_settings
def chunk_bytes(
    code: Any,
    phi: Representation,
    *,
    execution: Execution | None = None,
    **settings: Unpack[Settings],
) -> int:
    """Predicts the memory of an inversion's chunk without a step of it.

    The program is compiled as the inversion will want it, and kept.

    Args and raises: as `estimate`.
    """
    execution = execution or engine.default_execution()
    plan, states = _chunk(code, phi, execution, settings)
    return chunks.num_bytes(
        chunks.compile_steps(plan, states, scan=execution.scan).call
    )


def _chunk(
    code: Any, phi: Representation, execution: Execution, settings: Settings
) -> tuple[Plan, engine.LaneState]:
    """A chunk full of lanes of one code, before their first step."""
    width = execution.width
    plan = prepare(
        np.repeat(np.asarray(code)[None], width, axis=0), phi, width, **settings
    )
    keys = jax.random.split(jax.random.key(0), width)
    return plan, starting.start(keys, plan)
