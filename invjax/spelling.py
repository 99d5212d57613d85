"""Guesses of what was meant by a name that is not known."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt word is nearest to, if any is near.

    Args:
      word: what was given. Capitals do not matter.
      known: the names that are accepted. Of "network/layer", the layer alone counts as
        near, and so does the beginning of a name.

    Examples:
      >>> nearest("alexnet/relu33", ["hog", "alexnet/relu3", "alexnet/relu4"])
      'alexnet/relu3'
      >>> nearest("Fast", ["fast", "adam"])
      'fast'
      >>> nearest("tv", ["tv_weight", "seed"])
      'tv_weight'
      >>> nearest("relu4_3", ["alexnet/relu4", "vgg16/relu4_3"])
      'vgg16/relu4_3'
      >>> nearest("banana", ["fast", "adam"]) is None
      True
    """
    by_lower = {name.lower(): name for name in known}
    word = word.lower()
    ends = [name for name in by_lower if word and name.endswith(f"/{word}")]
    alike = ends or difflib.get_close_matches(word, list(by_lower), n=1, cutoff=0.65)
    begins = [name for name in by_lower if len(word) > 1 and name.startswith(word)]
    found = alike or begins
    return by_lower[found[0]] if found else None


def hint(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: "; did you mean fast?", or nothing.

    Args:
      word: what was given.
      known: the names that are accepted.

    Examples:
      >>> hint("fst", ["fast", "adam"]), hint("banana", ["fast", "adam"])
      ('; did you mean fast?', '')
    """
    found = nearest(word, known)
    return "" if found is None else f"; did you mean {found}?"
