"""invjax: from the code of an image back to the images that have it."""

import importlib.metadata

from invjax.identity import lane_key
from invjax.inversion.api import invert, invert_batch, invert_stream
from invjax.inversion.execution import Execution
from invjax.inversion.result import Result
from invjax.representations import (
    RepresentationInfo,
    list_representations,
    representation,
)

__version__ = importlib.metadata.version("invjax")

__all__ = [
    "Execution",
    "RepresentationInfo",
    "Result",
    "__version__",
    "invert",
    "invert_batch",
    "invert_stream",
    "lane_key",
    "list_representations",
    "representation",
]
