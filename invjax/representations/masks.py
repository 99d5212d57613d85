"""The mask M of the objective: which features of a code count, the others being free.

Masks are float32, one or zero, of the code's rank with ones for the axes they do not
depend on, so that they broadcast against the code; two of them multiply to their
intersection. Codes are [rows, columns, channels], or [channels] where a dense or
pooled layer has left no places.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from invjax.networks.receptive_fields import Window, check_inside

Mask = Float32[np.ndarray, "..."]


def central_window(code_shape: Sequence[int], *, size: int = 5) -> Window:
    """The size x size places in the middle of a code (CVPR 2015, Figure 9).

    Of a side, n = min(size, side) places from ceil((side - n + 1) / 2), counted from 1:
    where the margin is odd, the extra place is at the end, as in the released code.

    Raises:
      ValueError: a code without places, or a size below 1.
    """
    if len(code_shape) != 3:
        raise ValueError(
            f"a code of shape {tuple(code_shape)} has no patch; one of shape (rows, "
            "columns, channels) is accepted"
        )
    if size < 1:
        raise ValueError(f"size is {size}; a patch has at least one place a side")
    (top, bottom), (left, right) = (_middle(side, size) for side in code_shape[:2])
    return Window(top, left, bottom, right)


def central_patch(code_shape: Sequence[int], *, size: int = 5) -> Mask:
    """Ones in `central_window`, in all channels: [rows, columns, 1]."""
    return patch(code_shape, central_window(code_shape, size=size))


def patch(code_shape: Sequence[int], window: Window) -> Mask:
    """Ones in a window of places, in all channels: [rows, columns, 1].

    Raises:
      ValueError: the window is not inside the code, or the code has no places.
    """
    check_inside(window, tuple(code_shape))
    mask = np.zeros((*code_shape[:2], 1), np.float32)
    mask[window.top : window.bottom + 1, window.left : window.right + 1] = 1
    return mask


def channel_group(
    code_shape: Sequence[int], number: int, *, num_groups: int = 2
) -> Mask:
    """Ones in one of the contiguous groups of channels (CVPR 2015, Figure 10).

    Groups share no channel, and their sizes differ by at most one. (For an odd count
    the released code's halves, rounded up, both have the channel in the middle.)

    Args:
      code_shape: of the code.
      number: 1 for the first group, as the paper counts.
      num_groups: 2 for the two streams of AlexNet.

    Returns:
      [1, 1, channels], or [channels] for a code without places.

    Raises:
      ValueError: there is no such group, or there are fewer channels than groups.
    """
    num_channels = _num_channels(code_shape)
    if not 1 <= num_groups <= num_channels:
        raise ValueError(
            f"num_groups is {num_groups}; from 1 to the {num_channels} channels is "
            "accepted"
        )
    if not 1 <= number <= num_groups:
        raise ValueError(f"group {number}; 1 to {num_groups} is accepted")
    first = (number - 1) * num_channels // num_groups
    return channels(code_shape, range(first, number * num_channels // num_groups))


def channels(code_shape: Sequence[int], indices: Sequence[int] | np.ndarray) -> Mask:
    """Ones in the given channels, counted from 0: [1, 1, channels] or [channels].

    Raises:
      ValueError: an index is out of range or occurs twice, or there is none.
    """
    num_channels = _num_channels(code_shape)
    chosen = [int(index) for index in indices]
    if not chosen:
        raise ValueError("no channels are chosen; at least one index is accepted")
    if min(chosen) < 0 or max(chosen) >= num_channels:
        raise ValueError(
            f"channels {min(chosen)} to {max(chosen)} are chosen; the code has 0 to "
            f"{num_channels - 1}"
        )
    if len(set(chosen)) < len(chosen):
        raise ValueError("a channel is chosen twice; indices must differ")
    mask = np.zeros(num_channels, np.float32)
    mask[chosen] = 1
    return mask.reshape((1,) * (len(code_shape) - 1) + (num_channels,))


def _middle(side: int, size: int) -> tuple[int, int]:
    count = min(size, side)
    first = math.ceil((side - count + 1) / 2) - 1
    return first, first + count - 1


def _num_channels(code_shape: Sequence[int]) -> int:
    if len(code_shape) not in (1, 3):
        raise ValueError(
            f"a code of shape {tuple(code_shape)} has no channels to choose from; "
            "(rows, columns, channels) and (channels,) are accepted"
        )
    return code_shape[-1]
