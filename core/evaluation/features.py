"""Inception features of a set of images: accumulate over batches and processes, save, compare."""

from typing import NamedTuple

import numpy as np
import torch

from core.system import console, distributed
from core.system.errors import reason
from core.system.files import atomic_write
from core.system.notes import read_arrays
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


def read_features(path, count):
    """Read the Features of `count` images from a file; None if it is missing or, with a warning, wrong."""
    try:
        arrays = read_arrays(path, Features._fields)
        flaw = _flaw(arrays, count)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        flaw = reason(error)
    if flaw:
        console.warn(f"Cannot use {path} ({flaw}). The program computes the features of these images again.")
        return None
    tensors = {name: torch.from_numpy(arrays[name]) for name in ("mean", "cov", "kept")}
    return Features(**tensors, count=count)


def _flaw(arrays, count):
    """Return why arrays cannot be the Features of `count` images, an empty text if they can."""
    mean, cov, kept, number = (arrays[name] for name in Features._fields)
    shapes = (FEATURES,), (FEATURES, FEATURES), (min(count, MOST_KEPT), FEATURES), ()
    if (mean.shape, cov.shape, kept.shape, number.shape) != shapes or number != count:
        return "its arrays have unexpected sizes"
    if (mean.dtype, cov.dtype, kept.dtype) != (np.float64, np.float64, np.float32):
        return "its arrays have unexpected types"
    if not all(np.isfinite(array).all() for array in (mean, cov, kept)):
        return "it has NaN or infinite values"
    agrees = count > MOST_KEPT or np.allclose(kept.mean(0, dtype=np.float64), mean, rtol=1e-3, atol=1e-3)
    scale = np.abs(cov).max()
    if not agrees or cov.diagonal().min() < 0 or np.abs(cov - cov.T).max() > 1e-6 * scale:
        return "its arrays contradict each other"
    return ""


def write_features(path, features):
    """Write Features to an .npz file atomically. Raises UserError."""
    with atomic_write(path) as temporary:
        np.savez(temporary, **features._asdict())
