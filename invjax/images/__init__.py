"""Images as arrays of pixels: reading, finding, resizing, colour and spectrum."""

from invjax.identity import code_id
from invjax.images.pixels import (
    ImageError,
    centre_crop,
    fit_short_side,
    image_id,
    quantise,
    stretch,
    to_grey,
    to_pillow,
)
from invjax.images.reading import endings, read, write_png
from invjax.images.sources import (
    ABSTRACT,
    SAMPLES,
    ImageSource,
    find,
    load,
    sample,
)

__all__ = [
    "ABSTRACT",
    "SAMPLES",
    "ImageError",
    "ImageSource",
    "centre_crop",
    "code_id",
    "endings",
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
