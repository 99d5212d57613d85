"""Binaries, one per table or figure: `python -m experiments.NAME --workdir=...`."""
