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
from invjax.representations.bridges import (
    equinox_layers,
    from_equinox,
    from_keras,
    from_linen,
    from_nnx,
    from_torch,
    keras_layers,
    linen_layers,
    nnx_layers,
    torch_layers,
)

__version__ = importlib.metadata.version("invjax")

__all__ = [
    "Execution",
    "RepresentationInfo",
    "Result",
    "__version__",
    "equinox_layers",
    "from_equinox",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_torch",
    "invert",
    "invert_batch",
    "invert_stream",
    "keras_layers",
    "lane_key",
    "linen_layers",
    "list_representations",
    "nnx_layers",
    "representation",
    "torch_layers",
]
