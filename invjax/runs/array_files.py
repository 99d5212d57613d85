"""Arrays that a person recorded, from files of NumPy, PyTorch, safetensors and HDF5.

Objects are never unpickled, so that a file from elsewhere can do no harm. Whatever is
wrong with a file is said in one line.
"""

import glob
import os
import pathlib
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.lib import format as npy

from invjax import files
from invjax.images import naming
from invjax.networks.weights import file_kinds, pickles, readers, torch_format
from invjax.networks.weights.readers import MissingReader, UnreadableWeights
from invjax.runs import modules
from invjax.runs.errors import Refusal

_CODE = "code"
"""Name of the array that holds the code where --save_arrays writes one."""

_NPY, _ZIP = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06")
ENDINGS = (".npy", ".npz", ".pt", ".pth", ".safetensors", ".h5", ".hdf5")
"""Endings of files that are taken from a folder."""

_ACCEPTED = (
    ".npy and .npz of NumPy, .pt of PyTorch, .safetensors and .h5 files are accepted"
)
_MOST_BYTES = 2**34
"""A compressed file of a few megabytes may claim to hold any number of zeros."""
_MOST_SHOWN = 8
_DEEPEST = 32


class Recording(NamedTuple):
    """A file of recorded codes.

    Attributes:
      name: what its codes are called; names a folder of the results.
      path: the file.
    """

    name: str
    path: str


class Recorded(NamedTuple):
    """An array of a file.

    Attributes:
      name: name of the array in the file; empty where it is the only one that is meant.
      array: the array, of any real type.
    """

    name: str
    array: np.ndarray


class _Stored(NamedTuple):
    """An array in a file, which is read when it is asked for.

    Attributes:
      name: its name; empty for the only array of a file without names.
      shape: its shape; None where it does not consist of numbers.
      described: name and shape, as people are told.
      read: reads it.
    """

    name: str
    shape: tuple[int, ...] | None
    described: str
    read: Callable[[], np.ndarray]


def named(code: Any) -> dict[str, Any]:
    """The arrays of a code by the names under which `read` finds them in an .npz.

    Args:
      code: one array, or a dict of arrays by name of the representation.
    """
    if isinstance(code, dict):
        return {name.replace("/", "_"): part for name, part in code.items()}
    return {_CODE: code}


def find(spec: str, *, flag: str = "code") -> list[Recording]:
    """Lists the files of recorded arrays that a comma-separated list names.

    Files are called by their stems, and where these are equal by their paths, as images
    are.

    Args:
      spec: files, globs (`**` reaches into subfolders) and folders (every file directly
        inside with an ending of arrays, except hidden ones), separated by commas; or
        one file whose name has commas. A leading ~ is the home folder.
      flag: name of the flag that has the list, for messages.

    Raises:
      Refusal: an entry is empty or matches nothing, or a file is listed twice.
    """
    whole = os.path.expanduser(spec)
    entries = [whole] if os.path.isfile(whole) else spec.split(",")
    where = f"--{flag}={spec}"
    paths = [path for entry in entries for path in _expand(entry.strip(), where, flag)]
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise Refusal(f"{where}: a file is listed twice")
    places = []
    for path in paths:
        folder, file = os.path.split(os.path.abspath(path))
        stem = files.portable_name(pathlib.Path(file).stem)
        places.append(naming.Place(stem, folder, file))
    return list(map(Recording, naming.different(places), paths))


def _expand(entry: str, where: str, flag: str) -> list[str]:
    path = os.path.expanduser(entry)
    if not entry:
        raise Refusal(f"{where}: an entry is empty; {_ACCEPTED}")
    if os.path.isdir(path):
        inside = sorted(
            os.path.join(path, name)
            for name in os.listdir(path)
            if name.endswith(ENDINGS) and not name.startswith(".")
        )
        if not inside:
            raise Refusal(f"--{flag}={entry}: the folder has no such file; {_ACCEPTED}")
        return inside
    if glob.has_magic(path) and not os.path.exists(path):
        matched = sorted(filter(os.path.isfile, glob.glob(path, recursive=True)))
        if not matched:
            raise Refusal(f"--{flag}={entry}: matches no file")
        return matched
    return [path]


