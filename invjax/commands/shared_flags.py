"""The flags that inverting binaries share, and the request that they become.

Each is defined once, since absl refuses the same flag in two modules of one process.
"""

import fractions
import functools
import math
import os

import jax.numpy as jnp
from absl import flags

from invjax import files
from invjax.commands import binary
from invjax.inversion import presets, request
from invjax.metrics import labels
from invjax.representations.bridges.bridged import LAYOUTS, LayerInfo
from invjax.runs import event_files, modules, processes, recorded
from invjax.runs.errors import Refusal
from invjax.runs.settings import Request, Settings

_WORKDIR: flags.FlagHolder[str | None] = flags.DEFINE(
    binary.PATH, "workdir", None, "Folder for the results; made if missing."
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the run.", lower_bound=0, upper_bound=2**32 - 1
)
_IMAGES: flags.FlagHolder[str | None] = flags.DEFINE(
    binary.PATHS,
    "images",
    None,
    "Files, globs, folders, tar archives, sample:NAME and @LIST (a text file with a "
    "path on each line), separated by commas; 'a-{000..009}.tar' stands for ten names "
    "(default: sample photographs).",
    # A shell that expands braces gives the flag once for each name.
    allow_overwrite=False,
)
_ON_BAD_IMAGE = flags.DEFINE_enum(
    "on_bad_image",
    "skip",
    ["skip", "refuse"],
    "What to do with an image that cannot be used (a truncated file, say): pass over "
    "it and say why in skipped.jsonl, or refuse to run.",
)
_CODE: flags.FlagHolder[str | None] = flags.DEFINE(
    binary.PATHS,
    "code",
    None,
    "Recorded codes, inverted instead of images: files, globs and folders of .npy, "
    ".npz, .pt, .safetensors and .h5 files, separated by commas, with one code each or "
    "[n, ...].",
)
_CODE_LAYOUT = flags.DEFINE_enum(
    "code_layout",
    None,
    list(recorded.LAYOUTS),
    "Order of the axes of recorded codes and masks (default: as their shape tells; "
    "where both fit, it has to be given).",
)
_MASK: flags.FlagHolder[str | None] = flags.DEFINE(
    binary.PATHS,
    "mask",
    None,
    "Files of masks over codes, given as --code; 0 where a feature is free. One is for "
    "all, [n, ...] in the order of the codes, several files by name (default: none).",
)
_INITIAL_IMAGE: flags.FlagHolder[str | None] = flags.DEFINE(
    binary.PATHS,
    "initial_image",
    None,
    "Images to start from; given as --images, or files of arrays. One is for all, or "
    "those of the names of what is inverted (default: noise).",
)
_REPRESENTATIONS = flags.DEFINE_list(
    "representations",
    None,
    "NETWORK/LAYER, hog, hogb, dsift or dsift8, separated by commas; A+B inverts the "
    "codes of both together, and --list shows all.",
)
_CODE_WEIGHTS = flags.DEFINE_list(
    "code_weights",
    None,
    "Weights of the data terms of representations that are inverted together; for A+B, "
    "in their order, separated by commas (default: equal ones, whose sum is 1).",
)
_MODULE = flags.DEFINE_string(
    "module",
    None,
    "A network of your own, MODULE:CALLABLE such as my_models:resnet, which is or "
    "returns a PyTorch, NNX, Equinox or Keras model, (Linen module, variables) or a "
    "function image -> code.",
)
_LAYER = flags.DEFINE_list(
    "layer",
    None,
    "Comma-separated layers of --module, by the names that --list shows (default: what "
    "it returns).",
)
_MEAN = flags.DEFINE_list(
    "module_mean",
    None,
    "Mean of the images on which --module was trained, in units of [0, 1]: one number, "
    "or one per channel (default: 0).",
)
_STD = flags.DEFINE_list(
    "module_std",
    None,
    "Their standard deviation, as --module_mean; 1/255 for a network that takes grey "
    "levels (default: 1).",
)
_LAYOUT = flags.DEFINE_enum(
    "module_layout",
    None,
    list(LAYOUTS),
    "Order of axes in which --module takes an image (default: its framework's).",
)
_PRESET = flags.DEFINE_enum(
    "preset",
    None,
    list(presets.PRESETS),
    "Method: cvpr2015 and ijcv2016 are the papers', adam is for comparison, natural "
    "shows deep codes random views (default: fast; for maximise, caricature ijcv2016).",
)
_NUM_STEPS = flags.DEFINE_integer(
    "num_steps", None, "Number of steps (default: the preset's).", lower_bound=1
)
_NUM_STARTS = flags.DEFINE_integer(
    "num_starts",
    None,
    "Number of random starts per code (default: 1; studies have their own).",
    lower_bound=1,
)
_TV_WEIGHT = flags.DEFINE_list(
    "tv_weight",
    None,
    "Weight lambda_V of the total variation; a comma-separated list inverts every code "
    "with each of them (default: the preset's, by the depth of the layer).",
)
_ALPHA_WEIGHT = flags.DEFINE_float(
    "alpha_weight",
    None,
    "Weight lambda_alpha of the norm of the image (default: the preset's).",
    lower_bound=0,
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance",
    None,
    "End an inversion that makes no progress: when 25 steps have decreased its "
    "objective by less than this fraction of it (default: never, as in the papers).",
    lower_bound=0,
)
_DEAD_RELU = flags.DEFINE_enum(
    "dead_relu",
    None,
    list(request.DEAD_RELU),
    "What to do where noise has switched off every ReLU below the code: draw it anew, "
    "or leave it with a leaky derivative. Both change the distribution of the starts "
    "(default: neither).",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Size of images in pixels: side of the square for networks, short side for shallow "
    "representations (default: the network's own, the image's own).",
    lower_bound=1,
)
_RESIZE = flags.DEFINE_enum(
    "resize", "crop", ["crop", "stretch"], "How images become square for networks."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Number of inversions that run side by side: on GPU and TPU in one compiled call "
    "on each device (default: what fits, at most 512), on CPU in threads, at most one "
    "per core (default: 16).",
    lower_bound=1,
)
_COMPUTE_DTYPE = flags.DEFINE_enum(
    "compute_dtype",
    "float32",
    ["float32", "bfloat16"],
    "Type of a network's arithmetic in the descent; targets and errors are always "
    "computed in float32.",
)
_IDENTIFY_AMONG: flags.FlagHolder[str | None] = flags.DEFINE(
    binary.PATHS,
    "identify_among",
    None,
    "Images among which each reconstruction is to be identified; given as --images, "
    "compared by the features of another network (default: not asked).",
)
_SAVE_ARRAYS = flags.DEFINE_bool(
    "save_arrays", False, "Also write unclipped images and their codes as .npz files."
)
_SAVE_TRAJECTORY = flags.DEFINE_integer(
    "save_trajectory",
    None,
    "Also write the image and its error every so many steps of each descent, and an "
    "animation (default: not).",
    lower_bound=1,
)
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard",
    False,
    "Also write curves and pictures for TensorBoard; needs tensorboardX.",
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print what would run, predicted time and memory, and stop."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite",
    False,
    "Replace the run in --workdir (default: go on with it where it was).",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes",
    None,
    "Number of processes that share the run; each is started with the same command "
    "(default: as Slurm, Open MPI or Kubernetes say, or 1).",
    lower_bound=1,
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id",
    None,
    "Number of this process, from 0 (default: as Slurm, Open MPI or Kubernetes say).",
    lower_bound=0,
)
_SMOKE = flags.DEFINE_bool(
    "smoke", False, "Run two inversions of five steps, as a trial."
)


