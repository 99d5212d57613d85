"""Recorded codes, masks and starts are read from files, or refused in one line."""

import dataclasses
import io
import os
import pathlib
import pickle
import struct
import sys
import zipfile
from typing import Any

import h5py
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies

from invjax import callables, identity
from invjax.images import pixels
from invjax.representations import representation
from invjax.representations.joint import JointRepresentation
from invjax.runs import array_files, recorded
from invjax.runs.errors import Refusal
from tests.conftest import micro_representation
from tests.networks.weights import torch_makers
from tests.runs import made_up

CODE = np.random.default_rng(0).normal(size=(16, 16, 8)).astype(np.float32)
"""A code of the micro network's conv1."""


def _find(path: pathlib.Path, name: str = "micro/conv1", **values: Any) -> list:
    values = {"images": None, "code": str(path), "representations": (name,)} | values
    phi = micro_representation(name.rpartition("/")[2])
    return recorded.from_codes(values["code"], name, phi, made_up.settings(**values))


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


@pytest.mark.parametrize("known", ["mine:net/blocks.1/conv1", "blocks.1/conv1"])
@pytest.mark.parametrize("slash", ["/", "_"])
def test_a_layer_of_a_module_may_be_called_without_the_module(
    tmp_path: pathlib.Path, known: str, slash: str
):
    path, name = tmp_path / "several.npz", "mine:net/blocks.1/conv1"
    both = (name, "mine:net/conv2")
    arrays: dict[str, Any] = {known.replace("/", slash): CODE, "conv2": CODE + 1}
    np.savez(path, **arrays)
    for names in [(name,), both]:
        (target,) = _find(path, name, representations=names)
        np.testing.assert_array_equal(target.code, CODE)
    # What belongs to the other layer is not taken, nor a name of another kind.
    np.savez(path, conv2=CODE, conv1=CODE)
    with pytest.raises(Refusal, match=f"called {name} or blocks.1/conv1; it has"):
        _find(path, name, representations=both)
    np.savez(path, conv1=CODE, relu1=CODE + 1)
    assert "called micro/conv1; it has" in _refused(
        path, representations=("micro/conv1", "micro/relu1")
    )


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
    (target,) = recorded.from_codes(str(tmp_path / "one.npy"), name, phi, settings)
    assert phi(jnp.zeros(target.image_shape, jnp.float32)).shape == code.shape
    np.save(tmp_path / "two.npy", np.stack([code, code + 1]))
    found = recorded.from_codes(str(tmp_path / "two.npy"), name, phi, settings)
    assert [t.image_shape for t in found] == [target.image_shape] * 2
    np.save(tmp_path / "flat.npy", code.ravel())
    with pytest.raises(Refusal, match=rf"{name} codes are \(rows, columns, \d+\)"):
        recorded.from_codes(str(tmp_path / "flat.npy"), name, phi, settings)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (
            np.ones((5, 5)),
            "(5, 5), but micro/conv1 of an image of (32, 32, 3) has (16,",
        ),
        (np.ones((2, 16, 16, 9)), "several codes (n, 16, 16, 8)"),
        (np.ones((16, 8, 16)), "or with the channels first (8, 16, 16)"),
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


FIRST = np.moveaxis(CODE, -1, 0)
"""The same code as PyTorch has it."""


def _torch(tree: Any) -> Any:
    """A tree of arrays as one of PyTorch's tensors."""
    if isinstance(tree, np.ndarray):
        return torch_makers.tensor(tree)
    if isinstance(tree, dict):
        return {name: _torch(item) for name, item in tree.items()}
    return [_torch(item) for item in tree]


def _write(path: pathlib.Path, tree: Any) -> None:
    """Writes arrays in the format of the path's ending."""
    match path.suffix:
        case ".npy":
            np.save(path, tree)
        case ".npz":
            np.savez(path, **tree)
        case ".pt":
            path.write_bytes(torch_makers.torch_zip(_torch(tree)))
        case ".tar":
            path.write_bytes(torch_makers.torch_stream(_torch(tree)))
        case ".safetensors":
            contiguous = {n: np.ascontiguousarray(a) for n, a in tree.items()}
            safetensors.numpy.save_file(contiguous, path)
        case ".h5":
            with h5py.File(path, "w") as file:
                for name, array in tree.items():
                    file[name] = array


NAMED = (".npz", ".pt", ".tar", ".safetensors", ".h5")


