"""The folder of a checkout's converted checkpoints, and `python -m weights.convert`."""
