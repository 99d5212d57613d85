"""--layers, for the binaries that have it: absl refuses a flag defined twice."""

from absl import flags

LAYERS = flags.DEFINE_list(
    "layers",
    None,
    "Comma-separated layers: names of layers of --network, or NETWORK/LAYER in "
    "benchmarks (default: all at hand, or by case and backend).",
)
