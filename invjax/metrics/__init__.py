"""Metrics: how good, how different and how natural images and codes are."""
