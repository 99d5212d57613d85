"""Any callable as an argument of a compiled function.

A representation may be a plain function or a registered pytree (one of invjax, an
Equinox module, a `jax.tree_util.Partial`). Its array leaves are traced, so that other
weights need no new compilation and weights are not copied into the program. Everything
else is static and compared by equality.

A representation has to be a pure function of the image: it is compiled once and called
many times. `refuse_impure` looks whether one is.
"""

import functools
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from invjax.types import Code, Image, Relaxable, Scalar


@jax.tree_util.register_pytree_node_class
class TracedCallable:
    """A callable as a pytree: its arrays are the leaves, the rest is static.

    Made by `TracedCallable.of`.
    """

    def __init__(self, arrays: list[Any], structure: Any) -> None:
        self._arrays = arrays
        self._structure = structure

    @classmethod
    def of(cls, function: Any) -> "TracedCallable":
        """Wraps a callable; one that is wrapped already is returned as it is.

        Args:
          function: a plain function, a pytree that can be called, or a module of Flax
            Linen that is bound to its variables.

        Raises:
          TypeError: it cannot be called, or it has a part that is neither an array nor
            hashable.

        Examples:
          >>> double = jax.tree_util.Partial(jnp.multiply, jnp.float32(2))
          >>> jax.tree.leaves(TracedCallable.of(double))
          [Array(2., dtype=float32)]
        """
        if isinstance(function, cls):
            return function
        if not callable(function):
            raise TypeError(
                f"the representation is {function!r:.80}, which cannot be called; a "
                "pure function of one image is accepted, and "
                "invjax.representation(name) returns one by its name"
            )
        function = _unbound(function)
        leaves, treedef = jax.tree.flatten(function)
        is_array = tuple(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)
        arrays = [leaf for leaf, traced in zip(leaves, is_array, strict=True) if traced]
        static = tuple(
            leaf for leaf, traced in zip(leaves, is_array, strict=True) if not traced
        )
        structure = (treedef, is_array, static)
        try:
            hash(structure)
        except TypeError as error:
            raise TypeError(
                f"representation {function!r:.80} has a part that is neither an array "
                f"nor hashable ({error}); a pure function, or a pytree of arrays and "
                "hashable values, is accepted"
            ) from None
        return cls(arrays, structure)

    def __call__(self, image: Image) -> Code:
        """The code of one image [h, w, c], in the range the callable takes.

        Raises:
          TypeError: the callable returns something else than floating-point arrays.
        """
        return _checked_code(self._function()(image))

    def relaxed(self, amount: Scalar) -> "TracedCallable":
        """The callable with a relaxed derivative, or itself if it is not `Relaxable`.

        Args:
          amount: 0 (exact derivatives) to 1; see `networks.relaxation`.
        """
        function = self._function()
        if not isinstance(function, Relaxable):
            return self
        return TracedCallable.of(function.relaxed(amount))

    def _function(self) -> Any:
        treedef, is_array, static = self._structure
        arrays, others = iter(self._arrays), iter(static)
        leaves = [next(arrays) if traced else next(others) for traced in is_array]
        return jax.tree.unflatten(treedef, leaves)

    def tree_flatten(self) -> tuple[list[Any], Any]:
        """(arrays, static structure), for JAX."""
        return self._arrays, self._structure

    @classmethod
    def tree_unflatten(cls, structure: Any, arrays: Any) -> "TracedCallable":
        """The reverse of `tree_flatten`, for JAX."""
        return cls(list(arrays), structure)


def encode(phi: Any, image: ArrayLike) -> Code:
    """The code phi(image), computed by a compiled program that takes phi's arrays.

    Args:
      phi: a representation: any pure function of one image.
      image: [h, w, c], in the range that phi takes.

    Raises:
      TypeError: phi has a part that is neither an array nor hashable.

    Examples:
      >>> encode(lambda image: image.mean((0, 1)), jnp.ones((2, 2, 3)))
      Array([1., 1., 1.], dtype=float32)
    """
    return _encode(TracedCallable.of(phi), jnp.asarray(image))


