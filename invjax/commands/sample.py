"""Samples the images that have a code, and measures how different they are.

    invjax sample --workdir=runs/set --num_samples=16 --num_steps=200

draws 16 inversions of each of two sample photographs from AlexNet's relu1, relu3 and
pool5: about six minutes on two cores.

--method is one of:

    starts      inversions from independent noise; each is the same alone and in any
                batch (on CPU to the bit), and the same as that of `invert`
    repulsion   inversions that are kept apart while they are optimised, in sets of
                --set_size
    mala, hmc   Markov chains that start from such inversions, at the --temperature
                given, or at the one where the mean relative error is --target_error

Depths can be compared only at equal feature error: an image may be far from another
because its code is. Every sample's error is in metrics.jsonl, and the table has a row
for all samples. With --target_error it has a second row, of the samples whose relative
error deviates from the target by at most the fraction --error_band. Chains are
calibrated to the target; for the other methods errors follow lambda_V, so give a list
of --tv_weight, and each code's samples are those of the lambda_V that has most of them
in the band. A row without samples says that there are none: a regularised inversion has
a least error, and shallow layers have one far below the errors of deep layers.

Ratios are to the mean distance between the photographs of the run. The effective rank
and the fractions of variance of s samples are bounded by s: compare equal numbers of
samples. EfficientNet-Lite0 names the samples where its weights are at hand, and Lite1
where Lite0 is inverted; --classifier names another network. --geometry also measures
the representation's Jacobian at the original and at a sample, and its designed
invariances; that takes as long as some inversions.

The images of a set are held in memory while it is measured: 0.6 MB each at 224 px, and
about three times that at the most.

A command that was interrupted goes on when it is given again: the samples that are
done are not drawn again. Chains and repulsion are kept code by code.

Writes below --workdir: config.json, metrics.jsonl (a line per sample), sets.jsonl (a
line per image, representation, lambda_V and selection),
samples/<image>/<representation>/start_000.png,
maps/<image>/<representation>/{mean,deviation,component_1,...}.png, table.csv, table.md,
figure.png and figure_stretched.png, where each sample is stretched to its range; with
--geometry also geometry and invariances, as .jsonl, .csv and .md.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from absl import flags

from invjax.commands import binary, shared_flags
from invjax.runs import lanes, loading, runner
from invjax.runs.classifiers import Classifiers
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.identification import Identifier
from invjax.runs.lanes import Group
from invjax.runs.plans import LoadedPlan
from invjax.runs.records import Record, Tally
from invjax.runs.sets import methods
from invjax.runs.sets.options import CHAINS, METHODS, Options
from invjax.runs.sets.set_report import SetReport
from invjax.runs.settings import Request, Settings
from invjax.runs.shards import Shard
from invjax.runs.units import Unit

_IMAGES = "sample:chelsea,sample:coffee"
_REPRESENTATIONS = ("alexnet/relu1", "alexnet/relu3", "alexnet/pool5")

_METHOD = flags.DEFINE_enum("method", "starts", METHODS, "How samples are drawn.")
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples",
    16,
    "Number of samples of each code and lambda_V; with chains, rounded up so that "
    "each draws equally many.",
    lower_bound=2,
)
_NUM_PAIRS = flags.DEFINE_integer(
    "num_pairs",
    200,
    "Largest number of pairs of samples whose distance is measured; drawn at random "
    "without replacement.",
    lower_bound=1,
)
_TARGET_ERROR = flags.DEFINE_float(
    "target_error",
    None,
    "Relative error at which depths are compared (default: none).",
)
_ERROR_BAND = flags.DEFINE_float(
    "error_band",
    0.1,
    "Largest relative deviation of a sample's error from the target error.",
)
_TEMPERATURE = flags.DEFINE_float("temperature", None, "Temperature of chains.")
_NUM_CHAINS = flags.DEFINE_integer(
    "num_chains", 4, "Chains per code, each from an inversion.", lower_bound=1
)
_NUM_WARMUP = flags.DEFINE_integer(
    "num_warmup", 1000, "Steps of a chain before its first sample.", lower_bound=40
)
_THIN = flags.DEFINE_integer("thin", 10, "Steps per sample of a chain.", lower_bound=1)
_NUM_LEAPS = flags.DEFINE_integer(
    "num_leaps", 8, "Leapfrog steps (gradients) per step of hmc.", lower_bound=1
)
_SET_SIZE = flags.DEFINE_integer(
    "set_size", 8, "Largest number of images that are kept apart.", lower_bound=3
)
_REPULSION = flags.DEFINE_float(
    "repulsion", 0.03, "Weight of the repulsion, in units of the energy."
)
_GEOMETRY = flags.DEFINE_bool(
    "geometry", False, "Also measure the Jacobian and the designed invariances."
)

shared_flags.define_classifier()

_METHODS_OF = {
    "temperature": CHAINS,
    "num_chains": CHAINS,
    "num_warmup": CHAINS,
    "thin": CHAINS,
    "num_leaps": ("hmc",),
    "set_size": ("repulsion",),
    "repulsion": ("repulsion",),
}


def main() -> None:
    """Draws sets of images, or predicts how long that takes, as the flags ask."""
    request = shared_flags.from_flags(images=_IMAGES, representations=_REPRESENTATIONS)
    options = options_from_flags(request.settings)
    settings = dataclasses.replace(request.settings, num_starts=options.num_inversions)
    request = dataclasses.replace(request, settings=settings)
    if request.dry_run:
        print_estimates(settings, options)
    else:
        run(request, options)


def options_from_flags(settings: Settings) -> Options:
    """The flags of this binary, checked.

    Raises:
      Refusal: a flag is out of range, means nothing for the method, or is missing.
    """
    method = _METHOD.value
    if flags.FLAGS["num_starts"].present:
        raise Refusal("--num_starts: use --num_samples here")
    for name, methods_of_flag in _METHODS_OF.items():
        if flags.FLAGS[name].present and method not in methods_of_flag:
            raise Refusal(
                f"--{name} means nothing with --method={method}; it is for "
                f"{', '.join(methods_of_flag)}"
            )
    for flag in (_TARGET_ERROR, _ERROR_BAND, _TEMPERATURE):
        if flag.value is not None and not 0 < flag.value < np.inf:
            raise Refusal(f"--{flag.name}={flag.value}: a number above 0 is accepted")
    if not 0 <= _REPULSION.value < np.inf:
        raise Refusal(f"--repulsion={_REPULSION.value}: a number from 0 up is accepted")
    if method in CHAINS and (_TARGET_ERROR.value is None) == (
        _TEMPERATURE.value is None
    ):
        raise Refusal(
            f"--method={method} takes either --target_error, for which its temperature "
            "is sought, or --temperature, and not both"
        )
    if method == "repulsion":
        if settings.preset == "ijcv2016":
            raise Refusal(
                "--method=repulsion: presets other than ijcv2016 are accepted"
            )
        if settings.tolerance is not None:
            raise Refusal("--tolerance means nothing with --method=repulsion")
    for name in ("save_trajectory", "tensorboard"):
        if getattr(settings, name):
            raise Refusal(f"--{name} means nothing here; invert and studies take it")
    options = Options(
        method=method,
        num_samples=_NUM_SAMPLES.value,
        num_pairs=_NUM_PAIRS.value,
        target_error=_TARGET_ERROR.value,
        error_band=_ERROR_BAND.value,
        temperature=_TEMPERATURE.value,
        num_chains=_NUM_CHAINS.value,
        num_warmup=_NUM_WARMUP.value,
        thin=_THIN.value,
        num_leaps=_NUM_LEAPS.value if method == "hmc" else 1,
        set_size=_SET_SIZE.value,
        repulsion=_REPULSION.value,
        geometry=_GEOMETRY.value,
    )
    return options.in_short() if settings.smoke else options


def print_estimates(settings: Settings, options: Options) -> None:
    """Prints lanes and predicted time; a chain's step counts as its gradients."""
    planned = lanes.plan(load(settings, options), settings)
    runner.print_estimates(planned, settings)
    if options.method in CHAINS:
        steps = options.num_warmup + options.num_draws * options.thin
        steps *= options.num_leaps
        print("and the chains, whose steps cost about the same:")
        runner.print_estimates(planned, dataclasses.replace(settings, num_steps=steps))


