"""Converts weight files: `python -m weights.convert`; see `invjax.commands.convert`."""

from invjax.commands import binary, convert

if __name__ == "__main__":
    binary.run(convert.main)
