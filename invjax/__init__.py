"""invjax: from the code of an image back to the images that have it."""

from invjax.engine import Execution
from invjax.inversion import invert, invert_batch, lane_key
from invjax.representations import (
    RepresentationInfo,
    list_representations,
    representation,
)
from invjax.results import Result

__all__ = [
    "Execution",
    "RepresentationInfo",
    "Result",
    "invert",
    "invert_batch",
    "lane_key",
    "list_representations",
    "representation",
]
