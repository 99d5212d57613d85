"""`python -m weights.convert` in a checkout; see `invjax.commands.convert`."""

from invjax.commands import binary, convert

if __name__ == "__main__":
    binary.run(convert.main, module=convert)
