"""Convolutional networks by name.

`NETWORKS` has the layer table of every network. `modules` computes a table, `ops` has
its hot primitives, and `weights` reads the parameters.
"""

from invjax.networks.alexnet import ALEXNET
from invjax.networks.caffenet import CAFFE_ALEXNET, CAFFENET
from invjax.networks.efficientnet_lite import EFFICIENTNET_LITE0, EFFICIENTNET_LITE1
from invjax.networks.layers import Network
from invjax.networks.resnet import RESNET50
from invjax.networks.vgg import VGG16, VGG19, VGG_M

NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        ALEXNET,
        CAFFENET,
        CAFFE_ALEXNET,
        VGG_M,
        VGG16,
        VGG19,
        EFFICIENTNET_LITE0,
        EFFICIENTNET_LITE1,
        RESNET50,
    )
}
"""Layer tables by the network's name, as in "alexnet/relu3"."""
