"""Weights: the command lines around invjax.networks, and where checkpoints land."""
