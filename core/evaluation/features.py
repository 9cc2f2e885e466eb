"""Inception features of a set of images: accumulate over batches and processes, save, compare."""

import zipfile
from typing import NamedTuple

import numpy as np
import torch

from core.system import distributed
from core.system.files import atomic_write
from metrics.fid import FEATURES
from metrics.stats import Moments, frechet_distance, frechet_distance_of_few, kernel_distance

MOST_KEPT = 10_000  # features stored per set, for KID: 80 MB
FEW = 512  # images; up to this number FID is faster from features than from covariances


class Features(NamedTuple):
    """Mean and covariance of the features of a set of images, and the features of its first images."""

    mean: torch.Tensor  # (2048,), float64
    cov: torch.Tensor  # (2048, 2048), float64
    kept: torch.Tensor  # (min(count, MOST_KEPT), 2048)
    count: int  # number of images


class FeatureAccumulator:
    """Accumulator of the Features of `count` images. Each process adds its shard, batch by batch."""

    def __init__(self, count):
        self.moments, self.count = Moments(FEATURES), count
        self.kept = torch.zeros(min(count, MOST_KEPT), FEATURES)

    def add(self, features, start):
        """Add the features (N, 2048) of N images. start: index of the first of them in the set."""
        self.moments.add(features)
        rows = self.kept[start : start + len(features)]  # fewer than N rows at the limit MOST_KEPT
        rows.copy_(features[: len(rows)])

    def result(self):
        """Return the Features of the images of all processes."""
        mean, cov = map(torch.from_numpy, self.moments.reduced(distributed.all_reduce_sum).result())
        return Features(mean, cov, distributed.all_reduce_sum(self.kept), self.count)


def distances(real, fake, root_of_real):
    """Return FID and KID of two Features. root_of_real(): returns the square root of the real images' covariance."""
    if min(real.count, fake.count) <= FEW and max(real.count, fake.count) <= MOST_KEPT:
        distance = frechet_distance_of_few(real.kept.numpy(), fake.kept.numpy())
    else:
        mu, cov, mu2, cov2 = (moment.numpy() for moment in (real.mean, real.cov, fake.mean, fake.cov))
        distance = frechet_distance(mu, cov, mu2, cov2, root=root_of_real())
    return distance, kernel_distance(real.kept, fake.kept)


def read_features(path):
    """Read Features from a file; None if it is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in ("mean", "cov", "kept")}
            return Features(**tensors, count=int(arrays["count"]))
    except (OSError, ValueError, LookupError, EOFError, TypeError, zipfile.BadZipFile):
        return None


def write_features(path, features):
    """Write Features to an .npz file atomically. Raises UserError."""
    with atomic_write(path) as temporary:
        np.savez(temporary, **features._asdict())