def encode_batch(phi: Any, images: Sequence[ArrayLike], *, width: int) -> list[Any]:
    """The codes of several images, `width` of them in one compiled call.

    A last batch that is not full is padded, so that the program is the same and the
    bits of a code do not depend on how many images there are.

    Args:
      phi: a representation: any pure function of one image.
      images: arrays [h, w, c] of one shape, in the range that phi takes.
      width: number of images per call; 1 calls `encode` for each.

    Raises:
      TypeError: phi has a part that is neither an array nor hashable.

    Examples:
      >>> images = [np.full((2, 2, 1), n, np.float32) for n in range(3)]
      >>> [code.item() for code in encode_batch(jnp.mean, images, width=2)]
      [0.0, 1.0, 2.0]
    """
    if width == 1:
        return [jax.tree.map(np.asarray, encode(phi, image)) for image in images]
    traced = TracedCallable.of(phi)
    codes: list[Any] = []
    for start in range(0, len(images), width):
        batch = list(images[start : start + width])
        padding = [batch[-1]] * (width - len(batch))
        found = _encode_batch(traced, jnp.stack([*map(jnp.asarray, batch + padding)]))
        # Copies: one code that is kept would keep all of its batch.
        found = jax.tree.map(np.asarray, found)
        codes.extend(
            jax.tree.map(lambda part, number=number: np.array(part[number]), found)
            for number in range(len(batch))
        )
    return codes


def code_struct(phi: Any, image_shape: tuple[int, ...]) -> Any:
    """Shape and type of the code of an image, found without computing anything.

    Args:
      phi: a representation: any pure function of one image.
      image_shape: (h, w, c) of the image, which is taken to be float32.

    Returns:
      A `jax.ShapeDtypeStruct`, or a pytree of them as phi's code is one of arrays.

    Raises:
      TypeError: phi has a part that is neither an array nor hashable, or it returns
        something else than floating-point arrays.

    Examples:
      >>> code_struct(lambda image: {"mean": image.mean((0, 1))}, (8, 6, 3))
      {'mean': ShapeDtypeStruct(shape=(3,), dtype=float32)}
    """
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    # Through jit, whose cache spares tracing phi again at every call.
    return _encode.eval_shape(TracedCallable.of(phi), image)


