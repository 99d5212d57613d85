"""Recorded codes are read from any .npy and .npz, or refused in one line."""

import io
import os
import pathlib
import pickle
import struct
import zipfile
from typing import Any

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from invjax import identity
from invjax.representations import representation
from invjax.runs import recorded, targets
from invjax.runs.errors import Refusal
from tests.conftest import micro_representation
from tests.runs import made_up

CODE = np.random.default_rng(0).normal(size=(16, 16, 8)).astype(np.float32)
"""A code of the micro network's conv1."""


def _find(path: pathlib.Path, name: str = "micro/conv1", **values: Any) -> list:
    values = {"images": None, "code": str(path), "representations": (name,)} | values
    phi = micro_representation(name.partition("/")[2])
    return targets.from_codes(str(path), name, phi, made_up.settings(**values))


def _refused(path: pathlib.Path, **values: Any) -> str:
    with pytest.raises(Refusal) as caught:
        _find(path, **values)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"--code={path}: ")
    return message


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", "int64", "uint8"])
@pytest.mark.parametrize("is_fortran", [False, True])
def test_every_real_type_and_order_is_the_same_code(
    tmp_path: pathlib.Path, dtype: str, is_fortran: bool
):
    code = np.round(8 * np.abs(CODE)).astype(dtype)
    path = tmp_path / "code.npy"
    np.save(path, np.asfortranarray(code) if is_fortran else code)
    (target,) = _find(path)
    assert target.name == "code" and target.original is None
    assert target.image_shape == (32, 32, 3)
    assert target.code.dtype == np.float32 and target.code.flags.c_contiguous
    np.testing.assert_array_equal(target.code, code.astype(np.float32))
    assert target.image_id == identity.code_id(code.astype(np.float32))
    # The run keeps its codes whatever becomes of the file.
    path.write_bytes(b"")
    np.testing.assert_array_equal(target.code, code.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        # What --save_arrays writes.
        ({"image": np.ones((32, 32, 3)), "code": CODE}, "code"),
        ({"code": CODE}, "code"),
        ({"arr_0": CODE}, "arr_0"),
        ({"activation": CODE}, "activation"),
        ({"micro/conv1": CODE, "code": CODE + 1}, "micro/conv1"),
        ({"micro_conv1": CODE, "micro/relu1": CODE + 1}, "micro_conv1"),
        # Only what is asked for is read, and objects never.
        ({"code": CODE, "names": np.array(["a", None], object)}, "code"),
    ],
)
def test_of_an_npz_the_code_is_taken_by_its_name(
    tmp_path: pathlib.Path, arrays: dict, wanted: str
):
    np.savez_compressed(tmp_path / "mine.npz", **arrays)
    (target,) = _find(tmp_path / "mine.npz")
    assert target.name == "mine"
    np.testing.assert_array_equal(target.code, arrays[wanted])


def test_which_array_is_meant_is_not_guessed(tmp_path: pathlib.Path):
    path = tmp_path / "several.npz"
    np.savez(path, first=CODE, second=CODE[0], third=np.array([None]))
    message = _refused(path)
    assert "no array is called micro/conv1 or code" in message
    assert "first (16, 16, 8), second (16, 8), third (Python objects)" in message
    # With several representations, "code" could be of any of them.
    np.savez(path, image=CODE, code=CODE)
    both = ("micro/conv1", "micro/relu1")
    message = _refused(path, representations=both)
    assert "called micro/conv1; it has image (16, 16, 8), code (16, 16, 8)" in message
    np.savez(path, code=CODE)
    assert "micro/conv1" in _refused(path, representations=both)
    np.save(tmp_path / "one.npy", CODE)
    assert "an .npz" in _refused(tmp_path / "one.npy", representations=both)
    np.savez(path)
    assert "it has none" in _refused(path)