@functools.cache
def define_layers() -> flags.FlagHolder[list[str] | None]:
    """Defines --layers, for the binaries that have it."""
    return flags.DEFINE_list(
        "layers",
        None,
        "Comma-separated layers: names of layers of --network, or NETWORK/LAYER in "
        "benchmarks (default: all at hand, or by case and backend).",
    )


@functools.cache
def define_classifier() -> flags.FlagHolder[str | None]:
    """Defines --classifier, for the binaries that name what pictures show."""
    return flags.DEFINE_string(
        "classifier",
        None,
        "Last layer of the network that names pictures, NETWORK/LAYER; not a network "
        f"that is inverted (default: the first of {', '.join(labels.JUDGES)} that is "
        "not).",
    )


def from_flags(
    *,
    images: str,
    representations: tuple[str, ...],
    num_starts: int = 1,
    preset: str = "fast",
    tv_weight: tuple[float, ...] | None = None,
) -> Request:
    """Makes a request of the parsed flags.

    Args:
      images: what --images is where neither it nor --code is given.
      representations: what --representations is where neither it nor --module is
        given.
      num_starts: what --num_starts is where it is not given.
      preset: what --preset is where it is not given.
      tv_weight: what --tv_weight is where it is not given; None for the preset's.

    Raises:
      Refusal: flags contradict each other or are out of range.
    """
    if not (_WORKDIR.value or _DRY_RUN.value):
        raise Refusal("--workdir is missing; give a folder for the results")
    if _IMAGES.value is not None and _CODE.value is not None:
        raise Refusal("--images and --code exclude each other; give one of them")
    if _ALPHA_WEIGHT.value is not None and not math.isfinite(_ALPHA_WEIGHT.value):
        raise Refusal(
            f"--alpha_weight={_ALPHA_WEIGHT.value}: a finite number from 0 up is "
            "accepted"
        )
    if _TOLERANCE.value is not None and not math.isfinite(_TOLERANCE.value):
        raise Refusal(
            f"--tolerance={_TOLERANCE.value}: a finite number from 0 up is accepted"
        )
    given = _IMAGES.value
    if given is None and _CODE.value is None:
        given = images
    names = _representations(representations)
    settings = Settings(
        images=given,
        code=_CODE.value,
        representations=names,
        preset=_PRESET.value or preset,
        num_steps=_NUM_STEPS.value,
        num_starts=_NUM_STARTS.value or num_starts,
        tv_weight=_weights(_TV_WEIGHT.value) or tv_weight,
        alpha_weight=_ALPHA_WEIGHT.value,
        tolerance=_TOLERANCE.value,
        dead_relu=_DEAD_RELU.value,
        image_size=_IMAGE_SIZE.value,
        resize=_RESIZE.value,
        batch_size=_BATCH_SIZE.value,
        compute_dtype=jnp.dtype(_COMPUTE_DTYPE.value).name,
        weights_dir=binary.WEIGHTS_DIR.value,
        save_arrays=_SAVE_ARRAYS.value,
        seed=_SEED.value,
        smoke=_SMOKE.value,
        identify_among=_IDENTIFY_AMONG.value,
        on_bad_image=_ON_BAD_IMAGE.value,
        classifier=flags.FLAGS["classifier"].value if _has_classifier() else None,
        code_weights=_code_weights(_CODE_WEIGHTS.value),
        code_layout=_CODE_LAYOUT.value,
        mask=_MASK.value,
        initial_image=_INITIAL_IMAGE.value,
        save_trajectory=_SAVE_TRAJECTORY.value,
        tensorboard=_TENSORBOARD.value,
        mean=_numbers("module_mean", _MEAN.value),
        std=_numbers("module_std", _STD.value),
        layout=_LAYOUT.value,
    )
    if settings.tensorboard:
        event_files.check()
    process = processes.find(os.environ, _PROCESS_ID.value, _NUM_PROCESSES.value)
    if process.count > 1 and _OVERWRITE.value:
        raise Refusal(
            f"--overwrite: each of {process.count} processes would delete what the "
            f"others do; delete {_WORKDIR.value} first instead"
        )
    return Request(
        settings=settings,
        workdir=_WORKDIR.value,
        dry_run=_DRY_RUN.value,
        overwrite=_OVERWRITE.value,
        process=process,
    )


