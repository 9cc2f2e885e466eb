"""Inception features of a set of images: accumulated over batches and processes, saved, compared."""

import zipfile
from typing import NamedTuple

import numpy as np
import torch

from core.system import distributed
from core.system.files import atomic_write
from metrics.fid import FEATURES
from metrics.stats import Moments, frechet_distance, frechet_distance_of_few, kernel_distance

MOST_KEPT = 10_000  # features kept of a set, for KID: 80 MB
FEW = 512  # images; up to here FID is faster from features than from their covariances


class Features(NamedTuple):
    """Of a set of images: mean and covariance of all features, and the features of the first images."""

    mean: torch.Tensor  # (2048,), float64
    cov: torch.Tensor  # (2048, 2048), float64
    kept: torch.Tensor  # (min(count, MOST_KEPT), 2048)
    count: int  # of images


class FeatureAccumulator:
    """Computes the Features of a set of `count` images, of which each process adds its shard, batch by batch."""

    def __init__(self, count):
        self.moments, self.count = Moments(FEATURES), count
        self.kept = torch.zeros(min(count, MOST_KEPT), FEATURES)

    def add(self, features, start):
        """Add features (N, 2048) of N images; start: number of the first of these images in the set."""
        self.moments.add(features)
        rows = self.kept[start : start + len(features)]  # fewer than N beyond the first MOST_KEPT images
        rows.copy_(features[: len(rows)])

    def result(self):
        """Features of the images of all processes."""
        mean, cov = map(torch.from_numpy, self.moments.reduced(distributed.all_reduce_sum).result())
        return Features(mean, cov, distributed.all_reduce_sum(self.kept), self.count)


def distances(real, fake, root_of_real):
    """FID and KID of two Features. root_of_real(): returns the root of the covariance of the real ones."""
    if min(real.count, fake.count) <= FEW and max(real.count, fake.count) <= MOST_KEPT:
        distance = frechet_distance_of_few(real.kept.numpy(), fake.kept.numpy())
    else:
        mu, cov, mu2, cov2 = (moment.numpy() for moment in (real.mean, real.cov, fake.mean, fake.cov))
        distance = frechet_distance(mu, cov, mu2, cov2, root=root_of_real())
    return distance, kernel_distance(real.kept, fake.kept)


def read_features(path):
    """Features from a file; None if the file is missing or damaged."""
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
