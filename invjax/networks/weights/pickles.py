"""Pickles as inert data: nothing that is named in a pickle is imported or run.

`load` takes the functions and classes that a file may use from its caller, and NumPy's
arrays from here. Everything else that a pickle asks for becomes an `Unread`, which only
says what it stands for. So a checkpoint can be read though it also holds an optimiser,
a configuration or any other object.
"""

import io
import mmap
import pickle
import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

Stream: TypeAlias = io.BytesIO | mmap.mmap
"""Bytes in memory, or of a file that is mapped into it."""


class Unread(dict[Any, Any]):
    """What stands in a tree for an object that is not read.

    It is a dict, since it may be one of another class, as of a configuration: then it
    has the items.

    Attributes:
      wanted: the global that the pickle asks for, as "torch.device".
      state: the attributes that the object would have had; None without.
    """

    wanted = "?"
    state: Any = None

    def __new__(cls, *arguments: Any, **keywords: Any) -> "Unread":
        del arguments, keywords
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **keywords: Any):
        del arguments, keywords
        super().__init__()

    def __call__(self, *arguments: Any, **keywords: Any) -> "Unread":
        """A pickle may call what it was given, as with functools.partial."""
        return type(self)(*arguments, **keywords)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """An object that behaves as a list; what it holds is of no use."""

    def extend(self, items: Any) -> None:
        """As `append`."""

    def add(self, item: Any) -> None:
        """An object that behaves as a set; what it holds is of no use."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class Damaged(ValueError):
    """A file that is not what it seems; the message ends a line."""


class Constant:
    """A value, as a dtype, which the pickle cannot change.

    Attributes:
      value: the value.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __setstate__(self, state: Any) -> None:
        raise Damaged("it changes a constant")


class Rebuilder:
    """A function that a pickle may call, which the pickle cannot change.

    Args:
      function: the function.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Damaged("it changes a function")


class _Mapping(dict[Any, Any]):
    """An OrderedDict or defaultdict as a plain dict, whose attributes are dropped."""

    def __init__(self, items: Any = ()):
        super().__init__(items if isinstance(items, (list, tuple, dict)) else ())

    def __setstate__(self, state: Any) -> None:
        """A state dict has its `_metadata` here."""


class _Dtype:
    """A NumPy dtype before its byte order is known.

    Args:
      name: as "f4"; followed by flags that say nothing.
    """

    def __init__(self, name: Any, *flags: Any):
        del flags
        self._name = str(name)
        self._order: Literal["=", "<", ">"] = "="

    def __setstate__(self, state: Any) -> None:
        if state[1] == "<" or state[1] == ">":
            self._order = state[1]

    def dtype(self) -> np.dtype[Any]:
        """The dtype."""
        return np.dtype(self._name).newbyteorder(self._order)


class Array:
    """A NumPy array that a pickle builds in steps.

    Attributes:
      array: its numbers; None for an array of text or of objects, which is not read.
    """

    array: np.ndarray | None = None

    def __init__(self, *arguments: Any):
        del arguments  # of NumPy's function: they say nothing about the array

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        self.array = _numbers(data, dtype, shape, "F" if is_fortran else "C")


def _numbers(data: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray | None:
    """An array over bytes, which are text in a pickle of Python 2."""
    if isinstance(data, str):
        data = data.encode("latin-1")
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
        return None
    kind = dtype.dtype()
    if kind.kind not in "biufc":
        return None
    flat = np.frombuffer(data, kind) if data else np.empty(0, kind)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    made = Array()
    made.array = _numbers(data, dtype, shape, order)
    return made


def _scalar(dtype: Any, data: Any = b"") -> Array:
    return _from_buffer(data, dtype, (), "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes, which pickles before protocol 3 have as text."""
    del encoding
    return str(text).encode("latin-1")


def _numpy_globals() -> Iterator[tuple[str, Any]]:
    for core in ("numpy.core", "numpy._core"):
        yield f"{core}.multiarray._reconstruct", Array
        yield f"{core}.multiarray.scalar", Rebuilder(_scalar)
        yield f"{core}.numeric._frombuffer", Rebuilder(_from_buffer)
    yield "numpy.dtype", _Dtype
    yield "_codecs.encode", Rebuilder(_encode)
    for name in ("OrderedDict", "defaultdict"):
        yield f"collections.{name}", _Mapping


