"""Names of the 1000 classes of ImageNet-1k."""

import functools
from importlib import resources


@functools.cache
def class_names() -> tuple[str, ...]:
    """Names in the order of the logits of every network here (that of ILSVRC 2012).

    Each is the first word or phrase that WordNet has for the class, so two pairs of
    classes share a name: "crane" (bird, machine) and "maillot" (two bathing suits).
    """
    text = resources.files("invjax.networks").joinpath("class_names.txt").read_text()
    return tuple(text.splitlines())
