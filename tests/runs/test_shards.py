"""Shards of units: what was written is read back, and damage is noticed."""

import json
import pathlib

import numpy as np
import pytest

from invjax.runs import shards
from invjax.runs.shards import DamagedShard, Entry, Shard
from invjax.runs.skipped import Skipped
from invjax.runs.units import Unit
from tests.runs import made_up

UNIT = Unit(number=3, kind=0, first=6, stop=8)
SHARD = Shard(
    [
        Entry(6, "one/hog/start_000", made_up.record(start=0).as_json()),
        Entry(7, "one/hog/start_001", made_up.record(start=1, energy=0.1).as_json()),
    ],
    [Skipped("ü", "a/ü.png", "no such file")],
    {"temperature": 1 / 3},
)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """The file of a shard."""
    shards.write(tmp_path, UNIT, "digest", SHARD)
    return tmp_path / "metrics" / "part-00000003.jsonl"


def test_what_was_written_is_read(tmp_path: pathlib.Path, path: pathlib.Path):
    assert shards.read(tmp_path, UNIT, "digest") == SHARD
    assert shards.present(tmp_path) == {3}
    assert shards.present(tmp_path / "elsewhere") == set()
    # Its lines are those of metrics.jsonl, and one more.
    *lines, last = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [e.record for e in SHARD.entries]
    assert json.loads(last)["lanes"] == [6, 7]
    assert list(shards.read_records(tmp_path)) == [e.record for e in SHARD.entries]


def test_any_damage_is_noticed(tmp_path: pathlib.Path, path: pathlib.Path):
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    places = generator.choice(len(whole), 60, replace=False)
    damaged = [whole[: int(place)] for place in places[:20]]
    for place in places[20:]:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(generator.integers(8))
        damaged.append(bytes(changed))
    lines = whole.splitlines(keepends=True)
    damaged += [lines[1] + lines[2], b"".join([*lines, lines[2]]), b"\0" * len(whole)]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(DamagedShard, match="part-00000003.jsonl: damaged") as found:
            shards.read(tmp_path, UNIT, "digest")
        assert found.value.unit == UNIT and "\n" not in str(found.value)
        assert list(shards.read_records(tmp_path)) == []
    path.unlink()
    with pytest.raises(DamagedShard, match="part-00000003.jsonl: missing"):
        shards.read(tmp_path, UNIT, "digest")


@pytest.mark.parametrize(
    ("unit", "run"), [(UNIT, "other"), (UNIT._replace(stop=9), "digest")]
)
def test_a_shard_of_another_run_or_unit_is_none(
    tmp_path: pathlib.Path, path: pathlib.Path, unit: Unit, run: str
):
    with pytest.raises(DamagedShard, match="another unit or run"):
        shards.read(tmp_path, unit, run)


def test_arrays_have_a_checksum(tmp_path: pathlib.Path):
    images = {0: np.ones((4, 4, 3), np.float32), 2: np.zeros((2, 2, 1), np.float32)}
    shards.write_arrays(tmp_path, UNIT, images)
    found = shards.read_arrays(tmp_path, UNIT)
    assert list(found) == [0, 2]
    np.testing.assert_array_equal(found[0], images[0])
    path = tmp_path / "metrics" / "part-00000003.npz"
    whole = bytearray(path.read_bytes())
    # Within the numbers of the first array.
    whole[250] ^= 4
    for data in (whole, whole[:300], b""):
        path.write_bytes(data)
        with pytest.raises(DamagedShard, match="npz: damaged"):
            shards.read_arrays(tmp_path, UNIT)
    shards.drop_arrays(tmp_path)
    with pytest.raises(DamagedShard, match="npz: missing"):
        shards.read_arrays(tmp_path, UNIT)


def test_they_are_assembled_once(tmp_path: pathlib.Path):
    both = [UNIT, Unit(4, 0, 8, 9)]
    other = Shard([Entry(8, "two", made_up.record(image="two").as_json())], [], {})
    shards.write(tmp_path, UNIT, "digest", SHARD)
    with pytest.raises(DamagedShard, match="part-00000004.jsonl: missing"):
        shards.assemble(tmp_path, both, "digest")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics"]
    shards.write(tmp_path, both[1], "digest", other)
    assert shards.assemble(tmp_path, both, "digest")
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [
        entry.record for entry in (*SHARD.entries, *other.entries)
    ]
    assert not shards.assemble(tmp_path, both[:1], "digest")
    assert (tmp_path / "metrics.jsonl").read_text() == text
    assert [record["image"] for record in shards.read_records(tmp_path)] == [
        *("one", "one", "two")
    ]