def read(
    path: str,
    name: str,
    *,
    alone: bool,
    fits: Callable[[tuple[int, ...]], bool],
    flag: str = "code",
) -> list[Recorded]:
    """Reads the arrays recorded for a representation.

    Of a file with named arrays it is the one called `name` (or `name` with _ for /), or
    for a layer of --module, by the layer's own name ("layer3" for
    "my_models:resnet/layer3"). Where `alone`, it may also be the one called "code", as
    --save_arrays writes it, or the only one; or there are several, all of which fit:
    then each is a code by its own name. A file of one array without a name is taken
    where `alone`.

    Args:
      path: the file.
      name: name of the representation.
      alone: whether the file is for this representation alone.
      fits: whether an array of a shape can be a code, or several.
      flag: name of the flag that has the path, for messages.

    Raises:
      Refusal: the file cannot be read, no array is meant or it is not clear which, or
        an array is not numeric.
    """
    where = f"--{flag}={path}"
    try:
        # NumPy warns of odd headers; what is read is checked anyway.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chosen = _chosen(where, name, _stored(path, where), alone, fits)
            found = [Recorded(label, item.read()) for label, item in chosen]
    except Refusal:
        raise
    # Damaged files make NumPy, zipfile and h5py raise exceptions of many types; a
    # header that claims more than there is, MemoryError.
    except (Exception, MemoryError) as error:
        raise Refusal(f"{where}: {_reason(path, error)}; {_ACCEPTED}") from None
    return [Recorded(label, _numeric(where, array)) for label, array in found]


def _numeric(where: str, array: np.ndarray) -> np.ndarray:
    if array.dtype == jnp.bfloat16:
        return array.astype(np.float32)
    if array.dtype.kind not in "fiu":
        is_bfloat16 = array.dtype.kind == "V" and array.dtype.itemsize == 2
        hint = " (save bfloat16 as float32)" if is_bfloat16 else ""
        raise Refusal(
            f"{where}: {array.dtype} is not numeric; float and int are accepted{hint}"
        )
    return array


def _chosen(
    where: str,
    name: str,
    stored: Sequence[_Stored],
    alone: bool,
    fits: Callable[[tuple[int, ...]], bool],
) -> list[tuple[str, _Stored]]:
    """The arrays that are meant, each with its own name where there are several."""
    by_name = {item.name: item for item in stored}
    if [*by_name] == [""] and not alone:
        raise Refusal(
            f"{where}: holds one array without a name; for several "
            f"representations give an .npz with an array for each, such as {name}"
        )
    # There is one --module, so that its layers' own names are clear.
    layer = name.partition("/")[2] if modules.is_module(name) else ""
    own = [name, layer] if layer else [name]
    names = own + [known.replace("/", "_") for known in own]
    if alone:
        names += [_CODE, *by_name] if len(by_name) == 1 else [_CODE]
    for known in names:
        if known in by_name:
            return [("", by_name[known])]
    if alone and len(by_name) > 1:
        if all(item.shape is not None and fits(item.shape) for item in stored):
            return [(item.name, item) for item in stored]
    accepted = " or ".join([*own, _CODE] if alone else own)
    there = ", ".join(item.described for item in stored[:_MOST_SHOWN])
    more = ", ..." if len(stored) > _MOST_SHOWN else ""
    raise Refusal(
        f"{where}: no array is called {accepted}; it has {there or 'none'}{more}"
    )