def code_shape(phi: Any, image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the code of an image where the code is one array.

    Nothing is computed: phi is traced.

    Args:
      phi: a representation: any pure function of one image.
      image_shape: (h, w, c) of the image, which is taken to be float32.

    Raises:
      TypeError: as `code_struct`, or the code has several arrays.

    Examples:
      >>> code_shape(lambda image: image[::2, ::2], (8, 6, 3))
      (4, 3, 3)
    """
    found = code_struct(phi, image_shape)
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise TypeError(
            f"the representation returns {describe(found)}; one array is accepted here"
        )
    return found.shape


def describe(code: Any) -> str:
    """What a code consists of, in words.

    Args:
      code: an array, or a pytree of arrays or of their shapes.

    Examples:
      >>> describe({"deep": np.zeros(3), "shallow": np.zeros((4, 4, 3))})
      "a dict of ['deep'] (3,), ['shallow'] (4, 4, 3)"
      >>> describe(np.zeros((2, 3)))
      'one array (2, 3)'
    """
    if hasattr(code, "shape"):
        return f"one array {tuple(code.shape)}"
    parts = jax.tree.leaves_with_path(code)
    if not parts:
        return f"a {type(code).__name__} without arrays"
    words = ", ".join(
        f"{jax.tree_util.keystr(path)} {np.shape(part)}".strip()
        for path, part in parts[:_MOST_DESCRIBED]
    )
    more = ", ..." if len(parts) > _MOST_DESCRIBED else ""
    return f"a {type(code).__name__} of {words}{more}"


_MOST_DESCRIBED = 8


def place(path: Any) -> str:
    """Where an array of a code is, for messages; nothing where it is the only one.

    Args:
      path: its path, as `jax.tree.leaves_with_path` has it.

    Examples:
      >>> [place(path) for path, _ in jax.tree.leaves_with_path({"deep": 1})]
      [" at ['deep']"]
      >>> place(())
      ''
    """
    return f" at {jax.tree_util.keystr(path)}" if path else ""


@jax.jit
def _encode(phi: TracedCallable, image: Image) -> Code:
    return phi(image)


@jax.jit
def _encode_batch(phi: TracedCallable, images: Float[Array, "n h w c"]) -> Code:
    return jax.vmap(phi)(images)


def refuse_impure(phi: Any, image_shape: tuple[int, ...]) -> None:
    """Looks whether phi is a pure function of the image, and says so if it is not.

    phi is traced twice, on a copy of itself: nothing is computed, and the caller's
    model stays as it is. Only where the two traces differ, or call back to Python, phi
    is also compiled and run twice. Representations that were looked at once are not
    looked at again, unless something other than their arrays' values has changed, such
    as the mode of a model.

    Args:
      phi: a representation.
      image_shape: (h, w, c) of the images that it takes.

    Raises:
      ValueError: a call of phi changes phi, or two calls give different codes.
      TypeError: phi cannot be traced, or it returns something else than floating-point
        arrays.

    Examples:
      >>> refuse_impure(lambda image: image.mean((0, 1)), (2, 2, 3))
      >>> random = np.random.default_rng(0)
      >>> refuse_impure(lambda image: image + random.normal(), (2, 2, 3))
      Traceback (most recent call last):
      ...
      ValueError: the representation gives two different codes of one image; ...
    """
    traced = TracedCallable.of(phi)
    arrays, structure = traced.tree_flatten()
    seen = (structure, image_shape, *((leaf.shape, leaf.dtype) for leaf in arrays))
    if seen in _LOOKED_AT:
        return
    watched = [_Watched.of(item) for item in _stateful(phi)]
    try:
        _look(phi, arrays, structure, image_shape, watched)
    finally:
        for item in watched:
            item.restore()
    _LOOKED_AT[seen] = None
    while len(_LOOKED_AT) > _MOST_LOOKED_AT:
        del _LOOKED_AT[next(iter(_LOOKED_AT))]


_LOOKED_AT: dict[Any, None] = {}
_MOST_LOOKED_AT = 64
_MOST_COPIED = 2**20

_REMEDY = "call model.eval(), or make it a pure function of the image"


def _look(
    phi: Any,
    arrays: list[Any],
    structure: Any,
    image_shape: tuple[int, ...],
    watched: list["_Watched"],
) -> None:
    image = np.random.default_rng(0).uniform(size=image_shape).astype(np.float32)
    changed: dict[str, None] = {}

    def call(arrays: list[Any], image: Image) -> Code:
        function = TracedCallable.tree_unflatten(structure, arrays)._function()
        before, again = _parts(function), _parts(function)
        code = _checked_code(_unjitted(function)(image))
        changed.update(dict.fromkeys(_changes(before, again, _parts(function))))
        return code

    def trace() -> tuple[str, list[Any]]:
        # A new function each time: JAX keeps the traces of those it knows.
        closed = jax.make_jaxpr(lambda arrays, image: call(arrays, image))(
            arrays, image
        )
        return re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr)), list(closed.consts)

    try:
        first = trace()
        for item in watched:
            item.look()
        second = trace()
        for item in watched:
            changed.update(dict.fromkeys(item.changes()))
    except Exception as error:
        if (translated := _translated(error)) is None:
            raise
        raise translated from error
    if changed:
        raise ValueError(
            f"the representation changes itself when it is called "
            f"({', '.join(list(changed)[:3])}{', ...' if len(changed) > 3 else ''}); "
            f"{_REMEDY}"
        )
    constants = first[1] + second[1]
    if any(isinstance(constant, jax.core.Tracer) for constant in constants):
        raise TypeError(TRANSFORMED)
    are_equal = first[0] == second[0] and len(first[1]) == len(second[1])
    if are_equal and "callback[" not in first[0]:
        if all(map(_is_equal, first[1], second[1])):
            return
    codes = [jax.jit(lambda *given: call(*given))(arrays, image) for _ in range(2)]
    if not all(map(_is_equal, *map(jax.tree.leaves, codes))):
        raise ValueError(
            "the representation gives two different codes of one image; it may not "
            f"draw numbers of NumPy or count its calls: {_REMEDY}"
        )


TRANSFORMED = (
    "an inversion cannot run inside jax.jit, vmap or grad: it compiles and batches by "
    "itself, and its result is not differentiable; call it outside of jit, and "
    "invert_batch in place of vmap"
)
"""What is said where an argument, or an array that phi refers to, is a tracer."""


def _checked_code(code: Any) -> Code:
    parts = jax.tree.leaves_with_path(code)
    if not parts:
        raise TypeError(
            f"the representation returns {describe(code)}; an array, or a pytree of "
            "arrays, is accepted"
        )
    for path, part in parts:
        where = place(path)
        if not isinstance(part, jax.Array | np.ndarray):
            raise TypeError(
                f"the representation returns a {type(part).__name__}{where}; an array, "
                "or a pytree of arrays, is accepted"
            )
        if not jnp.issubdtype(part.dtype, jnp.floating):
            raise TypeError(
                f"the representation returns {part.dtype}{where}, which has no "
                "derivative; floating-point arrays are accepted"
            )
    return jax.tree.map(jnp.asarray, code)


def _unbound(function: Any) -> Any:
    """A module of Flax Linen that holds its variables, as a pytree of them."""
    if getattr(function, "scope", None) is None or not hasattr(function, "unbind"):
        return function
    module, variables = function.unbind()
    return jax.tree_util.Partial(module.apply, variables)


def _unjitted(function: Any) -> Any:
    """What a jitted function was made of: JAX traces the function itself only once."""
    if isinstance(function, functools.partial):
        inner = _unjitted(function.func)
        return functools.partial(inner, *function.args, **function.keywords)
    is_jitted = hasattr(function, "__wrapped__") and hasattr(function, "lower")
    return function.__wrapped__ if is_jitted else function


def _translated(error: Exception) -> Exception | None:
    """One line for what Flax and JAX say of a function that is not pure."""
    name = type(error).__name__
    # Flax's errors, by name: only `networks` imports Flax.
    if name in ("TraceContextError", "ModifyScopeVariableError"):
        found = re.search(r'(?:mutate|variable) "?(\w+)', str(error))
        which = f" ({found[1]})" if found else ""
        return ValueError(
            f"the representation changes itself when it is called{which}; {_REMEDY}"
        )
    if isinstance(error, jax.errors.UnexpectedTracerError):
        return ValueError(
            f"the representation keeps arrays from one call to the next; {_REMEDY}"
        )
    if isinstance(
        error,
        jax.errors.TracerArrayConversionError | jax.errors.ConcretizationTypeError,
    ):
        return TypeError(
            "the representation cannot be traced: it passes its image to NumPy, or "
            "branches on a value; a function that computes with jax.numpy is accepted"
        )
    return None


def _parts(function: Any) -> tuple[dict[str, Any], Any]:
    """Leaves of a callable by name, and its structure."""
    found, structure = jax.tree_util.tree_flatten_with_path(function)
    return {_name(path): leaf for path, leaf in found}, structure


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path).removesuffix(".value").lstrip(".") or "phi"


def _changes(before: Any, again: Any, after: Any) -> Iterator[str]:
    """Names of leaves that a call has replaced, added or taken away.

    Args:
      before, again: `_parts` twice before the call; leaves that differ between them are
        made anew whenever the callable is flattened.
      after: `_parts` after the call.
    """
    old, new = before[0], after[0]
    for name in dict.fromkeys([*old, *new]):
        if name not in old or name not in new:
            yield name
        elif old[name] is again[0].get(name) and old[name] is not new[name]:
            yield name
    if old.keys() == new.keys() and before[1] == again[1] != after[1]:
        yield "something that is no array"


def _is_equal(one: Any, other: Any) -> bool:
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    one, other = np.asarray(one), np.asarray(other)
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _stateful(function: Any) -> list[Any]:
    """Objects with attributes that a callable refers to, such as a module of one's own.

    Pytrees are left out: they are called as copies.
    """
    found: dict[int, Any] = {}
    waiting = [function]
    while waiting and len(found) < 1000:
        item = waiting.pop()
        if isinstance(item, functools.partial):
            waiting += [item.func, *item.args, *item.keywords.values()]
        elif inspect.ismethod(item):
            waiting.append(item.__self__)
        elif inspect.isfunction(item):
            waiting += _closed_over(item)
        elif hasattr(item, "__wrapped__"):
            waiting.append(item.__wrapped__)
        elif id(item) not in found and _has_state(item):
            found[id(item)] = item
            waiting += vars(item).values()
    return list(found.values())


def _closed_over(function: Any) -> list[Any]:
    cells = function.__closure__ or ()
    # A cell is empty while the function it is of is being defined.
    return [cell.cell_contents for cell in cells if _is_full(cell)]


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _has_state(item: Any) -> bool:
    is_code = inspect.isclass(item) or inspect.ismodule(item) or inspect.isroutine(item)
    if is_code or isinstance(item, jax.Array) or not hasattr(item, "__dict__"):
        return False
    return jax.tree_util.all_leaves([item])


class _Watched(NamedTuple):
    """An object and its attributes: as they were, and as the second call found them."""

    item: Any
    were: dict[str, Any]
    found: dict[str, Any]

    @classmethod
    def of(cls, item: Any) -> "_Watched":
        return cls(item, _attributes(item), {})

    def look(self) -> None:
        """Notes the attributes: the first call may have made what is made once."""
        self.found.update(_attributes(self.item))

    def changes(self) -> list[str]:
        """Names of the attributes that have changed since `look`."""
        now = _attributes(self.item)
        names = dict.fromkeys([*self.found, *now])
        return [
            f"{type(self.item).__name__}.{name}"
            for name in names
            if name not in self.found
            or name not in now
            or not _is_same(self.found[name], now[name])
        ]

    def restore(self) -> None:
        """Gives the object the attributes that it had."""
        attributes = vars(self.item)
        for name in [*attributes]:
            if name not in self.were:
                del attributes[name]
        for name, (value, contents) in self.were.items():
            if attributes.get(name) is not value:
                attributes[name] = value
            if contents is None:
                continue
            if isinstance(value, np.ndarray):
                if not np.array_equal(value, contents):
                    value[...] = contents
            elif isinstance(value, list):
                value[:] = contents
            elif isinstance(value, dict):
                value.clear()
                value.update(contents)


def _attributes(item: Any) -> dict[str, tuple[Any, Any]]:
    """Name -> (value, a copy of its contents where they can be changed)."""
    return {name: (value, _copied(value)) for name, value in vars(item).items()}


def _copied(value: Any) -> Any:
    # Large arrays are weights, and are not copied.
    is_small = isinstance(value, np.ndarray) and value.nbytes <= _MOST_COPIED
    return value.copy() if is_small or isinstance(value, list | dict) else None


def _is_same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    if isinstance(one[0], int | float | str):
        return type(one[0]) is type(other[0]) and bool(one[0] == other[0])
    if one[0] is not other[0]:
        return False
    if one[1] is None or other[1] is None:
        return True
    if isinstance(one[0], np.ndarray):
        return np.array_equal(one[1], other[1], equal_nan=True)
    if isinstance(one[0], list):
        return [*map(id, one[1])] == [*map(id, other[1])]
    if isinstance(one[0], dict):
        pairs = [[(k, id(v)) for k, v in part.items()] for part in (one[1], other[1])]
        return pairs[0] == pairs[1]
    return True
