"""The command `invjax`: chooses a command, and imports only that one.

Commands define the same flags, which absl refuses within one process.
"""

import importlib
import sys

from invjax import spelling
from invjax.commands import binary

COMMANDS = {
    "invert": "Inverts the codes of photographs, or codes you recorded.",
    "sample": "Samples the images that have a code, and measures how different they "
    "are.",
    "maximise": "Finds pictures that excite a neuron, or a class, most.",
    "caricature": "Exaggerates in photographs what a layer responds to.",
    "convert": "Converts a weight file into a checkpoint that invjax can load.",
}
"""The commands, and what each does: the first line of its module's docstring."""

_USAGE = """\
invjax finds images that have a given code: HOG, dense SIFT or a layer of a network.

  invjax COMMAND --flag=value ...

{commands}

Begin with

  invjax invert --workdir=runs/first

and open runs/first/index.html. invjax COMMAND --help says what a command takes."""


def main() -> None:
    """Runs the command that the command line names; exits with its exit code."""
    given = sys.argv[1:]
    if not given or given[0] in ("--help", "-help", "-h", "help"):
        print(usage())
        sys.exit(0 if given else 2)
    if given[0] == "--version":
        print(importlib.import_module("invjax").__version__)
        sys.exit(0)
    name, *rest = given
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(
            f"invjax: unknown command {name!r}; there are {known}"
            f"{spelling.hint(name, COMMANDS)}",
            file=sys.stderr,
        )
        sys.exit(2)
    # As the command line that errors and config.json name.
    sys.argv = [f"invjax {name}", *rest]
    module = importlib.import_module(f"invjax.commands.{name}")
    binary.run(module.main, module=module)


def usage() -> str:
    """What `invjax --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{purpose}" for name, purpose in COMMANDS.items()]
    return _USAGE.format(commands="\n".join(lines))
