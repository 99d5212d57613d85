"""How fast representations and steps are, measured side by side in one run.

    python -m experiments.benchmark --workdir=runs/benchmark

Times value and gradient of |phi(x) - phi0|^2 for a vmapped batch of 16 grey images of
256 px, against scikit-image's `hog` (forward alone, image by image) and one whole step
of the AlexNet relu3 objective (one lane of 224 px). The cases take turns, so that a
busy machine slows all of them alike; the figure is the median over the rounds. About a
minute on two cores. Writes benchmark.jsonl (a line per case) and table.md.
"""

import importlib.metadata
import importlib.util
import json
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import invjax
from experiments import binary, settings, tables
from experiments.binary import Refusal
from invjax import engine, files, images, inversion
from invjax.networks import pretrained
from invjax.representations import dsift, hog

_ROUNDS = flags.DEFINE_integer("rounds", 7, "Turns of every case.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 16, "Images per call.", lower_bound=1)

_IMAGES = ",".join(f"sample:{name}" for name in images.SAMPLES)
_SIZE = 256
_NETWORK_SIZE = 224


class Case(NamedTuple):
    """Something to time: a call, and how many images it handles."""

    name: str
    call: Callable[[], Any]
    num_images: int


def main() -> None:
    settings.refuse_others("workdir", "seed", "smoke", "overwrite")
    request = settings.from_flags(images=_IMAGES, representations=("hog",))
    if not request.workdir:
        raise Refusal("--workdir is missing; give a folder for the results")
    folder = pathlib.Path(request.workdir).expanduser()
    if (folder / "benchmark.jsonl").exists() and not request.overwrite:
        raise Refusal(
            f"--workdir={request.workdir}: holds a benchmark; pass --overwrite"
        )
    rounds = 1 if request.settings.smoke else _ROUNDS.value
    batch = 2 if request.settings.smoke else _BATCH.value
    seconds = measure(shallow_cases(batch), rounds)
    write(folder, seconds, batch, rounds)


def shallow_cases(batch: int) -> list[Case]:
    """The shallow representations, and what they are compared with."""
    grey = [
        images.to_grey(images.centre_crop(images.sample(name), _SIZE))
        for name in images.SAMPLES
    ]
    turned = [image[::flip] for flip in (1, -1) for image in grey]
    stack = jnp.asarray(np.stack([turned[i % len(turned)] for i in range(batch)]))
    functions = {
        "hog (VLFeat)": hog.hog,
        "hogb (VLFeat)": _with(hog.hog, hog.HogConfig(assignment="bilinear")),
        "dsift (VLFeat, Gaussian)": dsift.dsift,
        "dsift (VLFeat, flat)": _with(dsift.dsift, dsift.DsiftConfig(window="flat")),
        "hog (paper)": invjax.representation("hog"),
        "hogb (paper)": invjax.representation("hogb"),
        "dsift (paper)": invjax.representation("dsift"),
    }
    cases = [
        Case(name, _value_and_gradient(function, stack), batch)
        for name, function in functions.items()
    ]
    if importlib.util.find_spec("skimage") is not None:
        from skimage import feature

        planes = np.asarray(stack)[..., 0]

        def forward() -> None:
            for plane in planes:
                feature.hog(plane, orientations=9, pixels_per_cell=(8, 8))

        cases.append(Case("scikit-image hog, forward only", forward, batch))
    try:
        cases.append(Case("alexnet/relu3 whole step", _network_step(), 1))
    except pretrained.MissingWeights as error:
        print(f"left out: alexnet/relu3 ({error})")
    return cases


def measure(cases: list[Case], rounds: int) -> dict[str, float]:
    """Median seconds per image of each case; one call beforehand compiles."""
    for case in cases:
        jax.block_until_ready(case.call())
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            began = time.perf_counter()
            jax.block_until_ready(case.call())
            elapsed = time.perf_counter() - began
            times[case.name].append(elapsed / case.num_images)
    return {name: float(np.median(values)) for name, values in times.items()}


def write(
    folder: pathlib.Path, seconds: dict[str, float], batch: int, rounds: int
) -> None:
    """benchmark.jsonl and table.md; ratios are to the first comparison at hand."""
    reference = seconds.get("scikit-image hog, forward only")
    device = jax.devices()[0].device_kind
    lines, rows = [], []
    for name, value in seconds.items():
        record = {
            "case": name,
            "ms_per_image": round(1e3 * value, 3),
            "ratio_to_scikit_image": round(value / reference, 3) if reference else None,
            "batch": batch,
            "rounds": rounds,
            "precision": "float32",
            "device": device,
            "machine": platform.machine(),
            "jax": jax.__version__,
            "invjax": importlib.metadata.version("invjax"),
        }
        lines.append(json.dumps(record, allow_nan=False))
        ratio = f"{value / reference:.2f}" if reference else "–"
        rows.append([name, f"{1e3 * value:.1f}", ratio])
    files.write_whole(folder / "benchmark.jsonl", "\n".join(lines) + "\n")
    table = tables.markdown(["case", "ms per image", "of scikit-image's"], rows)
    files.write_whole(folder / "table.md", table)
    print(table)


def _with(function: Callable, config: Any) -> Callable[[jax.Array], jax.Array]:
    return lambda image: function(image, config=config)


def _value_and_gradient(phi: Callable, stack: jax.Array) -> Callable[[], Any]:
    targets = jax.lax.map(phi, stack[::-1])

    def loss(image: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.sum((phi(image) - target) ** 2)

    run = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    return lambda: run(stack, targets)


def _network_step() -> Callable[[], Any]:
    phi = invjax.representation("alexnet/relu3")
    code = phi(jnp.asarray(images.centre_crop(images.sample("chelsea"), _NETWORK_SIZE)))
    plan = inversion.prepare(np.asarray(code)[None], phi, 1)
    keys = jax.random.split(jax.random.key(0), 1)
    # The step takes its state over, so each call hands on what the last one left.
    program, schedule = plan.phases[0]
    states = [engine.start(program, keys, plan.start_scale)]

    def step() -> Any:
        states[0], energies = engine.step(
            program, plan.phi, plan.problems, states[0], schedule[0]
        )
        return energies

    return step


if __name__ == "__main__":
    binary.run(main)
