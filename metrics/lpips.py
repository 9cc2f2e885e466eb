"""LPIPS: perceptual distance of images (Zhang et al., CVPR 2018), AlexNet, linear weights v0.1.

The distance is a weighted sum of squared differences of normalised features, averaged over positions. Multiplied by the
square roots of these weights and averages, the features form an embedding e(x) with distance |e(x) - e(y)|^2. Each
image is embedded once, and the mean over all pairs of n images is 2 / (n - 1) times the sum of |e_i - mean|^2.
"""

import copy
import math
import pickle
from functools import lru_cache
from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision.models import AlexNet_Weights

from metrics.precision import full_precision
from metrics.weights import MissingWeights, load_pretrained

WEIGHTS = AlexNet_Weights.IMAGENET1K_V1
LAYERS = (1, 4, 7, 9, 11)  # the ReLU layers of AlexNet's trunk
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # mean and deviation of ImageNet, scaled to [-1, 1]


class LPIPS(nn.Module):
    """Embedding of images whose squared distances are LPIPS. linear: weights of the channels of five layers."""

    def __init__(self, alexnet, linear):
        super().__init__()
        self.features = alexnet.features
        self.roots = nn.ParameterList(nn.Parameter(w.flatten().sqrt()[:, None], requires_grad=False) for w in linear)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])

    @torch.no_grad()
    def forward(self, x):
        """Embed x (N, 3, H, W), about [-1, 1] and not clamped -> (N, K)."""
        x, parts = (x - self.shift) / self.scale, []
        with full_precision(x.device):
            for number, layer in enumerate(self.features[: LAYERS[-1] + 1]):
                x = layer(x)
                if number in LAYERS:
                    f = x.flatten(2)  # (N, C, positions)
                    f = f / (f.norm(dim=1, keepdim=True) + 1e-10)
                    parts.append((f * self.roots[len(parts)]).flatten(1) / math.sqrt(f.shape[2]))
        return torch.cat(parts, dim=1)


class PairwiseMean:
    """Streaming mean of LPIPS over all pairs of a group of images, for N groups in parallel (Welford 1962)."""

    def __init__(self):
        self.count, self.mean, self.scatter = 0, 0.0, 0.0

    def add(self, embeddings):
        """Add the next image of each group: (N, K)."""
        self.count += 1
        shift = embeddings - self.mean
        self.mean = self.mean + shift / self.count
        self.scatter = self.scatter + (shift * (embeddings - self.mean)).sum(1).cpu().double()

    def result(self):
        """Return the mean of each group: (N,); NaN without pairs."""
        if self.count < 2:
            return torch.full_like(self.scatter, float("nan"))
        return 2 / (self.count - 1) * self.scatter


def calculate_lpips_given_images(group_of_images, network=None):
    """Return the mean LPIPS over all pairs of a list of images (N, 3, H, W) in [-1, 1] and over N; NaN for one."""
    network = network or pretrained(str(group_of_images[0].device))
    if group_of_images[0].dtype == torch.float64:
        network = copy.deepcopy(network).double()
    pairs = PairwiseMean()
    for x in group_of_images:
        pairs.add(network(x))
    return pairs.result().mean().item()


@lru_cache
def pretrained(device="cpu"):
    """Return the network with the published weights, cached per device. Raises MissingWeights."""
    alexnet = load_pretrained(torchvision.models.alexnet, WEIGHTS)
    return LPIPS(alexnet, linear_weights()).eval().to(device)


def linear_weights():
    """Load the published linear weights v0.1 for AlexNet: 5 of (1, C, 1, 1). Raises MissingWeights."""
    path = Path(__file__).with_name("lpips_alexnet_v0.1.pth")  # from the package lpips 0.1.4, see lpips_LICENSE.txt
    try:
        return list(torch.load(path, map_location="cpu", weights_only=True).values())
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise MissingWeights(f"Cannot load {path} (missing or damaged). Restore it from the repository.") from error
