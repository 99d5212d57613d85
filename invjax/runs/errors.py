"""Errors that a user is told in one line, without a traceback."""

from invjax.images.pixels import ImageError
from invjax.networks.weights.checkpoints import DamagedCheckpoint
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.pretrained import MissingWeights, WrongWeights
from invjax.networks.weights.readers import MissingReader, UnreadableWeights


class Refusal(Exception):
    """What was asked cannot be done; the message is one line that says why."""


EXPECTED = (
    Refusal,
    ImageError,
    DamagedCheckpoint,
    ConversionError,
    MissingWeights,
    WrongWeights,
    MissingReader,
    UnreadableWeights,
)