def load(settings: Settings, options: Options) -> list[Group]:
    """Loads the groups; of images, those whose code is zero are left out.

    Raises:
      Refusal: the Jacobian of several representations together is asked for.
    """
    if settings.code is not None:
        groups = loading.load_groups(settings)
    else:
        groups = loading.load_image_groups(settings)
    if options.geometry:
        loading.refuse_joint(groups)
    return groups


def run(request: Request, options: Options) -> None:
    """Draws, measures and writes everything asked for.

    Raises:
      Refusal and the errors of `runs.errors`: bad input; nothing was written.
      KeyboardInterrupt: after what was finished has been written.
    """
    settings = request.settings
    groups = load(settings, options)
    lpips_parameters = loading.load_lpips(groups, settings)
    classifiers = Classifiers(groups, settings, words=("classifier",))
    # What is wrong with its flag is said before anything is written.
    identifier = Identifier.of(settings)
    planned = lanes.plan(groups, settings)
    plan = LoadedPlan(planned)
    assert request.workdir is not None
    folder = RunFolder.claim(request.workdir, overwrite=request.overwrite)
    begun = runner.begin(
        folder,
        plan,
        settings,
        weights=loading.weights_digests(groups),
        options=options.as_json(),
        process=request.process,
        lanes_per_unit=methods.lanes_per_unit(plan, options),
        skipped=loading.unread(groups),
    )

    def compute(todo: list[Unit]) -> None:
        methods.compute(begun, todo, options, lpips_parameters, identifier=identifier)

    def show(shards: Iterator[tuple[Unit, Shard]]) -> None:
        report = SetReport(folder, settings, options, lpips_parameters, classifiers)
        tally = Tally()

        def counted() -> Iterator[tuple[Unit, Shard]]:
            for unit, shard in shards:
                for entry in shard.entries:
                    tally.add(Record.from_json(entry.record))
                yield unit, shard

        for found in methods.sets(begun, planned, counted()):
            report.add(found)
        if not report.finish():
            return
        print((folder.path / "table.md").read_text())
        for line in tally.remarks():
            print(line)
        print(f"look at {folder.path}/figure.png")

    runner.carry_out(begun, compute, show)


if __name__ == "__main__":
    binary.run(main)