@pytest.mark.parametrize(
    ("name", "shape", "number"),
    [
        ("micro/conv1", (3, 16, 16, 8), 3),
        ("micro/conv1", (1, 16, 16, 8), 1),
        ("micro/fc3", (12, 10), 12),
        ("micro/fc3", (10,), 1),
        # Not ten codes of one number, and not one of ten.
        ("micro/fc3", (10, 10), 10),
    ],
)
def test_an_axis_in_front_holds_several_codes(
    tmp_path: pathlib.Path, name: str, shape: tuple, number: int
):
    codes = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "mine.npy", codes)
    found = _find(tmp_path / "mine.npy", name)
    expected = [f"mine_{place:03d}" for place in range(number)]
    assert [t.name for t in found] == (expected if number > 1 else ["mine"])
    codes = codes.reshape(number, *found[0].code.shape).astype(np.float32)
    np.testing.assert_array_equal([target.code for target in found], codes)
    assert len({target.image_id for target in found}) == number


@pytest.mark.parametrize("name", ["hogb", "dsift"])
def test_shallow_codes_say_how_large_the_image_is(tmp_path: pathlib.Path, name: str):
    phi = representation(name)
    image = jnp.asarray(np.random.default_rng(0).random((40, 56, 1)), jnp.float32)
    code = np.asarray(phi(image))
    settings = made_up.settings(representations=(name,))
    np.save(tmp_path / "one.npy", code)
    (target,) = targets.from_codes(str(tmp_path / "one.npy"), name, phi, settings)
    assert phi(jnp.zeros(target.image_shape, jnp.float32)).shape == code.shape
    np.save(tmp_path / "two.npy", np.stack([code, code + 1]))
    found = targets.from_codes(str(tmp_path / "two.npy"), name, phi, settings)
    assert [t.image_shape for t in found] == [target.image_shape] * 2
    np.save(tmp_path / "flat.npy", code.ravel())
    with pytest.raises(Refusal, match=r"codes are \(rows, columns, values\)"):
        targets.from_codes(str(tmp_path / "flat.npy"), name, phi, settings)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (
            np.ones((5, 5)),
            "(5, 5), but micro/conv1 of an image of (32, 32, 3) has (16,",
        ),
        (np.ones((2, 16, 16, 9)), "several codes (n, 16, 16, 8)"),
        (np.ones((8, 16, 16)), "np.moveaxis(code, -3, -1)"),
        (np.ones((4, 8, 16, 16)), "np.moveaxis(code, -3, -1)"),
        (np.ones(()), "shape ()"),
        (np.ones((0, 16, 16, 8)), "holds no code"),
        (np.full((16, 16, 8), np.inf), "finite"),
        (np.full((16, 16, 8), True), "bool is not numeric"),
        (np.full((16, 16, 8), 1j), "complex128 is not numeric"),
        (np.full((16, 16, 8), b"\0\0", "V2"), "save bfloat16 as float32"),
        (np.full((16, 16, 8), None), "never unpickled"),
    ],
)
def test_what_is_no_code_is_refused(
    tmp_path: pathlib.Path, array: np.ndarray, words: str
):
    for path in (tmp_path / "code.npy", tmp_path / "code.npz"):
        if path.suffix == ".npy":
            np.save(path, array)
        else:
            np.savez(path, code=array)
        assert words in _refused(path)


