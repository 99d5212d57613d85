"""A run whose folder is in a bucket, as fsspec has it: here in memory."""

import pathlib
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from invjax import files
from invjax.images import reading
from invjax.report import gallery
from invjax.report.gallery import GalleryImage, GalleryLane
from invjax.runs import shards
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.lanes import Lane
from invjax.runs.processes import Process
from tests.runs import made_up, test_resume
from tests.runs.test_resume import Machine

WORKDIR = "gs://bucket/runs/a"


class Bucket(MemoryFileSystem):
    """A bucket of objects, by the name of Google's."""

    protocol = ("gs", "gcs")
    store: dict[str, Any] = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("gs://"))

    def glob(self, path: str, *args: Any, **keywords: Any) -> list[str]:
        # As buckets say it: without a slash in front.
        return [name.lstrip("/") for name in super().glob(path, *args, **keywords)]


@pytest.fixture(autouse=True)
def bucket() -> Iterator[dict[str, Any]]:
    """The objects of a bucket that is empty at first."""
    cached = backend.fsspec_backend._get_filesystem
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    cached.cache_clear()
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    yield Bucket.store
    cached.cache_clear()
    fsspec.register_implementation("gcs", "gcsfs.GCSFileSystem", clobber=True)


machine = test_resume.machine
planned = test_resume.planned


def _go(workdir: Any, planned: list[Lane], process: Process | None = None) -> bool:
    return test_resume._go(workdir, planned, process)


def _objects(store: dict[str, Any]) -> dict[str, bytes]:
    return {
        name.removeprefix("/bucket/runs/a/"): item.getvalue()
        for name, item in store.items()
    }


def test_a_run_in_a_bucket(
    tmp_path: pathlib.Path,
    planned: list[Lane],
    machine: Machine,
    bucket: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
):
    assert _go(tmp_path / "whole", planned)
    whole = test_resume._files(tmp_path / "whole")
    workdir = files.located(WORKDIR)
    assert not _go(workdir, planned, Process(0, 2))
    first = _objects(bucket)
    assert "config.json" in first and "metrics.jsonl" not in first
    assert {name for name in first if name.endswith(".jsonl")} == {
        f"metrics/part-{number:08d}.jsonl" for number in (0, 2, 4, 6)
    }
    num_records = len(list(shards.read_records(WORKDIR)))
    assert num_records == len(list(shards.read_records(workdir))) > 0
    # A damaged one is done again.
    name = "/bucket/runs/a/metrics/part-00000002.jsonl"
    bucket[name].seek(5)
    bucket[name].write(b"#")
    assert _go(workdir, planned, Process(1, 2))
    found = _objects(bucket)
    for path, data in whole.items():
        if path not in ("metrics.jsonl", "shards", "config.json"):
            assert found[path] == data
    records = list(shards.read_records(WORKDIR))
    for record in records:
        del record["seconds"]
    assert records == whole["metrics.jsonl"]
    assert not [name for name in found if name.endswith(".npz")]
    capsys.readouterr()
    assert _go(workdir, planned)
    assert "finished already" in capsys.readouterr().out
    assert _objects(bucket) == found
    with pytest.raises(Refusal, match="--workdir=gs://bucket/runs/a: holds a run with"):
        _go(workdir, planned[:-1])
    RunFolder.claim(WORKDIR, overwrite=True)
    assert _objects(bucket) == {}


def test_the_gallery_of_a_bucket_has_means_over_starts(bucket: dict[str, Any]):
    folder = files.located("gs://bucket/run")
    lanes = []
    for start, grey in enumerate((0.2, 0.6)):
        path = f"r/start_{start:03d}.png"
        reading.write_png(folder / path, np.full((4, 4, 3), grey, np.float32))
        record = made_up.record(start=start).as_json()
        lanes.append(GalleryLane(record, path))
    gallery.write_gallery(
        folder,
        title="A run",
        command="",
        images=[GalleryImage("one", None)],
        lanes=lanes,
    )
    mean = reading.read(folder / "over_starts/one/plain_mean.png")
    np.testing.assert_allclose(mean, 0.4, atol=1 / 255)
    assert "over_starts/one/plain_mean.png" in (folder / "index.html").read_text()


def test_other_objects_are_left_alone(bucket: dict[str, Any]):
    files.write_whole("gs://bucket/runs/a/thesis.tex", "years of work")
    for overwrite in (False, True):
        with pytest.raises(Refusal, match="holds thesis.tex but no run"):
            RunFolder.claim(WORKDIR, overwrite=overwrite)
    with pytest.raises(Refusal, match="thesis.tex: not a folder"):
        RunFolder.claim(f"{WORKDIR}/thesis.tex", overwrite=False)
    assert _objects(bucket) == {"thesis.tex": b"years of work"}


def test_a_write_that_fails_leaves_the_old_object(bucket: dict[str, Any]):
    files.write_whole("gs://bucket/runs/a/b.txt", "old")
    with pytest.raises(RuntimeError), files.whole_file("gs://bucket/runs/a/b.txt") as f:
        f.write(b"half")
        raise RuntimeError
    assert not files.write_first("gs://bucket/runs/a/b.txt", "second")
    assert _objects(bucket) == {"b.txt": b"old"}
    files.remove("gs://bucket/runs/a/b.txt")
    assert _objects(bucket) == {}


@pytest.mark.parametrize("address", ["ftp://host/a", "memory://a", "gcs:// a", "://"])
def test_other_addresses_are_refused(address: str):
    with pytest.raises(Refusal, match=r"addresses that begin with gs://, s3://, az://"):
        RunFolder.claim(address, overwrite=False)


def test_what_is_not_installed_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ImportError("Please install gcsfs\nto access Google Storage")

    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", missing)
    with pytest.raises(Refusal, match="--workdir=gs://bucket/.*install gcsfs to acc"):
        RunFolder.claim(WORKDIR, overwrite=False)
