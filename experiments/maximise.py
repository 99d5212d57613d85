"""Finds pictures that excite neurons: `python -m experiments.maximise`.

See `invjax.commands.maximise`.
"""

from invjax.commands import binary, maximise

if __name__ == "__main__":
    binary.run(maximise.main, module=maximise)
