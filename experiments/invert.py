"""Inverts codes: `python -m experiments.invert`; see `invjax.commands.invert`."""

from invjax.commands import binary, invert

if __name__ == "__main__":
    binary.run(invert.main, module=invert)
