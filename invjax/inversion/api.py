"""What a user calls: codes in, images out.

A lane is one batch element: a code, a start and a set of weights. Nothing in the
mathematics couples lanes, and a lane's key comes from what it is (`identity.lane_key`),
not from its place in a batch.

    api -> request -> loop, slots -> batch -> lane -> solvers, objective, regularisers

is how a call passes through this package: the request is checked and completed by its
preset, the host loops over chunks of lanes and over steps, and what is compiled of many
lanes is the vmapped step of one.
"""

import dataclasses
import inspect
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from invjax import identity
from invjax.inversion import dead_starts, loop, memory, request, slots
from invjax.inversion.execution import Execution, default_execution
from invjax.inversion.keeping import Keeper
from invjax.inversion.lane import LaneState
from invjax.inversion.loop import CompiledPhase
from invjax.inversion.memory import OnNarrower
from invjax.inversion.request import Keywords, Plan, prepare
from invjax.inversion.result import Result
from invjax.inversion.watching import Watcher
from invjax.types import (
    KeyLike,
    KeysLike,
    RepresentationLike,
)

Function = TypeVar("Function", bound=Callable)


class Estimate(NamedTuple):
    """What `estimate` predicts of an inversion.

    Attributes:
      seconds_per_lane: wall time divided by the number of lanes, without compiling.
      num_bytes: memory on each device while chunks run side by side and one more waits;
        what they share is counted once for each.
    """

    seconds_per_lane: float
    num_bytes: int


