"""The drill of large sets finds what is corrupt, in folders and in archives."""

import os

import pytest
from absl.testing import flagsaver

from experiments.drills import bad_files, large_sets
from invjax.runs.errors import Refusal


@pytest.mark.parametrize("as_archives", [False, True])
def test_a_set_is_measured_and_nothing_is_lost(tmp_path, monkeypatch, as_archives):
    monkeypatch.setattr(large_sets, "_ONE_IN", 4)
    monkeypatch.setattr(large_sets, "_PER_ARCHIVE", 17)
    monkeypatch.setattr(large_sets, "_PER_UNIT", 16)
    num = 4 * len(bad_files.KINDS)
    num_corrupt = large_sets.make_set(tmp_path, num, 16, as_archives=as_archives)
    assert num_corrupt == len(bad_files.KINDS)
    assert len(os.listdir(tmp_path)) == (3 if as_archives else num)
    found = large_sets.measure(str(tmp_path))
    assert (found["read"], found["skipped"]) == (num - num_corrupt, num_corrupt)
    assert found["peak_mib"] > 10


@pytest.mark.parametrize("sizes", [["many"], ["5"], ["2000", "-1"], [""]])
def test_sizes_that_are_none_are_refused(sizes):
    with flagsaver.flagsaver(num_images=sizes):
        with pytest.raises(Refusal, match="--num_images=.*are accepted"):
            large_sets.main()
