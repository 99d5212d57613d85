"""Masks: the features of a code that the objective compares; the others are free.

A mask is float32, 1 where a feature counts and 0 where it is free. It has the rank of
the code, with length 1 along axes on which it does not depend, so that it broadcasts
against the code. The product of two masks is their intersection. Codes are
[rows, columns, channels], or [channels] after a dense or globally pooled layer.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from invjax.networks.receptive_fields import Window, check_inside

Mask = Float32[np.ndarray, "..."]


def central_window(code_shape: Sequence[int], *, size: int = 5) -> Window:
    """Returns the central size x size positions of a code (CVPR 2015, Figure 9).

    Along each side these are n = min(size, side) positions from the one numbered
    ceil((side - n + 1) / 2), counting from 1. Where the margin is odd, the extra
    position is at the end, as in the released code.

    Args:
      code_shape: (rows, columns, channels).
      size: side of the window, in positions.

    Raises:
      ValueError: the code has no rows and columns, or the size is below 1.

    Examples:
      >>> central_window((13, 13, 384))
      Window(top=4, left=4, bottom=8, right=8)
    """
    if len(code_shape) != 3:
        raise ValueError(
            f"a code of shape {tuple(code_shape)} has no patch; one of shape (rows, "
            "columns, channels) is accepted"
        )
    if size < 1:
        raise ValueError(f"size is {size}; at least 1 is accepted")
    (top, bottom), (left, right) = (_middle(side, size) for side in code_shape[:2])
    return Window(top, left, bottom, right)


def central_patch(code_shape: Sequence[int], *, size: int = 5) -> Mask:
    """Returns a mask with ones in `central_window`: [rows, columns, 1].

    Raises:
      ValueError: as in `central_window`.
    """
    return patch(code_shape, central_window(code_shape, size=size))


def patch(code_shape: Sequence[int], window: Window) -> Mask:
    """Returns a mask with ones in a window, for all channels: [rows, columns, 1].

    Args:
      code_shape: (rows, columns, channels).
      window: rows and columns of the code.

    Raises:
      ValueError: the window is not inside the code, or the code has no rows and
        columns.

    Examples:
      >>> patch((5, 5, 8), Window(1, 1, 3, 3)).sum().item()
      9.0
    """
    check_inside(window, tuple(code_shape))
    mask = np.zeros((*code_shape[:2], 1), np.float32)
    mask[window.top : window.bottom + 1, window.left : window.right + 1] = 1
    return mask


def channel_group(
    code_shape: Sequence[int], number: int, *, num_groups: int = 2
) -> Mask:
    """Returns a mask with ones in one contiguous group of channels.

    These are the groups of CVPR 2015, Figure 10. No channel is in two groups, and group
    sizes differ by at most one. (Where the number of channels is odd, the released code
    rounds both halves up, so that both contain the middle channel.)

    Args:
      code_shape: (rows, columns, channels) or (channels,).
      number: number of the group, from 1 as in the paper.
      num_groups: number of groups; the paper's AlexNet has filters in 2 groups.

    Returns:
      [1, 1, channels] or [channels].

    Raises:
      ValueError: there is no such group, or there are fewer channels than groups.

    Examples:
      >>> channel_group((4,), 2)
      array([0., 0., 1., 1.], dtype=float32)
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
    """Returns a mask with ones in the given channels.

    Args:
      code_shape: (rows, columns, channels) or (channels,).
      indices: the channels, from 0.

    Returns:
      [1, 1, channels] or [channels].

    Raises:
      ValueError: an index is out of range or occurs twice, or there is none.

    Examples:
      >>> channels((4,), [0, 2])
      array([1., 0., 1., 0.], dtype=float32)
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