def _with_settings(function: Function) -> Function:
    """Shows the keywords of `request.prepare`, with defaults, in place of **settings.

    So they are written down once, and help() and completion list them for every
    function that hands them on.
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
    key: KeyLike,
    code: Any,
    phi: RepresentationLike,
    *,
    history_every: int = 10,
    execution: Execution | None = None,
    **settings: Unpack[Keywords],
) -> Result:
    """Finds an image whose code is `code`, by descent from noise.

    Args:
      key: the lane's key, of `lane_key` or `jax.random.key`: it draws the noise of the
        start and, where there is jitter, the crops.
      code: the target code phi0, an array of the shape that phi returns, of real
        numbers of any type (integers count as numbers); where phi returns a pytree of
        arrays, such as a dict by layer, the same pytree. With another data term, what
        that takes in its place, such as the direction w of
        `objective.activation_maximisation`.
      phi: a pure function of one image [h, w, c] in [0, 1]: a registered representation
        or its name, or any function of your own. Arrays inside a pytree are traced; a
        new plain function object is compiled anew. A function of your own is traced
        twice at first, and refused where it changes itself (batch normalisation in
        training mode, dropout) or answers differently the second time.
      image_shape: (h, w, c) of the image to be found; phi's own by default.
      preset: name of a row of `presets.PRESETS`, which settles everything that is not
        given here.
      num_steps: length of the descent; schedules and phases are stretched to it.
      learning_rate: largest step size, in the solver's units.
      tv_weight: lambda_V, the weight of the total variation in `Result.energy` and,
        under all presets but ijcv2016, in the objective. Under ijcv2016 the paper's own
        weight is multiplied by tv_weight / (the layer's lambda_V), so that the default
        is the paper's, half of it halves the regulariser, and 0 leaves it out.
      alpha_weight: lambda_alpha, the weight of the alpha-norm, likewise.
      chroma_weight: how much more differences between neighbours in colour count in the
        total variation that is minimised than those in brightness; by default what the
        preset says, and alike in the papers'. `Result.energy` counts them alike.
      data_weight: C, the weight of the data term under ijcv2016; refused under other
        presets, whose data term has weight 1. By default `presets.data_weight`.
      data_term: (code, target, mask) -> scalar, to be minimised in place of
        `objective.squared_error`: `objective.activation_maximisation`,
        `objective.caricature`, or a pure function of your own. It is compiled in by
        identity; numbers that vary belong in `code` and `mask`. Of a code of several
        arrays it is given one at a time. Under ijcv2016 the paper's two have 300 steps,
        all with jitter, and C = 1.
      beta: exponent of the total variation. lambda_V is in the units of sigma^beta:
        its default is multiplied by sigma^(beta - 2), as in the released code.
      jitter: number of places T of the image along each axis of a canvas enlarged by
        T - 1 pixels, of which one is drawn at each step; 1 is no jitter. By default
        what the preset says: under ijcv2016 a quarter of the layer's stride, in its
        first phase. Presets without jitter take a given one in all their steps.
      range_bound: largest norm of a pixel's colour vector around the centre, in grey
        levels, imposed after every step; infinite for no bound. By default 160 under
        ijcv2016 and none elsewhere.
      tolerance: ends a lane as "converged" when `lane.PATIENCE` steps in a row have
        decreased the lowest objective by less than this fraction of it. By default no
        lane ends before it has taken all steps: the papers' methods have no such rule.
        The test knows nothing of the schedule: a lane that makes no progress at a high
        learning rate, or that jitters, ends although lower rates might take it further.
        In a descent of several phases it ends the phase, and the next one begins.
      dead_relu: what is done about a dead start (`Result.dead_start`): "restart" draws
        noise anew, up to `dead_starts.MOST_RESTARTS` times; "leaky" takes up to
        `dead_starts.MOST_RELAXED_STEPS` additional steps with the relaxed derivative
        before the descent, and needs a representation that can be relaxed. Both change
        the distribution of the starts, as `dead_starts` says; `Result.num_revivals`
        counts either. By default nothing is done.
      initial_image: [h, w, c] in [0, 1], floating, to start from in place of noise.
        Values beyond [0, 1], as of optimised images, are accepted with a warning.
      mask: M, broadcast against the code: zero where a feature is free. With one axis
        more than the code it has one for each lane. For a code of several arrays, a
        tree with a mask (or None) for each, or one number for all.
      code_weights: for a code of several arrays, the weight of each array's data term:
        a tree with a number, or one per lane, for each. By default 1 / (number of
        arrays): the data term is then the mean of those of the arrays, each relative to
        its own target.
      centre: grey levels (0 to 255) that the regularisers pull towards; by default
        phi's mean colour or mean image (under ijcv2016 the mean image's mean colour),
        and 128 where it has none.
      history_every: number of steps between values of `Result.history`.
      execution: how lanes are run; by default what suits the backend.

    Raises:
      ValueError: code, mask, shape or a setting does not fit; the target is zero
        under the mask (in a caricature: has no positive part); phi is no pure function.
      TypeError: `key` is not a random key; there is no such keyword; phi returns
        something else than arrays of floating-point numbers; the call is inside
        jax.jit, vmap or grad.

    Returns:
      The `Result` of this lane.

    Examples:
      >>> import jax, invjax
      >>> def brightness(image):
      ...     return image.mean(axis=(1, 2))
      >>> code = brightness(jax.numpy.full((16, 16, 3), 0.75))
      >>> key = invjax.lane_key(seed=0, image_id=1, start=0)
      >>> result = invjax.invert(
      ...     key, code, brightness, image_shape=(16, 16, 3), num_steps=100
      ... )
      >>> result.image.shape
      (16, 16, 3)
      >>> bool(abs(brightness(result.image) - code).max() < 0.05)
      True
    """
    request.refuse_transformed((key, code, phi, settings))
    request.refuse_unknown(settings)
    batch = invert_batch(
        identity.one_key(key)[None],
        request.one_code(code, phi, image_shape=settings.get("image_shape")),
        phi,
        history_every=history_every,
        execution=execution,
        **settings,
    )
    return jax.tree.map(lambda leaf: leaf[0], batch)


@_with_settings
def invert_batch(
    keys: KeysLike,
    codes: Any,
    phi: RepresentationLike,
    *,
    history_every: int = 10,
    execution: Execution | None = None,
    **settings: Unpack[Keywords],
) -> Result:
    """Inverts many codes from many starts with many weights, each lane as `invert`.

    Args:
      keys: [l], or a list of keys, as `lane_key` makes them.
      codes: [l, ...], a target for each lane; where phi returns a pytree of arrays, the
        same pytree, each of whose arrays has a leading [l].
      phi, image_shape, preset, num_steps, data_term: shared by the lanes, as in
        `invert`.
      beta, jitter, dead_relu, centre, history_every: likewise.
      mask: as in `invert`; for all lanes, or one for each [l, ...].
      code_weights: as in `invert`; each a number, or one for each lane [l].
      learning_rate, tv_weight, alpha_weight: a number, or one for each lane [l].
      chroma_weight, data_weight, range_bound, tolerance: likewise.
      initial_image: [h, w, c], or one for each lane [l, h, w, c].
      execution: how lanes are run. On CPU a lane has the same bits alone and in any
        batch.

    Raises: as `invert`.

    Returns:
      A `Result` whose fields have a leading [l].
    """
    numbers, results = zip(
        *invert_stream(
            keys,
            codes,
            phi,
            history_every=history_every,
            execution=execution,
            **settings,
        ),
        strict=True,
    )
    order = np.argsort(np.concatenate(numbers))
    return jax.tree.map(
        lambda *leaves: jnp.asarray(np.concatenate(leaves)[order]), *results
    )


@_with_settings
def invert_stream(
    keys: KeysLike,
    codes: Any,
    phi: RepresentationLike,
    *,
    history_every: int = 10,
    execution: Execution | None = None,
    on_narrower: OnNarrower | None = None,
    keeper: Keeper | None = None,
    watchers: Sequence[Watcher] = (),
    **settings: Unpack[Keywords],
) -> Generator[tuple[np.ndarray, Result], None, None]:
    """Inverts many codes and hands results over as they come; see `invert_batch`.

    At most the chunks that run side by side are on the device, and no result is kept.
    With codes as a float32 `numpy.memmap`, a set may be larger than the memory.
    Programs are compiled as the results are consumed: a JAX configuration that is set
    by `with`, such as a matmul precision, has to enclose the consumption.

    Args:
      keys, codes, phi, history_every, execution, **settings: as in `invert_batch`.
      on_narrower: is told how lanes go on where the memory of a device has run out:
        with half the width, lanes that were not handed over from their start. None for
        a warning.
      keeper: keeps the states of long descents, such as `runs.solver_states` does in
        files, and is asked for them first. Not asked where slots are refilled, that is
        in a compiled loop with a tolerance. None for nobody.
      watchers: look at lanes while they descend; see `watching.Watcher`.

    Raises: as `invert`, at the call and not at the first result.

    Returns:
      An iterator over pairs: numbers [n] of lanes that have ended, each lane once, and
      their results, with fields [n, ...] in the host's memory. Lanes come in order,
      but for those of a compiled loop with a tolerance, which come as they converge.

    Examples:
      >>> import jax, invjax
      >>> def brightness(image):
      ...     return image.mean(axis=(1, 2))
      >>> codes = jax.numpy.full((3, 16), 0.5)
      >>> stream = invjax.invert_stream(
      ...     jax.random.split(jax.random.key(0), 3),
      ...     codes,
      ...     brightness,
      ...     image_shape=(16, 16, 3),
      ...     num_steps=5,
      ... )
      >>> sorted(int(lane) for lanes, _ in stream for lane in lanes)
      [0, 1, 2]
    """
    request.refuse_transformed((keys, codes, phi, settings))
    request.refuse_unknown(settings)
    codes = request.lane_codes(codes, phi, image_shape=settings.get("image_shape"))
    stacked = identity.lane_keys(keys, num=request.num_lanes_of(codes))
    plan = prepare(codes, phi, len(stacked), **settings)
    if history_every < 1:
        raise ValueError(f"history_every is {history_every}; it must be positive")
    execution = execution or default_execution()

    def those(lanes: np.ndarray, execution: Execution) -> memory.LaneStream[Result]:
        how: Any = {
            "execution": execution,
            "history_every": history_every,
            "lanes": lanes,
            "watchers": watchers,
        }
        if execution.scan and plan.has_tolerance:
            return slots.stream(stacked, plan, **how)
        return loop.stream(stacked, plan, keeper=keeper, **how)

    return memory.narrowing(
        those, len(stacked), execution=execution, on_narrower=on_narrower
    )


@_with_settings
def estimate(
    code: Any,
    phi: RepresentationLike,
    *,
    execution: Execution | None = None,
    **settings: Unpack[Keywords],
) -> Estimate:
    """Predicts time and memory of an inversion from a few steps of its first phase.

    Args:
      code: one target.
      phi: the representation, or its name.
      execution: as in `invert_batch`.
      **settings: other keywords of `invert`, except `history_every`.

    Raises: as `invert`.
    """
    execution = execution or default_execution()
    plan, states = _chunk(code, phi, execution, settings)
    step = _compiled(plan, states, execution)
    num_timed = step.steps_per_call if execution.scan else 3
    pace = jax.tree.map(lambda row: np.resize(row, num_timed), plan.phases[0].pace)
    per_step = loop.seconds_per_step(step, states, pace, execution=execution)
    return Estimate(
        per_step * plan.num_steps / execution.lanes_at_once,
        step.num_bytes * execution.num_threads + loop.waiting_bytes(plan, states),
    )


@_with_settings
def chunk_bytes(
    code: Any,
    phi: RepresentationLike,
    *,
    execution: Execution | None = None,
    **settings: Unpack[Keywords],
) -> int:
    """Predicts the memory of a chunk, and of another that waits, without a step.

    The program is compiled as the inversion will want it, and JAX keeps it.

    Args and raises: as `estimate`.
    """
    execution = execution or default_execution()
    plan, states = _chunk(code, phi, execution, settings)
    compiled = _compiled(plan, states, execution)
    return compiled.num_bytes + loop.waiting_bytes(plan, states)


@_with_settings
def fitting_width(
    code: Any,
    phi: RepresentationLike,
    *,
    limit: int | None = None,
    most: int = memory.MOST_LANES,
    execution: Execution | None = None,
    **settings: Unpack[Keywords],
) -> int:
    """The number of lanes per compiled call and device that the memory suggests.

    The largest power of two, at most `most`, whose predicted memory is not more than
    `memory.USABLE` of the device's. What is compiled for the prediction is what the
    inversion then uses.

    Args:
      code: one target.
      phi: the representation, or its name.
      limit: bytes that JAX may use on a device; by default as the device says. Where it
        does not, as on CPU, the width is that of `execution`.
      most: largest width.
      execution: as in `invert_batch`; its width is not used where there is a limit.
      **settings: other keywords of `invert`, except `history_every`.

    Raises:
      ValueError: as `invert`.
      MemoryError: not even one lane fits.
    """
    execution = execution or default_execution()
    limit = memory.device_limit() if limit is None else limit
    if limit is None:
        return execution.width

    def num_bytes(width: int) -> int:
        so_wide = dataclasses.replace(execution, width=width)
        return chunk_bytes(code, phi, execution=so_wide, **settings)

    usable = int(memory.USABLE * limit)
    width = memory.largest_width(num_bytes, usable, most=most)
    if width is None:
        raise MemoryError(
            f"one lane does not fit: JAX may use {limit / 2**30:.3g} GiB of the device"
        )
    return width


def _chunk(
    code: Any,
    phi: RepresentationLike,
    execution: Execution,
    settings: Keywords,
) -> tuple[Plan, LaneState]:
    """A chunk full of lanes of one code, before their first step."""
    num_lanes = execution.lanes_per_call
    request.refuse_unknown(settings)
    one = request.one_code(code, phi, image_shape=settings.get("image_shape"))
    codes = jax.tree.map(lambda part: np.repeat(part, num_lanes, axis=0), one)
    plan = prepare(codes, phi, num_lanes, **settings).spread(execution.mesh).on_device()
    keys = plan.place(jax.random.split(jax.random.key(0), num_lanes))
    return plan, dead_starts.start(keys, plan)


def _compiled(plan: Plan, states: LaneState, execution: Execution) -> CompiledPhase:
    """The steps of the first phase as `invert_stream` would run them."""
    if execution.scan and plan.has_tolerance:
        return slots.compile_phase(plan.phases[0], plan, states)
    return loop.compile_phase(plan.phases[0], plan, states, scan=execution.scan)
