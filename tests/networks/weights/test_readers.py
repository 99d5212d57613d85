"""Weight files are read as arrays, and code in them is never run."""

import os
import pathlib
import pickle
from typing import Any

import numpy as np
import pytest

from invjax.networks.weights import readers
from invjax.networks.weights.readers import UnreadableWeights


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


class _Imported:
    """Asks for a harmless global, which is refused as well."""

    def __reduce__(self) -> Any:
        return len, ((),)


def _refused(path: pathlib.Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UnreadableWeights) as caught:
        readers.read_pickle(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_arrays_come_back(tmp_path: pathlib.Path) -> None:
    tree: dict[str, Any] = {
        "a": {"b": np.arange(6.0).reshape(2, 3)},
        "c": np.arange(3, dtype="<i4"),
    }
    path = tmp_path / "weights.ckpt"
    for protocol in (3, 4):
        path.write_bytes(pickle.dumps(tree, protocol))
        found = readers.read_pickle(path)
        np.testing.assert_array_equal(found["a"]["b"], tree["a"]["b"])
        np.testing.assert_array_equal(found["c"], tree["c"])


def test_a_truncated_pickle_is_refused(tmp_path: pathlib.Path) -> None:
    data = pickle.dumps({"a": np.arange(100.0)})
    for length in (0, 1, len(data) // 2, len(data) - 1):
        _refused(tmp_path / "short.ckpt", data[:length])


@pytest.mark.parametrize(
    ("item", "named"), [(_Evil(), "system"), (_Imported(), "builtins.len")]
)
def test_a_pickle_that_asks_for_a_global_is_refused(
    tmp_path: pathlib.Path, item: object, named: str
) -> None:
    assert named in _refused(tmp_path / "evil.ckpt", pickle.dumps({"a": item}))


def test_os_system_is_never_called(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    data = pickle.dumps({"a": _Evil()})
    monkeypatch.setattr(os, "system", calls.append)
    _refused(tmp_path / "evil.ckpt", data)
    assert calls == []


@pytest.mark.parametrize(
    "tree", [{"a": {"b": "text"}}, {"a": [np.ones(2)]}, {"a": np.array(["x"])}, 3]
)
def test_anything_but_numeric_arrays_is_refused(
    tmp_path: pathlib.Path, tree: object
) -> None:
    message = _refused(tmp_path / "odd.ckpt", pickle.dumps(tree))
    assert "no numeric array" in message


def test_object_arrays_are_refused(tmp_path: pathlib.Path) -> None:
    array = np.array([None, 1], object)
    _refused(tmp_path / "objects.ckpt", pickle.dumps({"a": array}))
