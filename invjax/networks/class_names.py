"""Names of the 1000 classes of ImageNet-1k."""

import functools
from importlib import resources


@functools.cache
def class_names() -> tuple[str, ...]:
    """The 1000 class names in the order of ILSVRC 2012.

    The thousand logits of every network in `NETWORKS` are in this order. A name is the
    first word or phrase that WordNet has for the class, so two pairs of classes share
    one: "crane" (bird, machine) and "maillot" (two bathing suits).

    Examples:
      >>> class_names()[285]
      'Egyptian cat'
    """
    text = resources.files("invjax.networks").joinpath("class_names.txt").read_text()
    return tuple(text.splitlines())
