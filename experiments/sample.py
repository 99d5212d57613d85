"""Draws sets of images of a code: `python -m experiments.sample`.

See `invjax.commands.sample`.
"""

from invjax.commands import binary, sample

if __name__ == "__main__":
    binary.run(sample.main, module=sample)
