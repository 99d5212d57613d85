"""Lanes over several devices: each computes its own, and none waits for another.

With a compiled loop, as on GPU and TPU, the lanes of a call are spread over a mesh of
one axis, and `jax.shard_map` runs the program of one device's lanes on each. As many
lanes are on every device whatever the number of devices, and nothing is exchanged
between them. Which mesh it is, is read off the arrays: those that `split` has spread
carry it in their type while they are traced. Arrays without a mesh are on a single
device, and their program is compiled as it is.

With a loop on the host, as on CPU, chunks are on the devices in turns, each with the
program of a single device. XLA optimises a program for several devices otherwise, in
ways that show in the last bits.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_AXIS = "lane"

LANES = PartitionSpec(_AXIS)
"""Arrays [l, ...] whose lanes are spread over the devices."""

STEPS_AND_LANES = PartitionSpec(None, _AXIS)
"""Arrays [t, l] whose lanes are spread over the devices."""

_COMMON = PartitionSpec()

Where: TypeAlias = Mesh | jax.Device | None
"""Where arrays of lanes are: spread over a mesh, or on one device, by default JAX's."""


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


def split(tree: Any, where: Where) -> Any:
    """Moves arrays [l, ...] there; on a mesh each device gets its own lanes.

    Args:
      tree: tree of arrays; l is a multiple of the number of devices of a mesh.
      where: where they go.
    """
    if where is None:
        return jax.tree.map(jnp.asarray, tree)
    there = NamedSharding(where, LANES) if isinstance(where, Mesh) else where
    return jax.device_put(tree, there)


def replicate(tree: Any, where: Where) -> Any:
    """Copies arrays there; on a mesh to every device.

    Args:
      tree: tree of arrays.
      where: where they go.
    """
    there = NamedSharding(where, _COMMON) if isinstance(where, Mesh) else where
    return jax.device_put(tree, there)


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh that arrays of lanes are spread over; None on a single device."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            sharding = leaf.sharding
            if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
                return sharding.mesh
    return None


class jit:
    """`jax.jit` for functions of lanes that may be spread over a mesh.

    On CPU, programs are compiled without the elimination of common subexpressions. For
    several devices XLA runs that pass once more and earlier, and what is then fused
    rounds differently. Without it a program has the bits of one device: of AlexNet, HOG
    and dense SIFT, not of EfficientNet. What single devices repeat for long, the step
    of the loop on the host, is compiled by `jax.jit` itself: it is up to 7 % faster
    with the pass.

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
        on_cpu = (compiler_options or {}) | {"xla_disable_hlo_passes": "cse"}
        self._on_cpu = jax.jit(function, compiler_options=on_cpu, **options)
        self._elsewhere = jax.jit(
            function, compiler_options=compiler_options, **options
        )

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Calls the function, which is compiled first where it is new."""
        return self._jitted(*args, **keywords)

    def lower(self, *args: Any, **keywords: Any) -> jax.stages.Lowered:
        """The program of these arguments, to be compiled."""
        return self._jitted.lower(*args, **keywords)

    def eval_shape(self, *args: Any, **keywords: Any) -> Any:
        """The types of the results, without computing them."""
        return self._jitted.eval_shape(*args, **keywords)

    @property
    def _jitted(self) -> Any:
        return self._on_cpu if jax.default_backend() == "cpu" else self._elsewhere


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
