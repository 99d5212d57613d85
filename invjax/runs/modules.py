"""Networks and functions that a command line names by where Python finds them.

"my_models:resnet/layer3" is the layer `layer3` of what `resnet` of the module
`my_models` is, or returns. Modules are found as `python -m` finds them, in the current
folder first.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from invjax.representations import bridges
from invjax.representations.bridges import BridgedRepresentation, LayerInfo
from invjax.representations.cnn import CnnRepresentation
from invjax.runs.errors import Refusal
from invjax.runs.settings import Settings
from invjax.types import Representation

SIDE = 224
"""Side in pixels of the images of a network, where --image_size does not say it."""

_ACCEPTED = "MODULE:CALLABLE is accepted, such as my_models:resnet"
_PLACE = re.compile(r"(?!.*\.py$)[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_module(name: str) -> bool:
    """Whether the name of a representation is one of this kind.

    Examples:
      >>> is_module("my_models:resnet/layer3"), is_module("alexnet/relu1")
      (True, False)
    """
    return ":" in name


def names(module: str, layers: Sequence[str] | None) -> tuple[str, ...]:
    """Names of representations, as they stand in records.

    Args:
      module: value of --module.
      layers: values of --layer; None for the output of the network.

    Raises:
      Refusal: `module` is not of the form MODULE:CALLABLE.

    Examples:
      >>> names("my_models:resnet", ["layer2", "layer3"])
      ('my_models:resnet/layer2', 'my_models:resnet/layer3')
      >>> names("my_models:rows", None)
      ('my_models:rows',)
    """
    place, _, attribute = module.partition(":")
    if not _PLACE.fullmatch(place) or not _PLACE.fullmatch(attribute):
        # Of a file's path, what an import says of it.
        dotted = place.removesuffix(".py").replace("/", ".").strip(".")
        is_path = dotted != place and _PLACE.fullmatch(dotted)
        hint = f"; write {dotted}:{attribute or 'resnet'}" if is_path else ""
        raise Refusal(f"--module={module}: {_ACCEPTED}{hint}")
    return (module,) if layers is None else tuple(f"{module}/{x}" for x in layers)


def load(name: str, settings: Settings) -> Representation:
    """Loads the representation of such a name.

    The callable is called once in a process, however many layers are asked for.

    Args:
      name: see `names`.
      settings: settings of the run; its mean, std and layout are those of the network.

    Raises:
      Refusal: there is no such module, callable or layer, it raises an error, or what
        it returns is not accepted.
    """
    module, _, layer = name.partition("/")
    names(module, None)
    flag = _flag(module, layer)
    if settings.compute_dtype != "float32":
        raise Refusal(
            f"--compute_dtype={settings.compute_dtype}: {module} computes in its own "
            "type; float32 is accepted"
        )
    network = _network(module)
    side = settings.image_size or SIDE
    colours = {"mean": settings.mean, "std": settings.std}
    given: dict[str, Any] = {
        key: value if len(value) > 1 else value[0]
        for key, value in colours.items()
        if value is not None
    }
    given |= {} if settings.layout is None else {"layout": settings.layout}
    if isinstance(network, BridgedRepresentation | CnnRepresentation):
        return _named(network, name, [*given, *(["layer"] if layer else [])])
    try:
        phi = bridges.bridge(
            network,
            layer=layer or None,
            image_shape=(side, side, 3),
            name=module,
            **given,
        )
    except (ValueError, ImportError) as error:
        hint = "; --image_size says another" if "image_shape" in str(error) else ""
        raise Refusal(f"{flag}: {' '.join(str(error).split())}{hint}") from None
    except Exception as error:
        raise Refusal(f"{flag}: calling it {_raised(error)}") from None
    return dataclasses.replace(phi, name=name)


def list_layers(
    module: str, *, image_size: int | None, layout: str | None
) -> list[LayerInfo]:
    """Lists the layers of what --module names, in the order of calls.

    Args:
      module: value of --module.
      image_size: side of the image in pixels; None for `SIDE`.
      layout: order of axes in which the network takes it; None for its framework's.

    Raises:
      Refusal: as `load`.
    """
    network = _network(module)
    if isinstance(network, BridgedRepresentation | CnnRepresentation):
        return []
    side = image_size or SIDE
    try:
        return bridges.list_layers(network, image_shape=(side, side, 3), layout=layout)
    except (ValueError, ImportError) as error:
        raise Refusal(f"{_flag(module, '')}: {' '.join(str(error).split())}") from None


def _flag(module: str, layer: str) -> str:
    return f"--module={module}" + (f" --layer={layer}" if layer else "")


def _named(
    phi: BridgedRepresentation | CnnRepresentation, name: str, given: Sequence[str]
) -> Representation:
    """A representation that the callable has made itself, by the name of the run."""
    module = name.partition("/")[0]
    if given:
        raise Refusal(
            f"--{given[0]} means nothing with --module={module}, which returns "
            f"{phi.name}, cut and preprocessed already"
        )
    height, width, channels = phi.image_shape
    if height != width or channels != 3:
        raise Refusal(
            f"--module={module}: takes images of {list(phi.image_shape)}; squares with "
            "3 channels are accepted"
        )
    return dataclasses.replace(phi, name=name)


@functools.cache
def _network(module: str) -> Any:
    """What a callable returns, or the object itself where it is a network already."""
    flag = f"--module={module}"
    place, _, attribute = module.partition(":")
    found = _imported(place, flag)
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, _callables(found), n=3)
            hint = f"; close are {', '.join(close)}" if close else ""
            raise Refusal(f"{flag}: {place} has no {attribute}{hint}")
        found = getattr(found, part)
    if bridges.is_network(found):
        return found
    if not callable(found):
        raise Refusal(
            f"{flag}: is {_described(found)}; {bridges.ACCEPTED}, or a "
            "callable that returns one without arguments, is accepted"
        )
    if _takes_an_image(found):
        return found
    try:
        returned = found()
    except (Exception, SystemExit) as error:
        raise Refusal(f"{flag}: calling it {_raised(error, place)}") from None
    if not bridges.is_network(returned) and not callable(returned):
        raise Refusal(
            f"{flag}: returned {_described(returned)}; {bridges.ACCEPTED} is accepted"
        )
    return returned


def _imported(place: str, flag: str) -> Any:
    """The module of that name; one of the current folder before others."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    # Keras takes its backend when it is imported.
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or f"{place}.".find(f"{missing}.") != 0:
            raise Refusal(
                f"{flag}: importing {place} {_raised(error, place)}"
            ) from None
    own = [path.stem for path in pathlib.Path().glob("*.py")]
    close = difflib.get_close_matches(place, own, n=3)
    hint = f"; close are {', '.join(close)}" if close else ""
    raise Refusal(
        f"{flag}: no module {missing}, neither in the current folder nor "
        f"installed{hint}"
    )


def _takes_an_image(found: Any) -> bool:
    """Whether a callable has one argument that has to be given."""
    if inspect.isclass(found):
        return False
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return False
    places = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return 1 == sum(x.default is x.empty and x.kind in places for x in parameters)


def _callables(found: Any) -> list[str]:
    return [name for name, value in vars(found).items() if callable(value)]


def _raised(error: BaseException, place: str | None = None) -> str:
    """What an error says, in one line, and where in the user's module it was raised."""
    said = " ".join(str(error).split())[:300]
    where = ""
    module = sys.modules.get(place or "")
    path = getattr(module, "__file__", None) or f"{(place or '').replace('.', '/')}.py"
    for frame in traceback.extract_tb(error.__traceback__):
        if place and os.path.abspath(frame.filename) == os.path.abspath(path):
            where = f" ({os.path.basename(path)}, line {frame.lineno})"
    if isinstance(error, SystemExit):
        return f"ended the program{where}"
    return f"raised {type(error).__name__}{f': {said}' if said else ''}{where}"


def _described(thing: Any) -> str:
    if thing is None:
        return "None"
    kind = type(thing).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"
