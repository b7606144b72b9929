"""VGG-19's convolutions, whose maps tell the content of a picture from its style.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
arXiv 1409.1556, table 1, configuration E without its dense layers: sixteen 3x3 convolutions in five
blocks. Layers are named as Gatys et al. 2016 name them, by block and place in it, after the
rectifier: relu4_2. Attributes are named so that torchvision's weight file loads as it is. (The Caffe
weights of earlier programs want other inputs, BGR in 0..255, and are no substitute.)
"""

from __future__ import annotations

from torch import Tensor, nn

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in [0, 1]
PARAMETERS = 20_024_384
LEAST_SIDE = 32  # pixels, of which the fifth pooling leaves one

_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions


class VGG19(nn.Module):
    """The convolutions of VGG-19: pictures (N, 3, H, W) to maps (N, 512, H / 32, W / 32).

    `features` is the list of layers, `layers` the place in it of relu1_1 to relu5_4. Pictures are RGB
    in [0, 1], minus MEAN, over DEVIATION.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: dict[str, int] = {}
        found: list[nn.Module] = []
        channels = 3
        for block, (wide, count) in enumerate(_BLOCKS, start=1):
            for place in range(1, count + 1):
                found += [nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU(inplace=True)]
                self.layers[f"relu{block}_{place}"] = len(found) - 1
                channels = wide
            found.append(nn.MaxPool2d(2, stride=2))
        self.features = nn.Sequential(*found)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)