def _stored(path: str, where: str) -> list[_Stored]:
    """The arrays of a file, told by its content and not by its ending."""
    with files.open_regular(path) as file:
        start = file.read(len(file_kinds.HDF5))
    if start.startswith(_NPY):
        # It is mapped, which reads nothing, and fails where the file is too short.
        return [_of_array("", npy.open_memmap(path, mode="r"))]
    if start.startswith(file_kinds.HDF5):
        return _in_hdf5(path, where)
    if start[:4] in _ZIP:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
        if not any(info.filename.endswith("data.pkl") for info in infos):
            return [_of_member(path, info, where) for info in infos]
        return _of_tree(torch_format.read_zip(path))
    try:
        kind = file_kinds.kind_of(path)
    except UnreadableWeights:
        kind = None
    if kind == "safetensors":
        return _of_tree(readers.read_safetensors(path))
    if kind == "torch stream":
        return _of_tree(torch_format.read_stream(path))
    if kind == "pickle":
        return _of_tree(torch_format.read_pickle(path))
    found = "is of another kind" if start else "is empty"
    raise Refusal(f"{where}: {found}; {_ACCEPTED}")


def _of_array(name: str, array: np.ndarray) -> _Stored:
    is_numeric = array.dtype.kind in "fiu" or array.dtype == jnp.bfloat16
    return _Stored(
        name,
        array.shape if is_numeric else None,
        f"{name} {array.shape}",
        lambda: array,
    )


def _of_tree(tree: Any) -> list[_Stored]:
    return [_of_array(name, array) for name, array in _flat(tree, ())]


def _flat(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of nested mappings and lists, by their path."""
    if len(path) > _DEEPEST:
        return
    if isinstance(node, pickles.Array):
        node = node.array
    if isinstance(node, np.ndarray):
        yield "/".join(path), node
    elif isinstance(node, dict):
        for name, item in node.items():
            if isinstance(name, str | int):
                yield from _flat(item, (*path, str(name)))
    elif isinstance(node, list | tuple):
        for number, item in enumerate(node):
            yield from _flat(item, (*path, str(number)))


def _in_hdf5(path: str, where: str) -> list[_Stored]:
    """The datasets of a file, of groups in groups, too."""
    try:
        import h5py
    except ImportError:
        raise readers.missing("h5py", path) from None
    found = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            is_numeric = item.dtype.kind in "fiu"
            shape = tuple(item.shape or ()) if is_numeric else None
            found.append(
                _Stored(
                    name,
                    shape,
                    f"{name} {item.shape}",
                    lambda: _dataset(path, name, where),
                )
            )

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return found


def _dataset(path: str, name: str, where: str) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        dataset = file[name]
        _check_size(where, dataset.nbytes)
        return np.asarray(dataset[()])


def _of_member(path: str, info: zipfile.ZipInfo, where: str) -> _Stored:
    """An array of an .npz, of which only the header is read at first."""
    name = info.filename.removesuffix(".npy")
    shown = " ".join(name.splitlines())
    shape = None
    try:
        with zipfile.ZipFile(path) as archive, archive.open(info) as stream:
            is_first = npy.read_magic(stream) == (1, 0)
            header = (
                npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
            )
            stated, _, dtype = header(stream)
        described = (
            f"{shown} (Python objects)" if dtype.hasobject else f"{shown} {stated}"
        )
        shape = stated if dtype.kind in "fiu" else None
    # A damaged member matters only where it is read.
    except Exception:
        described = f"{shown} (no array)"
    return _Stored(name, shape, described, lambda: _member(path, info, where))


def _member(path: str, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    _check_size(where, info.file_size)
    with zipfile.ZipFile(path) as archive, archive.open(info) as stream:
        return npy.read_array(stream, allow_pickle=False)


def _check_size(where: str, num_bytes: int) -> None:
    if num_bytes > _MOST_BYTES:
        raise Refusal(
            f"{where}: holds an array of {num_bytes / 2**30:.3g} GiB, or claims "
            f"to; up to {_MOST_BYTES / 2**30:g} GiB are read"
        )


def _reason(path: str, error: BaseException) -> str:
    """What is wrong with the file, in our words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, MissingReader | UnreadableWeights):
        return str(error).removeprefix(f"{path}: ")
    if isinstance(error, zipfile.BadZipFile | EOFError):
        return "damaged or not whole"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "pickle" in str(error) or "Python objects" in str(error):
        return "holds Python objects, which are never unpickled"
    return "damaged, not whole, or not of plain arrays"
