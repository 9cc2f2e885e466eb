"""FID and KID from torchvision's Inception v3.

python -m metrics.fid --paths A B      two folders of images

Images are reduced by Pillow (bilinear) to img_size, then to 299, and normalised as for ImageNet; features are
the 2048 pooled ones of the trunk. Any other network or way of reducing gives other numbers.
"""

import argparse
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.models import Inception_V3_Weights
from torchvision.models.inception import BasicConv2d

from metrics.stats import Moments, frechet_distance, kernel_distance
from metrics.weights import MissingWeights, full_precision, load_pretrained

WEIGHTS = Inception_V3_Weights.IMAGENET1K_V1
INPUT_SIZE = 299
FEATURES = 2048  # with fewer images their covariance is singular
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def eval_transform(image, img_size):
    """A PIL image as Inception takes it: (3, 299, 299)."""
    return normalize(resize(image, img_size)[None])[0]


def resize(image, img_size):
    """A PIL image at img_size, then at Inception's size: uint8 (299, 299, 3)."""
    for size in (img_size, INPUT_SIZE):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(image)


def normalize(images):
    """uint8 images (N, 299, 299, 3) -> (N, 3, 299, 299), normalised as for ImageNet."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


class Inception(nn.Module):
    """Images as from `eval_transform` (N, 3, 299, 299) -> features (N, 2048). network: torchvision's, with weights."""

    def __init__(self, network):
        super().__init__()
        network.fc = nn.Identity()
        network.transform_input = False  # only for images with another normalisation
        for block in network.modules():
            if isinstance(block, BasicConv2d):  # fusing halves the passes over memory
                block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
        self.network = network.eval().to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, x):
        """x (N, 3, 299, 299) as from `eval_transform` -> (N, 2048), without a graph."""
        with full_precision(x.device):
            return self.network(x.contiguous(memory_format=torch.channels_last))


def build_inception():
    """torchvision's network without weights, with the auxiliary classifier that the published file has."""
    return torchvision.models.inception_v3(init_weights=False, aux_logits=True)


@lru_cache
def pretrained(device="cpu"):
    """Inception with its published weights, once per device. Raises MissingWeights."""
    return Inception(load_pretrained(build_inception, WEIGHTS)).to(device)


def folder_features(folder, img_size, batch_size, device):
    """Mean and covariance of the features of a folder's images, and the features (N, 2048). Raises OSError."""
    files = (path for path in Path(folder).rglob("*") if not path.name.startswith("."))
    paths = sorted(path for path in files if path.suffix.lower() in IMG_EXTENSIONS)
    if not paths:
        raise FileNotFoundError(f"{folder} has no images: give a folder that has some")
    network, moments, features = pretrained(str(device)), Moments(FEATURES), []
    for start in range(0, len(paths), batch_size):
        x = torch.stack([_read(path, img_size) for path in paths[start : start + batch_size]])
        features.append(network(x.to(device)).cpu())
        moments.add(features[-1])
    return *moments.result(), torch.cat(features)


def _read(path, img_size):
    with Image.open(path) as image:
        return eval_transform(ImageOps.exif_transpose(image).convert("RGB"), img_size)


def main(argv=None):
    """Print FID and KID of the two folders of a command line. Exits with status 2 on a wrong value or file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", nargs=2, required=True, metavar=("A", "B"), help="the two folders")
    parser.add_argument("--img_size", type=int, default=256, help="size before the network's own")
    parser.add_argument("--batch_size", type=int, default=64)
    usable = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    parser.add_argument("--device", default=usable[-1], choices=usable)
    args = parser.parse_args(argv)
    if min(args.img_size, args.batch_size) < 1:
        parser.error("--img_size and --batch_size must be at least 1")
    try:
        sets = [folder_features(path, args.img_size, args.batch_size, args.device) for path in args.paths]
    except (MissingWeights, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        parser.exit(2, f"error: {error}\n")
    (mu, cov, x), (mu2, cov2, y) = sets
    sys.stdout.write(f"FID: {frechet_distance(mu, cov, mu2, cov2):.6g}\n")
    sys.stdout.write(f"KID: {kernel_distance(x, y):.6g}\n")


if __name__ == "__main__":
    main()