def refuse_others(*used: str) -> None:
    """Refuses shared flags that were given although the binary does not use them.

    Args:
      used: names of the shared flags that the binary uses.

    Raises:
      Refusal: naming the first flag that means nothing.
    """
    for flag in flags.FLAGS.flags_by_module_dict()[__name__]:
        if flag.present and flag.name not in used:
            raise Refusal(
                f"--{flag.name} means nothing here; of the shared flags "
                f"{', '.join(f'--{name}' for name in used)} are accepted"
            )


def module_layers() -> list[LayerInfo] | None:
    """The layers of what --module names; None where it is not given.

    Raises:
      Refusal: it is refused.
    """
    if _MODULE.value is None:
        return None
    return modules.list_layers(
        _MODULE.value, image_size=_IMAGE_SIZE.value, layout=_LAYOUT.value
    )


def _representations(otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Names of --representations, then those of --module."""
    given = _REPRESENTATIONS.value
    names = tuple(name.strip() for name in given or ())
    if _MODULE.value is not None:
        layers = None if _LAYER.value is None else [x.strip() for x in _LAYER.value]
        if layers is not None and not all(layers):
            raise Refusal(f"--layer={','.join(layers)}: a layer has no name")
        names += modules.names(_MODULE.value.strip(), layers)
    elif given is None:
        names = otherwise
    if not names or len(set(names)) < len(names):
        flag = "representations" if _MODULE.value is None else "layer"
        raise Refusal(f"--{flag}={','.join(names)}: empty, or names repeat")
    if not any(map(modules.is_module, names)):
        for holder in (_LAYER, _MEAN, _STD, _LAYOUT):
            if holder.value is not None:
                raise Refusal(
                    f"--{holder.name} is of --module, which is missing; networks of "
                    "invjax are in --representations=NETWORK/LAYER"
                )
    folders: dict[str, str] = {}
    for name in names:
        other = folders.setdefault(files.portable_name(name).lower(), name)
        if other != name:
            raise Refusal(
                f"--layer: {other} and {name} would have the same folder; invert them "
                "in two runs"
            )
    return names


def _numbers(name: str, words: list[str] | None) -> tuple[float, ...] | None:
    if words is None:
        return None
    try:
        # A fraction, since 1/255 is what people mean.
        return tuple(float(fractions.Fraction(word.strip())) for word in words)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise Refusal(
            f"--{name}={','.join(words)}: a number, or one per channel, is accepted"
        ) from None


def _has_classifier() -> bool:
    return "classifier" in flags.FLAGS


def _numbers_from_0(words: list[str]) -> tuple[float, ...]:
    """Numbers of a comma list; none where one of them is no number from 0 up."""
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        return ()
    are_good = all(math.isfinite(number) and number >= 0 for number in numbers)
    return numbers if are_good else ()


def _code_weights(words: list[str] | None) -> tuple[float, ...] | None:
    if words is None:
        return None
    numbers = _numbers_from_0(words)
    if not any(numbers):
        raise Refusal(
            f"--code_weights={','.join(words)}: a comma list of numbers from 0 up, not "
            "all 0, is accepted"
        )
    return numbers


def _weights(words: list[str] | None) -> tuple[float, ...] | None:
    if words is None:
        return None
    numbers = _numbers_from_0(words)
    # As they stand in file names.
    if not numbers or len({f"{number:g}" for number in numbers}) < len(numbers):
        raise Refusal(
            f"--tv_weight={','.join(words)}: a comma list of numbers from 0 up, "
            "different in six figures, is accepted"
        )
    return numbers
