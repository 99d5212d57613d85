"""Lanes over several devices: each computes its own, and none waits for another.

The lanes of a compiled call are spread over a mesh of one axis, and `jax.shard_map`
runs the program of one device's lanes on each. As many lanes are on every device
whatever the number of devices, and nothing is exchanged between them. On CPU a lane of
a small network has the bits that it has on one device; AlexNet's last bits differ.

Which mesh it is, is read off the arrays: those that `split` has spread carry it in
their type while they are traced. Arrays without a mesh are on JAX's default device, and
their program is compiled as it is.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_AXIS = "lane"

LANES = PartitionSpec(_AXIS)
"""Arrays [l, ...] whose lanes are spread over the devices."""

STEPS_AND_LANES = PartitionSpec(None, _AXIS)
"""Arrays [t, l] whose lanes are spread over the devices."""

_COMMON = PartitionSpec()


@functools.cache
def mesh(num_devices: int) -> Mesh | None:
    """The first local devices as a mesh; None for one, which needs none.

    Args:
      num_devices: number of devices, at most those of this process.
    """
    if num_devices == 1:
        return None
    return jax.make_mesh(
        (num_devices,),
        (_AXIS,),
        axis_types=(AxisType.Explicit,),
        devices=jax.local_devices()[:num_devices],
    )


def split(tree: Any, mesh: Mesh | None) -> Any:
    """Moves arrays [l, ...] to the devices, each of which gets its own lanes.

    Args:
      tree: tree of arrays; l is a multiple of the number of devices.
      mesh: the devices; None for JAX's default one.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    return jax.device_put(tree, NamedSharding(mesh, LANES))


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Copies arrays to every device.

    Args:
      tree: tree of arrays.
      mesh: the devices; None for JAX's default one.
    """
    return jax.device_put(tree, mesh and NamedSharding(mesh, _COMMON))


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh that arrays of lanes are spread over; None on a single device."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            sharding = leaf.sharding
            if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
                return sharding.mesh
    return None


class jit:  # noqa: N801 (in place of jax.jit)
    """`jax.jit` for functions of lanes that may be spread over a mesh.

    On CPU a program of several devices is compiled without the elimination of common
    subexpressions. There XLA runs that pass once more and at another place than for one
    device, and what is then fused rounds differently; without it the bits of small
    networks are those of one device.

    Args:
      function: the function to compile.
      compiler_options, **options: keywords of `jax.jit`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        compiler_options: dict[str, Any] | None = None,
        **options: Any,
    ):
        functools.update_wrapper(self, function)
        spread = (compiler_options or {}) | {"xla_disable_hlo_passes": "cse"}
        self._plain = jax.jit(function, compiler_options=compiler_options, **options)
        self._spread = jax.jit(function, compiler_options=spread, **options)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Calls the function, which is compiled first where it is new."""
        return self._chosen(args, keywords)(*args, **keywords)

    def lower(self, *args: Any, **keywords: Any) -> jax.stages.Lowered:
        """The program of these arguments, to be compiled."""
        return self._chosen(args, keywords).lower(*args, **keywords)

    def eval_shape(self, *args: Any, **keywords: Any) -> Any:
        """The types of the results, without computing them."""
        return self._chosen(args, keywords).eval_shape(*args, **keywords)

    def _chosen(self, args: Any, keywords: Any) -> Any:
        if jax.default_backend() == "cpu" and mesh_of((args, keywords)) is not None:
            return self._spread
        return self._plain


def on_each(
    function: Callable[..., Any], common: Any, *lanes: Any, out_specs: Any = LANES
) -> Any:
    """`function(common, *lanes)`, on every device with that device's lanes.

    To be called while a program is traced.

    Args:
      function: computes something of some lanes, independently of each other.
      common: tree of arrays that all lanes have in common.
      lanes: trees of arrays [l, ...]; None for nothing.
      out_specs: where the results have their lanes, by default in the first axis.
    """
    there = jax.typeof(jax.tree.leaves(lanes)[0]).sharding.mesh
    if there.empty:
        return function(common, *lanes)
    sharded = jax.shard_map(
        function,
        mesh=there,
        in_specs=(_COMMON, *[LANES] * len(lanes)),
        out_specs=out_specs,
        # A representation may have loops of its own, whose types it does not allow for.
        check_vma=False,
    )
    return sharded(common, *lanes)
