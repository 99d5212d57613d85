"""Drills: what goes wrong in large runs, made to go wrong on purpose."""
