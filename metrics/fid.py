"""The features of torchvision's Inception v3, for FID and the other scores of sets of images.

Pillow resizes each image (bilinear) to img_size, then to 299 pixels, and the values are normalised as for ImageNet.
The features are the 2048 pooled activations. Scores of other networks or resizing methods are not comparable.
"""

import runpy
from functools import lru_cache

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import Inception_V3_Weights
from torchvision.models.inception import BasicConv2d

from metrics.precision import full_precision
from metrics.weights import load_pretrained

WEIGHTS = Inception_V3_Weights.IMAGENET1K_V1
INPUT_SIZE = 299
FEATURES = 2048  # the covariance of fewer images is singular
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def eval_transform(image, img_size):
    """Convert a PIL image to the input of Inception (3, 299, 299)."""
    return normalize(resize(image, img_size)[None])[0]


def resize(image, img_size):
    """Resize a PIL image to img_size, then to the size of Inception: uint8 (299, 299, 3)."""
    for size in (img_size, INPUT_SIZE):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(image)


def normalize(images):
    """Normalise uint8 images (N, 299, 299, 3) as for ImageNet: (N, 3, 299, 299)."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


class Inception(nn.Module):
    """Feature extractor (N, 3, 299, 299) -> (N, 2048). network: of torchvision, with weights."""

    def __init__(self, network):
        super().__init__()
        network.fc = nn.Identity()
        network.transform_input = False  # images are already normalised
        for block in network.modules():
            if isinstance(block, BasicConv2d):  # fusing halves the memory traffic
                block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
        self.network = network.eval().to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, x):
        """Compute features (N, 2048) of x (N, 3, 299, 299) from `eval_transform`, without gradients."""
        with full_precision(x.device):
            return self.network(x.contiguous(memory_format=torch.channels_last))


def build_inception():
    """Build torchvision's network without weights; the published file includes the auxiliary classifier."""
    return torchvision.models.inception_v3(init_weights=False, aux_logits=True)


@lru_cache
def pretrained(device="cpu"):
    """Return Inception with the published weights, cached per device. Raises MissingWeights."""
    return Inception(load_pretrained(build_inception, WEIGHTS)).to(device)


if __name__ == "__main__":  # an earlier name of the command
    runpy.run_module("metrics", run_name="__main__")
