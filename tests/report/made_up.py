"""Records of lanes made up for the tests of the gallery."""

from typing import Any


def record(**changes: Any) -> dict[str, Any]:
    """A line of metrics.jsonl, of a lane that took all its steps."""
    return {
        "image": "cat",
        "representation": "alexnet/relu1",
        "start": 0,
        "seed": 12345,
        "preset": "fast",
        "tv_weight": 5.0,
        "alpha_weight": 2.16e-8,
        "status": "budget",
        "num_steps": 400,
        "dead_start": False,
        "energy": 0.0743123,
        "objective": 0.081,
        "data_term": 0.004,
        "alpha_term": 1.2e-6,
        "tv_term": 0.03,
        "relative_error": 0.0712,
        "normalised_error": 0.0934,
        "psnr": 23.13,
        "ssim": 0.7124,
        "lpips": 0.3216,
        "seconds": 12.34,
    } | changes