@pytest.mark.parametrize("ending", NAMED)
@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"activation": CODE}, {"mine": CODE}),
        ({"activation": FIRST}, {"mine": CODE}),
        (
            {"code": np.stack([CODE, 2 * CODE])},
            {"mine_000": CODE, "mine_001": 2 * CODE},
        ),
        ({"micro_conv1": FIRST, "other": np.ones(3)}, {"mine": CODE}),
        ({"cat": FIRST, "dog": 2 * FIRST}, {"mine_cat": CODE, "mine_dog": 2 * CODE}),
        (
            {"a": FIRST[None], "b": 3 * FIRST[None]},
            {"mine_a": CODE, "mine_b": 3 * CODE},
        ),
    ],
)
def test_named_arrays_of_every_format(
    tmp_path: pathlib.Path, ending: str, tree: dict, expected: dict
):
    path = tmp_path / f"mine{ending}"
    _write(path, tree)
    found = {target.name: target.code for target in _find(path)}
    assert found.keys() == expected.keys()
    for name, code in expected.items():
        np.testing.assert_array_equal(found[name], code.astype(np.float32))


@pytest.mark.parametrize("ending", [".pt", ".tar"])
def test_tensors_without_names(tmp_path: pathlib.Path, ending: str):
    path = tmp_path / f"mine{ending}"
    _write(path, FIRST)
    (target,) = _find(path)
    assert target.name == "mine"
    np.testing.assert_array_equal(target.code, CODE)
    _write(path, [FIRST, 2 * FIRST])
    assert [target.name for target in _find(path)] == ["mine_0", "mine_1"]
    _write(path, {"layers": [FIRST, {"deep": 2 * FIRST}]})
    names = [target.name for target in _find(path)]
    assert names == ["mine_layers_0", "mine_layers_1_deep"]


def test_bfloat16_of_torch_is_read(tmp_path: pathlib.Path):
    rounded = CODE.astype(jnp.bfloat16)
    tensor = torch_makers.tensor(rounded, "BFloat16")
    (tmp_path / "mine.pt").write_bytes(torch_makers.torch_zip({"code": tensor}))
    (target,) = _find(tmp_path / "mine.pt")
    np.testing.assert_array_equal(target.code, rounded.astype(np.float32))


def test_that_channels_were_first_is_said(tmp_path: pathlib.Path, capsys: Any):
    np.save(tmp_path / "a.npy", FIRST)
    np.save(tmp_path / "b.npy", CODE)
    np.save(tmp_path / "c.npy", np.stack([FIRST] * 3))
    found = _find(tmp_path)
    assert [target.name for target in found] == ["a", "b", "c_000", "c_001", "c_002"]
    for target in found:
        np.testing.assert_array_equal(target.code, CODE)
    assert capsys.readouterr().out == (
        f"--code: channels are the first axis in {tmp_path / 'a.npy'} and 1 more; they "
        "were made the last\n"
    )


def test_an_order_that_fits_twice_is_not_guessed(tmp_path: pathlib.Path):
    phi = representation("hogb")
    code = np.random.default_rng(0).random((27, 5, 27)).astype(np.float32)
    path = tmp_path / "both.npy"
    np.save(path, code)

    def find(layout: str | None) -> Any:
        settings = made_up.settings(representations=("hogb",), code_layout=layout)
        return recorded.from_codes(str(path), "hogb", phi, settings)

    with pytest.raises(Refusal, match="say which: --code_layout=channels_last or"):
        find(None)
    np.testing.assert_array_equal(find("channels_last")[0].code, code)
    moved = np.moveaxis(code, 0, -1)
    np.testing.assert_array_equal(find("channels_first")[0].code, moved)
    # An order that is said is not overruled by the shape.
    np.save(path, CODE)
    assert "(16, 16, 8)" in _refused(path, code_layout="channels_first")


def test_files_are_listed_as_images_are(tmp_path: pathlib.Path):
    for place in ("x/one.npy", "y/one.npy", "y/two.npy", "y/.hidden.npy"):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        np.save(path, CODE)
    (tmp_path / "y" / "notes.txt").write_text("not an array")

    def names(spec: str) -> list[str]:
        return [recording.name for recording in array_files.find(spec)]

    assert names(f"{tmp_path}/y") == ["one", "two"]
    assert names(f"{tmp_path}/*/one.npy") == ["x/one", "y/one"]
    assert names(f"{tmp_path}/**/two.npy") == ["two"]
    assert names(f"{tmp_path}/x, {tmp_path}/y/two.npy") == ["one", "two"]
    found = _find(tmp_path, code=f"{tmp_path}/*/one.npy")
    assert [target.name for target in found] == ["x/one", "y/one"]
    np.save(tmp_path / "a,b.npy", CODE)
    assert names(f"{tmp_path}/a,b.npy") == ["a,b"]
    for spec, words in {
        f"{tmp_path}/y,{tmp_path}/y/one.npy": "a file is listed twice",
        f"{tmp_path}/z*.npy": "matches no file",
        f"{tmp_path}/y,": "an entry is empty",
    }.items():
        with pytest.raises(Refusal, match=words) as caught:
            array_files.find(spec)
        assert "\n" not in str(caught.value)