class _Unpickler(pickle.Unpickler):
    """Finds only the globals that it is given."""

    def __init__(
        self,
        stream: Any,
        known: Mapping[str, Any],
        persistent: Callable[[Any], Any] | None,
    ):
        super().__init__(stream, encoding="latin-1")
        self._known = {**dict(_numpy_globals()), **known}
        self._persistent = persistent
        self._others: dict[str, type[Unread]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The global of this name, or a class of its own that is inert."""
        wanted = f"{module}.{name}"
        if wanted in self._known:
            return self._known[wanted]
        if wanted not in self._others:
            self._others[wanted] = type("Unread", (Unread,), {"wanted": wanted})
        return self._others[wanted]

    def persistent_load(self, pid: Any) -> Any:
        """The object that is stored outside of the pickle."""
        if self._persistent is None:
            raise Damaged("it refers to data outside of the pickle")
        return self._persistent(pid)


def load(
    stream: Stream,
    *,
    known: Mapping[str, Any] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The object of one pickle, which leaves the stream behind it.

    Args:
      stream: the pickle begins at its position. It must be in memory, or a memory map:
        of a file, a damaged length would be allocated before it is read.
      known: what the pickle may use besides NumPy's arrays: globals by dotted name.
      persistent: returns what is stored outside of the pickle, by its id.

    Raises:
      Exception: the pickle is damaged. Nearly any error can be raised; callers turn
        them into one of their own.

    Examples:
      >>> tree = load(io.BytesIO(pickle.dumps({"a": [1, print]})))
      >>> tree["a"][0], tree["a"][1].wanted
      (1, 'builtins.print')
    """
    start = stream.tell()
    _check_opcodes(stream)
    end = stream.tell()
    stream.seek(start)
    tree = _Unpickler(stream, known or {}, persistent).load()
    stream.seek(end)
    return tree


def _check_opcodes(stream: Stream) -> None:
    """Raises an error for a pickle that is cut off, or would fill the memory.

    The C unpickler allocates its memo by the largest index in the file, which may be
    any number.
    """
    start = stream.tell()
    for opcode, argument, place in pickletools.genops(stream):  # type: ignore[arg-type]
        if opcode.name in ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
            raise Damaged(f"its opcode {opcode.name} is not read")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            # More objects than bytes cannot be in the memo.
            if argument is None or not 0 <= int(argument) <= (place or 0) - start + 1:
                raise Damaged("its memo is larger than the file")


def items(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path of names, leaf) of all leaves of nested mappings, each mapping once.

    Arrays of NumPy are leaves, and lists are, too. Names that are not text are left
    out; so are the many tensors of an optimiser, which are numbered.

    Args:
      tree: what `load` returned.

    Examples:
      >>> list(items({"a": {"b": 1, 2: 3}, "c": [4]}))
      [(('a', 'b'), 1), (('c',), [4])]
    """
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, Array):
            node = node.array
        if not isinstance(node, dict) or (isinstance(node, Unread) and not node):
            yield path, node
        elif id(node) not in seen and len(path) < 32:
            seen.add(id(node))
            inner = [
                ((*path, name), item)
                for name, item in node.items()
                if isinstance(name, str)
            ]
            waiting += reversed(inner)


def arrays(tree: Any) -> dict[tuple[str, ...], np.ndarray]:
    """The arrays of a tree that have names, by their paths.

    Args:
      tree: what `load` returned, or mappings with NumPy's arrays.
    """
    return {
        path: leaf
        for path, leaf in items(tree)
        if path and isinstance(leaf, np.ndarray)
    }


def wanted(node: Any) -> str | None:
    """The global that an object stands for which is not read; None for others.

    Args:
      node: a leaf of `items`: an object, or a class or function by itself.
    """
    is_class = isinstance(node, type) and issubclass(node, Unread)
    return node.wanted if is_class or isinstance(node, Unread) else None


def is_module(node: Any) -> bool:
    """Whether an object that is not read is a PyTorch module, that is, a whole model.

    Args:
      node: a leaf of `items`.
    """
    return (
        isinstance(node, Unread)
        and isinstance(node.state, dict)
        and "_parameters" in node.state
        and "_modules" in node.state
    )