def _bytes(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_files_that_cannot_be_read_are_refused(tmp_path: pathlib.Path):
    npy, npz = _npy(CODE), _bytes(code=CODE)
    # Headers are padded, so that a longer shape fits.
    huge = npy.replace(b"(16, 16, 8), }      ", b"(16, 999999999), }  ", 1)
    code = npz.replace(b"(16, 16, 8), }      ", b"(16, 999999999), }  ", 1)
    assert len(huge) == len(npy) and huge != npy and code != npz
    cases: list[tuple[bytes, str]] = [
        (b"", "is empty"),
        (b"1.0 2.0 3.0\n", "neither .npy nor .npz"),
        (pickle.dumps([1, 2]), "neither .npy nor .npz"),
        (npy[:1000], "not whole"),
        (npy[:20], "not whole"),
        (npz[:1000], "not whole"),
        (npz[:-30], "not whole"),
        (npz.replace(b"NUMPY", b"MUMPY"), "not whole"),
        (huge, "not whole"),
        (code, "not whole"),
    ]
    for number, (data, words) in enumerate(cases):
        path = tmp_path / f"{number}.npy"
        path.write_bytes(data)
        message = _refused(path)
        assert words in message, (number, message)
        assert "numpy.savez are accepted" in message
    assert "no such file" in _refused(tmp_path / "absent.npy")
    assert "is a folder" in _refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.npy")
    assert "is a pipe, socket or device" in _refused(tmp_path / "pipe.npy")


def test_an_archive_of_zeros_without_end_is_refused(tmp_path: pathlib.Path):
    path = tmp_path / "bomb.npz"
    path.write_bytes(_bytes(code=CODE))
    # The size that the archive's directory claims: 4 GiB less one, sixteen times.
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "_MOST_BYTES", 2**31)
        assert "up to 2 GiB are read" in _refused(path)


VALID = [
    _npy(CODE[:2, :2]),
    _npy(np.asfortranarray(CODE[:2, :2])),
    _npy(np.array(["a", None], object)),
    _bytes(code=CODE[:2, :2]),
    _bytes(image=CODE[:2, :2], code=CODE[:2]),
]
FUZZ = hypothesis.settings(max_examples=250, derandomize=True, deadline=None)


@strategies.composite
def damaged(draw: Any) -> bytes:
    """A valid file with some bytes changed, or cut off, or something put in."""
    data = bytearray(draw(strategies.sampled_from(VALID)))
    for _ in range(draw(strategies.integers(1, 4))):
        at = draw(strategies.integers(0, len(data) - 1))
        match draw(strategies.integers(0, 2)):
            case 0:
                data[at] = draw(strategies.integers(0, 255))
            case 1:
                data[at:at] = draw(strategies.binary(max_size=9))
            case _:
                del data[at : at + draw(strategies.integers(1, 99))]
        data = data or bytearray(b"P")
    return bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("fuzz")


def _check(path: pathlib.Path) -> None:
    try:
        found = _find(path)
    except Refusal as error:
        assert "\n" not in str(error) and str(error).startswith(f"--code={path}: ")
    else:
        assert all(target.code.shape == (16, 16, 8) for target in found)


@FUZZ
@hypothesis.given(
    strategies.binary(max_size=200),
    strategies.sampled_from([b"", b"\x93NUMPY\1\0", b"\x93NUMPY\2\0", b"PK\3\4"]),
    strategies.sampled_from(["a.npy", "a.npz", "a"]),
)
def test_any_bytes_are_refused_in_one_line(
    folder: pathlib.Path, data: bytes, start: bytes, name: str
):
    (folder / name).write_bytes(start + data)
    _check(folder / name)


@FUZZ
@hypothesis.given(damaged())
def test_damaged_files_are_refused_in_one_line(folder: pathlib.Path, data: bytes):
    (folder / "damaged.npz").write_bytes(data)
    _check(folder / "damaged.npz")


@FUZZ
@hypothesis.given(
    strategies.lists(strategies.integers(0, 5), max_size=5),
    strategies.sampled_from(["hogb", "dsift"]),
)
def test_any_shape_of_a_shallow_code_is_told(
    folder: pathlib.Path, shape: list[int], name: str
):
    path = folder / "shape.npy"
    np.save(path, np.ones(shape))
    with pytest.raises(Refusal, match=r"^--code=[^\n]*$"):
        targets.from_codes(
            str(path), name, representation(name), made_up.settings(image_size=None)
        )


@FUZZ
@hypothesis.given(strategies.binary(max_size=60))
def test_members_of_an_archive_may_be_anything(folder: pathlib.Path, data: bytes):
    with zipfile.ZipFile(folder / "odd.npz", "w") as archive:
        archive.writestr("code.npy", data)
    _check(folder / "odd.npz")
