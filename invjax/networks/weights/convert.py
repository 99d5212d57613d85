"""What the command `invjax.commands.convert` does, without its flags.

`convert` converts a file, `listing` describes what is known and installed, and `pins`
prints entries for sources.toml.
"""

import hashlib
import pathlib

from invjax.networks import NETWORKS
from invjax.networks.weights import (
    checkpoints,
    formats,
    forward_check,
    pretrained,
)
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.preprocessing_choice import Given
from invjax.networks.weights.sources import published_files, sources


def convert(
    name: str,
    file: str | None,
    prototxt: str | None,
    weights_dir: pathlib.Path,
    *,
    given: Given | None = None,
) -> str:
    """Converts a network's weights into a checkpoint, `weights_dir`/NAME.

    Args:
      name: the network; one of `NETWORKS`.
      file: the weight file; None for the file of an installed package.
      prototxt: the text that belongs to a .caffemodel; None for other files.
      weights_dir: folder of converted checkpoints.
      given: what the user says about preprocessing.

    Returns:
      One line that says what was done and left out; a second one says which
      preprocessing was taken where neither the file nor the user says it.

    Raises: as `pretrained.convert_installed` and `pretrained.convert_file`.
    """
    network = NETWORKS[name]
    folder = weights_dir / name
    notes: tuple[str, ...] = ("",)
    lines = []
    if file is None:
        pretrained.convert_installed(network, folder)
    else:
        choice, left_out = pretrained.convert_file(
            network, file, folder, prototxt=prototxt, given=given
        )
        notes = ("", *left_out)
        if not choice.is_certain:
            lines.append(
                f"{name}: preprocessing {choice.say()}; if it is another one, convert "
                "again with --mean, --std and --channel_order"
            )
    converted = pretrained.available(network, weights_dir=weights_dir)
    last = [layer for layer in network.layer_names if layer in converted][-1]
    done = f"{name}: converted up to {last}, in {folder}{'; '.join(notes)}"
    return "\n".join([done, *lines])


def pins(name: str, file: str) -> str:
    """Lines of sources.toml that pin a weight file inside an installable package.

    Args:
      name: the network; one of `NETWORKS`.
      file: the weight file.

    Raises:
      conversion.ConversionError: the file does not fit the network, or neither it nor
        sources.toml says how images are preprocessed.
      OSError, readers.UnreadableWeights, readers.MissingReader: the file cannot be
        read.
    """
    network, path = NETWORKS[name], pathlib.Path(file)
    contents = formats.read(path, network)
    preprocessing = contents.preprocessing or published_files()[name].preprocessing
    if preprocessing is None:
        raise ConversionError(
            f"{file}: neither the file nor sources.toml says how images are "
            "preprocessed"
        )
    check = forward_check.forward_values(network, contents.params, preprocessing)
    return "\n".join(
        [
            f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"',
            f"forward_check = [{', '.join(f'{value:.7g}' for value in check)}]",
            "\n[source.tensors]",
            *(
                f'"{n}" = "{checkpoints.tensor_digest(tensor)}"'
                for n, tensor in contents.tensors().items()
            ),
        ]
    )


def listing(weights_dir: pathlib.Path) -> str:
    """Text that lists every network with its checkpoint, packages and weight file.

    Args:
      weights_dir: folder of converted checkpoints.
    """
    lines = [f"checkpoints in {weights_dir}"]
    for name, network in NETWORKS.items():
        lines += ["", f"{name} ({network.input_size} px)"]
        if checkpoints.exists(weights_dir / name):
            converted = pretrained.available(network, weights_dir=weights_dir)
            kept = [layer for layer in network.layer_names if layer in converted]
            state = f"up to {kept[-1]}" if kept else "damaged; delete its folder"
            lines.append(f"  checkpoint: {state}")
        else:
            lines.append("  checkpoint: none")
        for source in sources():
            if source.network == name:
                state = "not installed" if source.find() is None else "installed"
                lines.append(f"  package {source.package}: {state}")
                lines.append(f"    {source.origin}; {source.licence}")
                lines.append(f"    {source.install}")
        published = published_files()[name]
        if published.also:
            lines.append(f"  also called {', '.join(published.also)}")
        lines.append(f"  file {published.name}: all layers")
        lines.append(f"    {published.origin}; {published.licence}")
    return "\n".join(lines)
