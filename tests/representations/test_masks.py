"""Masks: the paper's indices, and what is refused."""

import jax
import numpy as np
import pytest

import invjax
from invjax.networks import NETWORKS, layers
from invjax.networks.receptive_fields import Window
from invjax.representations import masks
from tests.conftest import micro_representation

# CVPR 2015: first and last place of the central 5 x 5 patch, counted from 1.
CENTRES = {
    "conv1": (26, 30),
    "mpool1": (12, 16),
    "norm2": (5, 9),
    "conv5": (5, 9),
    "mpool5": (1, 5),
}


@pytest.mark.parametrize(("layer", "ends"), CENTRES.items())
def test_central_patch_has_the_paper_s_indices(layer, ends):
    network = NETWORKS["caffenet"]
    (row,) = (
        row
        for row in layers.geometry(network.layers, network.image_shape)
        if row.name == layer
    )
    first, last = (end - 1 for end in ends)
    window = masks.central_window(row.shape)
    assert window == (first, first, last, last)
    mask = masks.central_patch(row.shape)
    assert mask.shape == (*row.shape[:2], 1)
    assert mask.dtype == np.float32
    assert mask.sum() == 25
    assert mask[first : last + 1, first : last + 1].all()


def test_central_patch_of_a_smaller_code_is_all_of_it():
    assert masks.central_window((3, 8, 2), size=5) == (0, 1, 2, 5)
    assert masks.central_patch((3, 3, 2)).all()


def test_channel_groups_share_nothing_and_leave_nothing():
    first, second = (masks.channel_group((55, 55, 96), n) for n in (1, 2))
    assert first.shape == (1, 1, 96)
    assert first[0, 0, :48].all() and not first[0, 0, 48:].any()
    np.testing.assert_array_equal(first + second, 1)
    thirds = [masks.channel_group((8,), n, num_groups=3) for n in (1, 2, 3)]
    np.testing.assert_array_equal(sum(thirds), np.ones(8))
    assert [int(part.sum()) for part in thirds] == [2, 3, 3]


def test_masks_multiply_to_their_intersection():
    shape = (7, 9, 4)
    both = masks.patch(shape, Window(1, 2, 3, 4)) * masks.channels(shape, [3])
    assert both.shape == shape
    assert both.sum() == 9
    assert both[1:4, 2:5, 3].all()


def test_features_off_the_mask_are_free(key):
    phi = micro_representation("relu1")
    code = phi(jax.random.uniform(key, (32, 32, 3)))
    mask = masks.central_patch(code.shape, size=3)
    other = code + 5.0 * (1 - mask)
    first, second = (
        invjax.invert(key, target, phi, num_steps=3, mask=mask).image
        for target in (code, other)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: masks.central_patch((4096,)), "has no patch"),
        (lambda: masks.central_patch((5, 5, 2), size=0), "size is 0"),
        (lambda: masks.patch((10,), Window(0, 0, 0, 0)), "no places"),
        (lambda: masks.patch((5, 5, 2), Window(0, 0, 5, 4)), "not inside"),
        (lambda: masks.patch((5, 5, 2), Window(3, 0, 2, 4)), "not inside"),
        (lambda: masks.channel_group((5, 5, 8), 0), "group 0"),
        (lambda: masks.channel_group((5, 5, 8), 3), "1 to 2"),
        (lambda: masks.channel_group((5, 5, 1), 1), "num_groups is 2"),
        (lambda: masks.channel_group((5, 8), 1), "no channels"),
        (lambda: masks.channels((5, 5, 8), []), "no channels are chosen"),
        (lambda: masks.channels((5, 5, 8), [0, 8]), "0 to 7"),
        (lambda: masks.channels((5, 5, 8), [-1]), "0 to 7"),
        (lambda: masks.channels((5, 5, 8), [1, 1]), "twice"),
    ],
)
def test_refusals_are_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
