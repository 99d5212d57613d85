"""Inversion of codes: what a user calls, checked and handed to the engine.

A lane is one code, one start and one set of weights. Nothing in the mathematics couples
lanes, and a lane's key comes from what it is (`lane_key`), not from its place in a
batch.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from invjax import engine, objective, presets
from invjax.engine import Execution, Result
from invjax.representations import tracing
from invjax.types import PRNGKey, PRNGKeys, Representation


class Estimate(NamedTuple):
    """What `estimate` predicts: seconds per lane, bytes of a chunk of lanes."""

    seconds_per_lane: float
    bytes_per_chunk: int


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


def invert(
    key: PRNGKey,
    code: Any,
    phi: Representation,
    *,
    image_shape: Sequence[int] | None = None,
    preset: str = "fast",
    num_steps: int | None = None,
    learning_rate: ArrayLike | None = None,
    tv_weight: ArrayLike | None = None,
    alpha_weight: ArrayLike | None = None,
    mask: Any = None,
    centre: Any = None,
    history_every: int = 10,
    execution: Execution | None = None,
) -> Result:
    """Finds an image whose code is `code`, by descent from noise.

    Args:
      key: of the start.
      code: phi0, float32, of phi's shape.
      phi: pure function of one image [h, w, c] in [0, 1]; a registered representation
        or any of your own. Arrays inside a pytree are traced; a new plain function
        object is compiled anew.
      image_shape: (h, w, c) of the image sought; phi's own by default.
      preset: a row of `presets.PRESETS`, where everything not given here comes from.
      num_steps: length of the descent; schedules are stretched to it.
      learning_rate: largest step size, in the solver's units.
      tv_weight: lambda_V.
      alpha_weight: lambda_alpha.
      mask: M, broadcast against the code: zero where a feature is free.
      centre: grey levels (0 to 255) that the regularisers pull towards; by default
        phi's mean colour, and 128 where it has none.
      history_every: k of `Result.history`.
      execution: how to run it; by default what suits the backend.

    Raises:
      ValueError: code, mask, shape or a setting does not fit; the target is zero
        under the mask.

    Returns:
      A `Result` for this lane.
    """
    batch = invert_batch(
        jnp.stack([key]),
        jnp.asarray(code)[None],
        phi,
        image_shape=image_shape,
        preset=preset,
        num_steps=num_steps,
        learning_rate=learning_rate,
        tv_weight=tv_weight,
        alpha_weight=alpha_weight,
        mask=mask,
        centre=centre,
        history_every=history_every,
        execution=execution,
    )
    return jax.tree.map(lambda leaf: leaf[0], batch)


def invert_batch(
    keys: PRNGKeys | Sequence[PRNGKey],
    codes: Any,
    phi: Representation,
    *,
    image_shape: Sequence[int] | None = None,
    preset: str = "fast",
    num_steps: int | None = None,
    learning_rate: ArrayLike | None = None,
    tv_weight: ArrayLike | None = None,
    alpha_weight: ArrayLike | None = None,
    mask: Any = None,
    centre: Any = None,
    history_every: int = 10,
    execution: Execution | None = None,
) -> Result:
    """Inverts many codes, starts and weights, lane by lane; see `invert`.

    Args:
      keys: [l], or a list of keys, as `lane_key` makes them.
      codes: [l, ...].
      phi, image_shape, preset, num_steps, mask, centre, history_every: shared by the
        lanes, as in `invert`.
      learning_rate, tv_weight, alpha_weight: a number, or one per lane [l].
      execution: how to run it. On CPU a lane has the same bits alone and in any batch.

    Raises: as `invert`.

    Returns:
      A `Result` whose fields have a leading [l].
    """
    if isinstance(keys, Sequence):
        keys = jnp.stack(keys)
    plan = prepare(
        codes,
        phi,
        len(keys),
        image_shape=image_shape,
        preset=preset,
        num_steps=num_steps,
        learning_rate=learning_rate,
        tv_weight=tv_weight,
        alpha_weight=alpha_weight,
        mask=mask,
        centre=centre,
    )
    if history_every < 1:
        raise ValueError(f"history_every is {history_every}; it must be positive")
    execution = execution or engine.default_execution()
    if execution.width < 1:
        raise ValueError(f"execution.width is {execution.width}; it must be positive")
    results = []
    for first in range(0, len(keys), execution.width):
        # The last chunk is filled up with copies of its first lane.
        numbers = np.arange(first, first + execution.width)
        lanes = np.where(numbers < len(keys), numbers, first)
        chunk = engine.run_chunk(
            plan.program,
            plan.phi,
            _take(plan.problems, lanes),
            keys[lanes],
            start_norm=plan.start_norm,
            schedule=plan.schedule,
            history_every=history_every,
            scan=execution.scan,
        )
        kept = len(keys) - first
        results.append(jax.tree.map(lambda leaf, n=kept: np.asarray(leaf)[:n], chunk))
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *results)


def estimate(
    code: Any,
    phi: Representation,
    *,
    execution: Execution | None = None,
    **settings: Any,
) -> Estimate:
    """Predicts time and memory of an inversion, from three steps of it.

    Args:
      code: one target.
      phi: the representation.
      execution: as in `invert_batch`.
      **settings: other keywords of `invert`, but `history_every`.

    Raises: as `invert`.
    """
    execution = execution or engine.default_execution()
    codes = np.repeat(np.asarray(code)[None], execution.width, axis=0)
    plan = prepare(codes, phi, execution.width, **settings)
    keys = jax.random.split(jax.random.key(0), execution.width)
    states = engine.start(plan.program, keys, plan.start_norm)
    share = plan.schedule[0]
    lowered = engine.step.lower(plan.program, plan.phi, plan.problems, states, share)
    step = lowered.compile()
    memory = step.memory_analysis()
    num_bytes = 0
    if memory is not None:
        num_bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    num_timed = 3
    began = 0.0
    for number in range(num_timed + 1):
        if number == 1:
            began = time.perf_counter()
        states, energies = step(plan.phi, plan.problems, states, share)
        jax.block_until_ready(energies)
    per_step = (time.perf_counter() - began) / num_timed
    return Estimate(per_step * len(plan.schedule) / execution.width, num_bytes)


class Plan(NamedTuple):
    """Everything `invert_batch` was asked for, checked and filled in."""

    program: engine.Program
    phi: tracing.Argument
    problems: objective.Problem
    start_norm: Array
    schedule: np.ndarray


def prepare(
    codes: Any,
    phi: Representation,
    num_lanes: int,
    *,
    image_shape: Sequence[int] | None = None,
    preset: str = "fast",
    num_steps: int | None = None,
    learning_rate: ArrayLike | None = None,
    tv_weight: ArrayLike | None = None,
    alpha_weight: ArrayLike | None = None,
    mask: Any = None,
    centre: Any = None,
) -> Plan:
    """Checks a request and fills in what its preset and representation say.

    For those who run the engine's steps by themselves; arguments as `invert_batch`.
    """
    chosen = presets.find(preset, phi=phi)
    num_steps = chosen.num_steps if num_steps is None else num_steps
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be positive")
    shape = _image_shape(phi, image_shape)
    weights = {
        "tv_weight": presets.tv_weight(phi) if tv_weight is None else tv_weight,
        "alpha_weight": presets.ALPHA_WEIGHT if alpha_weight is None else alpha_weight,
        "learning_rate": chosen.learning_rate
        if learning_rate is None
        else learning_rate,
    }
    problems = objective.Problem(
        **_targets(codes, mask, num_lanes),
        **{name: _per_lane(name, value, num_lanes) for name, value in weights.items()},
        centre=_centre(phi, centre, shape),
    )
    argument = tracing.Argument.of(phi)
    _check_code_shape(argument, problems.target.shape[1:], shape)
    return Plan(
        program=engine.Program(chosen.solver, shape),
        phi=argument,
        problems=problems,
        start_norm=jnp.float32(chosen.start_norm(shape)),
        schedule=chosen.schedule(num_steps),
    )


def _take(problems: objective.Problem, lanes: np.ndarray) -> objective.Problem:
    return objective.Problem(
        *(
            leaf if axis is None else leaf[lanes]
            for leaf, axis in zip(problems, engine.LANE_AXES, strict=True)
        )
    )


def _image_shape(
    phi: Representation, given: Sequence[int] | None
) -> tuple[int, int, int]:
    shape = given if given is not None else getattr(phi, "image_shape", None)
    if shape is None or len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"image_shape is {shape}; (height, width, channels) is accepted, and a "
            "representation without an image_shape of its own needs it"
        )
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def _per_lane(name: str, value: Any, num_lanes: int) -> Array:
    array = np.asarray(value, np.float32)
    if array.shape not in ((), (num_lanes,)):
        raise ValueError(
            f"{name} has shape {array.shape}; a number or one per lane, "
            f"({num_lanes},), is accepted"
        )
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        raise ValueError(f"{name} is {value}; finite numbers from 0 up are accepted")
    return jnp.broadcast_to(array, (num_lanes,))


def _centre(phi: Representation, given: Any, shape: tuple[int, ...]) -> Array:
    """Grey levels at z = 0, of a shape that broadcasts to the image."""
    centre = given if given is not None else getattr(phi, "centre", 128.0)
    array = np.asarray(centre, np.float32)
    if not np.all(np.isfinite(array)):
        raise ValueError("centre is not finite; grey levels are accepted")
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"centre has shape {array.shape}, which does not fit an image of {shape}"
        ) from None
    return jnp.asarray(array)


def _targets(codes: Any, mask: Any, num_lanes: int) -> dict[str, Array]:
    """Targets and mask, checked: a target of norm zero has no relative error."""
    if np.iscomplexobj(codes):
        raise ValueError("codes are complex; real ones are accepted")
    with np.errstate(over="ignore"):
        target = np.asarray(codes, np.float32)
    if num_lanes < 1 or target.shape[:1] != (num_lanes,):
        raise ValueError(
            f"{num_lanes} keys and codes of shape {target.shape}; at least one lane, "
            "and as many codes as keys, are accepted"
        )
    weights = np.asarray(1.0 if mask is None else mask, np.float32)
    try:
        masked = target * np.broadcast_to(weights, target.shape[1:])
    except ValueError:
        raise ValueError(
            f"mask has shape {weights.shape}, codes have {target.shape[1:]}"
        ) from None
    # Squares in float32, as the data term has them: what vanishes there is zero.
    norms = np.sum(np.square(masked.reshape(num_lanes, -1)), axis=1)
    if not np.all(np.isfinite(norms)):
        raise ValueError("a target code is not finite")
    if np.any(norms == 0):
        lanes = ", ".join(map(str, np.flatnonzero(norms == 0)))
        raise ValueError(f"target code is zero under the mask in lane {lanes}")
    return {"target": jnp.asarray(target), "mask": jnp.asarray(weights)}


def _check_code_shape(
    phi: tracing.Argument, code_shape: tuple[int, ...], image_shape: tuple[int, ...]
) -> None:
    expected = tracing.code_shape(phi, image_shape)
    if expected != code_shape:
        raise ValueError(
            f"codes have shape {code_shape}, but the representation of an image of "
            f"{image_shape} has {expected}"
        )
