"""Settings, targets and records made up for the tests of what works on them."""

import dataclasses
from typing import Any, NoReturn

import numpy as np

from invjax import callables
from invjax.images import pixels
from invjax.networks.weights.pretrained import MissingWeights
from invjax.runs import loading
from invjax.runs.lanes import Group
from invjax.runs.records import Record
from invjax.runs.settings import Settings
from invjax.runs.targets import Target
from invjax.types import Representation

_SETTINGS = Settings(
    images="unused",
    code=None,
    representations=("unused",),
    preset="fast",
    num_steps=3,
    num_starts=1,
    tv_weight=None,
    alpha_weight=None,
    tolerance=None,
    dead_relu=None,
    image_size=None,
    resize="crop",
    batch_size=2,
    compute_dtype="float32",
    weights_dir=None,
    save_arrays=False,
    seed=0,
    smoke=False,
)
_RECORD = Record(
    image="one",
    representation="plain",
    start=0,
    seed=0,
    preset="fast",
    tv_weight=1.0,
    alpha_weight=1.0,
    status="budget",
    num_steps=1,
    dead_start=False,
    num_revivals=0,
    energy=1.0,
    objective=1.0,
    data_term=1.0,
    alpha_term=0.0,
    tv_term=0.0,
)


def no_weights(**_: object) -> NoReturn:
    """In place of what loads weights, where there are none."""
    raise MissingWeights("none")


def settings(**values: Any) -> Settings:
    """Settings of a run without flags: three steps, one start, two lanes at once."""
    return dataclasses.replace(_SETTINGS, **values)


def record(**values: Any) -> Record:
    """A record of a lane that took one step."""
    return dataclasses.replace(_RECORD, **values)


def images(names: tuple[str, ...] = ("one", "two")) -> dict[str, np.ndarray]:
    """Pictures of coloured tiles, [32, 32, 3], by name."""
    generator = np.random.default_rng(0)
    tiles = [generator.uniform(size=(4, 4, 3)).astype(np.float32) for _ in names]
    return {
        name: np.kron(coarse, np.ones((8, 8, 1), np.float32))
        for name, coarse in zip(names, tiles, strict=True)
    }


def group(
    phi: Representation, name: str, names: tuple[str, ...] = ("one", "two")
) -> Group:
    """The targets of a representation of 32 x 32 colour images.

    Args:
      phi: the representation, by which the targets are encoded as it is.
      name: name of the representation.
      names: names of the images.
    """
    found = [
        Target(
            image_name,
            pixels.image_id(image),
            image,
            np.asarray(callables.encode(phi, image)),
            (32, 32, 3),
        )
        for image_name, image in images(names).items()
    ]
    return loading.group_of(name, phi, found, settings=_SETTINGS)
