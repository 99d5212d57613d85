"""Networks by name. Layer tables here; weights come from `pretrained`."""

from invjax.networks.alexnet import ALEXNET
from invjax.networks.layers import Network

NETWORKS: dict[str, Network] = {network.name: network for network in (ALEXNET,)}
