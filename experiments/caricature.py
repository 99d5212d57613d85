"""Exaggerates photographs: `python -m experiments.caricature`.

See `invjax.commands.caricature`.
"""

from invjax.commands import binary, caricature

if __name__ == "__main__":
    binary.run(caricature.main, module=caricature)
