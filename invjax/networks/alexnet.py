"""AlexNet in torchvision's form ("One weird trick", Krizhevsky 2014).

It differs from the paper's CNN-A (the Caffe reference network, `caffenet`) in its
widths, in the padding of conv1, and in having neither local response normalisation nor
grouped convolutions. It was trained on images of 224 px.
"""

from invjax.networks.layers import Conv, Dense, MaxPool, Network, Relu

ALEXNET = Network(
    name="alexnet",
    input_size=224,
    layers=(
        Conv("conv1", 64, kernel=11, stride=4, padding=2),
        Relu("relu1"),
        MaxPool("pool1", window=3, stride=2),
        Conv("conv2", 192, kernel=5, padding=2),
        Relu("relu2"),
        MaxPool("pool2", window=3, stride=2),
        Conv("conv3", 384, kernel=3, padding=1),
        Relu("relu3"),
        Conv("conv4", 256, kernel=3, padding=1),
        Relu("relu4"),
        Conv("conv5", 256, kernel=3, padding=1),
        Relu("relu5"),
        MaxPool("pool5", window=3, stride=2),
        Dense("fc6", 4096),
        Relu("relu6"),
        Dense("fc7", 4096),
        Relu("relu7"),
        Dense("fc8", 1000),
    ),
)