def test_two_codes_do_not_get_one_name(tmp_path: pathlib.Path):
    np.save(tmp_path / "a.npy", np.stack([CODE, CODE]))
    np.save(tmp_path / "a_001.npy", CODE)
    assert "two codes would be called a_001" in _refused(tmp_path)


def test_without_h5py_a_line_says_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    _write(tmp_path / "mine.h5", {"code": CODE})
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "needs h5py, which is not installed" in _refused(tmp_path / "mine.h5")


def _joint_targets(path: pathlib.Path, **values: Any) -> Any:
    parts = (micro_representation("fc3"), representation("hogb"))
    taken = (("micro/relu1", "micro/fc3"), ("hogb",))
    name = "micro/relu1+hogb+micro/fc3"
    settings = made_up.settings(images=None, code=str(path), representations=(name,))
    phi = JointRepresentation(parts, name, taken)
    return recorded.from_codes(
        str(path), name, phi, dataclasses.replace(settings, **values)
    )


def test_codes_of_several_layers_are_in_one_file(tmp_path: pathlib.Path):
    path = tmp_path / "mine.npz"
    arrays: dict[str, Any] = {
        "micro/relu1": np.moveaxis(np.stack([CODE, CODE + 1]), -1, 1),
        "hogb": np.ones((2, 4, 4, 27)),
        "micro_fc3": np.ones((2, 10)),
    }
    np.savez(path, **arrays)
    found = _joint_targets(path)
    assert [target.name for target in found] == ["mine_000", "mine_001"]
    assert found[0].image_shape == (32, 32, 3)
    assert found[1].code.keys() == {"micro/relu1", "hogb", "micro/fc3"}
    np.testing.assert_array_equal(found[1].code["micro/relu1"], CODE + 1)
    assert found[0].image_id != found[1].image_id
    np.savez(path, **arrays | {"hogb": np.ones((3, 4, 4, 27))})
    with pytest.raises(Refusal, match="numbers of codes differ: micro/relu1 2, hogb 3"):
        _joint_targets(path)
    del arrays["micro_fc3"]
    np.savez(path, **arrays)
    with pytest.raises(Refusal, match="no array is called micro/fc3; it has"):
        _joint_targets(path)


def test_shallow_codes_together_are_of_one_image(tmp_path: pathlib.Path):
    path = tmp_path / "mine.npz"
    phi: Any = representation("hogb+dsift")
    image = jnp.asarray(np.random.default_rng(0).random((64, 48, 1)), jnp.float32)
    np.savez(path, **array_files.named(phi(image)))
    settings = made_up.settings(images=None, representations=(phi.name,))
    (target,) = recorded.from_codes(str(path), phi.name, phi, settings)
    codes = callables.encode(phi, np.zeros(target.image_shape, np.float32))
    assert codes["dsift"].shape == target.code["dsift"].shape
    np.savez(path, hogb=np.ones((4, 4, 27)), dsift=np.ones((9, 9, 128)))
    with pytest.raises(Refusal, match="of images of different sizes, .*--image_size"):
        recorded.from_codes(str(path), phi.name, phi, settings)


def _masked(path: pathlib.Path, found: list, **values: Any) -> list:
    settings = made_up.settings(
        representations=("micro/conv1",), mask=str(path), **values
    )
    return recorded.with_masks(
        found, "micro/conv1", micro_representation("conv1"), settings
    )


