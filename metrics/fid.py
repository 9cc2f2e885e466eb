"""FID and KID of two folders of images, with the features of torchvision's Inception v3.

Usage: python -m metrics.fid --paths A B

Pillow resizes each image (bilinear) to img_size, then to 299 pixels, and the values are normalised as for ImageNet.
The features are the 2048 pooled activations. Scores of other networks or resizing methods are not comparable.
"""

from functools import lru_cache

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import Inception_V3_Weights
from torchvision.models.inception import BasicConv2d

from core.cli.parser import Parser
from core.cli.values import PATH, POSITIVE, one_of
from core.images.folders import images_below
from core.images.io import read_rgb
from core.system import console
from core.system.errors import UserError
from metrics.precision import full_precision
from metrics.stats import Moments, frechet_distance, kernel_distance
from metrics.weights import MissingWeights, load_pretrained

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


def folder_features(folder, img_size, batch_size, device):
    """Return mean, covariance and features (N, 2048) of the images below a folder. Raises UserError."""
    paths = images_below(folder)
    network, moments, features = pretrained(str(device)), Moments(FEATURES), []
    for start in range(0, len(paths), batch_size):
        x = torch.stack([eval_transform(read_rgb(path), img_size) for path in paths[start : start + batch_size]])
        features.append(network(x.to(device)).cpu())
        moments.add(features[-1])
    return *moments.result(), torch.cat(features)


def main(argv=None):
    """Print FID and KID of two folders. Exits with status 2 if a flag or file is wrong."""
    usable = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    parser = Parser(description=__doc__)
    parser.add("paths", PATH, None, "two folders of images to compare", nargs=2, required=True, metavar=("A", "B"))
    parser.add("img_size", POSITIVE, 256, "side of the images before Inception, in pixels (default 256)")
    parser.add("batch_size", POSITIVE, 64, "images per batch (default 64)")
    parser.add("device", one_of(*usable), usable[-1], f"where features are computed (default {usable[-1]})")
    args = parser.parse_args(argv)
    try:
        sets = [folder_features(path, args.img_size, args.batch_size, args.device) for path in args.paths]
    except (MissingWeights, UserError) as error:
        parser.error(str(error))
    (mu, cov, x), (mu2, cov2, y) = sets
    console.info(f"FID: {frechet_distance(mu, cov, mu2, cov2):.6g}")
    needs = " (it needs at least 2 images in each folder)" if min(len(x), len(y)) < 2 else ""
    console.info(f"KID: {kernel_distance(x, y):.6g}{needs}")


if __name__ == "__main__":
    main()
