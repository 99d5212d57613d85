"""What `commands.convert` does: conversion, the listing, and pins for maintainers."""

import hashlib
import pathlib

from invjax.networks import NETWORKS
from invjax.networks.weights import (
    checkpoints,
    conversion,
    formats,
    forward_check,
    pretrained,
)
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.sources import published_files, sources


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
    params, preprocessing = formats.read(path, network)
    preprocessing = preprocessing or published_files()[name].preprocessing
    if preprocessing is None:
        raise ConversionError(f"{file}: does not say how images are preprocessed")
    check = forward_check.forward_values(network, params, preprocessing)
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