def test_masks_are_for_all_in_order_or_by_name(tmp_path: pathlib.Path):
    np.save(tmp_path / "codes.npy", np.stack([CODE, CODE + 1]))
    found = _find(tmp_path / "codes.npy")
    half = np.zeros((16, 16, 1))
    half[:8] = 1
    mask = tmp_path / "mask.npy"
    np.save(mask, half)
    for target in _masked(mask, found):
        np.testing.assert_array_equal(target.mask, np.broadcast_to(half, CODE.shape))
    np.save(mask, np.stack([half, 1 - half]))
    first, second = _masked(mask, found)
    assert first.mask[0, 0, 0] == 1 and second.mask[0, 0, 0] == 0
    # Channels first, as the codes may have.
    np.save(mask, np.moveaxis(half, -1, 0))
    np.testing.assert_array_equal(_masked(mask, found)[0].mask[..., 0], half[..., 0])
    # One value per channel.
    np.save(mask, np.arange(8.0).reshape(1, 1, 8))
    assert _masked(mask, found)[0].mask[3, 4].tolist() == [*range(8)]
    folder = tmp_path / "masks"
    folder.mkdir()
    np.save(folder / "codes_001.npy", half)
    np.save(folder / "codes_000.npy", 1 - half)
    first, second = _masked(folder, found)
    assert first.mask[0, 0, 0] == 0 and second.mask[0, 0, 0] == 1
    assert second.is_zero() is False
    np.save(folder / "codes_001.npy", 0 * half)
    assert _masked(folder, found)[1].is_zero()


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.ones((3, 16, 16, 1)), "3 masks for 2 codes of micro/conv1"),
        (
            np.ones((15, 16, 8)),
            "shape (15, 16, 8), and the code of codes_000",
        ),
        (np.ones(8), "a mask has shape (8,)"),
        (np.full((16, 16, 1), np.nan), "holds values that are not finite"),
        (np.full((16, 16, 1), "a"), "is not numeric"),
    ],
)
def test_masks_that_do_not_fit_are_refused(
    tmp_path: pathlib.Path, mask: np.ndarray, words: str
):
    np.save(tmp_path / "codes.npy", np.stack([CODE, CODE + 1]))
    found = _find(tmp_path / "codes.npy")
    path = tmp_path / "mask.npy"
    np.save(path, mask)
    with pytest.raises(Refusal) as caught:
        _masked(path, found)
    message = str(caught.value)
    assert words in message and message.startswith(f"--mask={path}: ")
    assert "\n" not in message


def test_masks_by_name_have_to_be_there(tmp_path: pathlib.Path):
    np.save(tmp_path / "codes.npy", np.stack([CODE, CODE + 1]))
    found = _find(tmp_path / "codes.npy")
    folder = tmp_path / "masks"
    folder.mkdir()
    for name in ("codes_000", "other"):
        np.save(folder / f"{name}.npy", np.ones((16, 16, 1)))
    with pytest.raises(Refusal, match="none of the files is called codes_001"):
        _masked(folder, found)


def test_images_to_start_from(tmp_path: pathlib.Path):
    np.save(tmp_path / "codes.npy", np.stack([CODE, CODE + 1]))
    found = _find(tmp_path / "codes.npy")
    phi = micro_representation("conv1")

    def started(spec: pathlib.Path) -> list:
        settings = made_up.settings(initial_image=str(spec))
        return recorded.with_initial_images(found, phi, settings)

    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3)) / 255
    pixels.to_pillow(picture).save(tmp_path / "start.png")
    for target in started(tmp_path / "start.png"):
        np.testing.assert_allclose(target.initial, picture, atol=1e-6)
    # What --save_arrays writes, not clipped.
    np.savez(tmp_path / "start.npz", image=3 * picture, code=CODE)
    np.testing.assert_allclose(
        started(tmp_path / "start.npz")[0].initial, 3 * picture, atol=1e-6
    )
    folder = tmp_path / "starts"
    folder.mkdir()
    for name, image in {"codes_000": picture, "codes_001": 1 - picture}.items():
        pixels.to_pillow(image).save(folder / f"{name}.png")
    np.testing.assert_allclose(started(folder)[1].initial, 1 - picture, atol=1e-6)
    (folder / "codes_001.png").rename(folder / "other.png")
    with pytest.raises(Refusal, match="none of the images is called codes_001"):
        started(folder)
    np.savez(tmp_path / "start.npz", image=np.ones((16, 16, 3)))
    with pytest.raises(Refusal, match=r"an image of \(16, 16, 3\), but the image"):
        started(tmp_path / "start.npz")


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
        (b"1.0 2.0 3.0\n", "is of another kind"),
        (pickle.dumps([1, 2]), "it has none"),
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
        assert ".h5 files are accepted" in message or words == "it has none"
    assert "no such file" in _refused(tmp_path / "absent.npy")
    (tmp_path / "empty").mkdir()
    assert "the folder has no such file" in _refused(tmp_path / "empty")
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
        patch.setattr(array_files, "_MOST_BYTES", 2**31)
        assert "up to 2 GiB are read" in _refused(path)


VALID = [
    torch_makers.torch_zip({"code": torch_makers.tensor(CODE[:2, :2])}),
    torch_makers.torch_stream(torch_makers.tensor(CODE[:2, :2])),
    safetensors.numpy.save({"code": CODE[:2, :2].copy()}),
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
        recorded.from_codes(
            str(path), name, representation(name), made_up.settings(image_size=None)
        )


@FUZZ
@hypothesis.given(strategies.binary(max_size=60))
def test_members_of_an_archive_may_be_anything(folder: pathlib.Path, data: bytes):
    with zipfile.ZipFile(folder / "odd.npz", "w") as archive:
        archive.writestr("code.npy", data)
    _check(folder / "odd.npz")
