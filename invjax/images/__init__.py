"""Images as arrays of pixels: reading, finding, resizing, colour and spectrum."""

from invjax.identity import code_id, image_id
from invjax.images.pixels import (
    ImageError,
    centre_crop,
    fit_short_side,
    quantise,
    stretch,
    to_grey,
    to_pillow,
)
from invjax.images.reading import read, write_png
from invjax.images.sources import (
    ABSTRACT,
    ENDINGS,
    SAMPLES,
    ImageSource,
    find,
    load,
    sample,
)

__all__ = [
    "ABSTRACT",
    "ENDINGS",
    "SAMPLES",
    "ImageError",
    "ImageSource",
    "centre_crop",
    "code_id",
    "find",
    "fit_short_side",
    "image_id",
    "load",
    "quantise",
    "read",
    "sample",
    "stretch",
    "to_grey",
    "to_pillow",
    "write_png",
]
