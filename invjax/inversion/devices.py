"""Lanes over several devices: each computes its own, and none waits for another.

Where the loop over steps is compiled, as on GPU and TPU, the lanes of a call are spread
over a mesh of one axis, and `jax.shard_map` runs the program of one device's lanes on
each. As many lanes are on every device whatever the number of devices, and nothing is
exchanged between them. Whether lanes are rounded as on one device is up to the
compiler: XLA optimises a program of several devices at other places. Where such a loop
runs on CPU, in tests, the last bits differ.

A loop on the host, as on CPU, is on one device, and its lanes have the bits of one
device. Several CPU devices are the same cores, which its threads use already: there is
nothing to gain, and a program would be compiled for each of them.

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
