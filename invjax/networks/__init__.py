"""Networks by name.

`NETWORKS` has the layer table of every network. `modules` computes a table, `ops` has
its hot primitives, and `weights` reads the parameters.
"""

from invjax.networks import convnext, mobilenet, resnet, squeezenet, vgg, vit
from invjax.networks import efficientnet_lite as lite
from invjax.networks.alexnet import ALEXNET
from invjax.networks.caffenet import CAFFE_ALEXNET, CAFFENET
from invjax.networks.layers import Network

NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        ALEXNET,
        CAFFENET,
        CAFFE_ALEXNET,
        vgg.VGG_M,
        vgg.VGG16,
        vgg.VGG19,
        lite.EFFICIENTNET_LITE0,
        lite.EFFICIENTNET_LITE1,
        lite.EFFICIENTNET_LITE2,
        resnet.RESNET18,
        resnet.RESNET34,
        resnet.RESNET50,
        resnet.RESNET101,
        resnet.RESNET152,
        mobilenet.MOBILENET_V2,
        mobilenet.MOBILENET_V3_LARGE,
        mobilenet.MOBILENET_V3_SMALL,
        squeezenet.SQUEEZENET1_0,
        squeezenet.SQUEEZENET1_1,
        convnext.CONVNEXT_TINY,
        convnext.CONVNEXT_SMALL,
        convnext.CONVNEXT_BASE,
        vit.VIT_TINY,
        vit.VIT_SMALL,
        vit.VIT_BASE,
        vit.DINO_VITS16,
        vit.DINO_VITS8,
        vit.DINO_VITB16,
        vit.DINO_VITB8,
        vit.CLIP_VIT_B32,
        vit.CLIP_VIT_B16,
        vit.CLIP_VIT_L14,
    )
}
"""Layer tables by the network's name, as in "alexnet/relu3"."""
