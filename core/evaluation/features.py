"""What is known of a set of images for its scores, gathered over batches and processes, and kept on the disk."""

import zipfile
from typing import NamedTuple

import numpy as np
import torch

from core.system import distributed
from core.system.files import atomic_write
from metrics.fid import FEATURES
from metrics.stats import Moments

MOST_KEPT = 10_000  # features kept of a set, for KID: 80 MB


class Features(NamedTuple):
    """What is known of a set of images: moments of all of them, features of the first."""

    mean: torch.Tensor  # (2048,), float64
    cov: torch.Tensor  # (2048, 2048), float64
    kept: torch.Tensor  # (n, 2048)
    count: int


class FeatureAccumulator:
    """Makes Features of batches of features (N, 2048).

    count: of all images; this process has some of them in a row, the first of which is number `start`.
    """

    def __init__(self, count, start):
        self.moments, self.count, self.next = Moments(FEATURES), count, start
        self.kept = torch.zeros(min(count, MOST_KEPT), FEATURES)

    def add(self, features):
        """Take in features (N, 2048) of the next N images; those past the first MOST_KEPT of the set are not kept."""
        self.moments.add(features)
        room = self.kept[self.next : self.next + len(features)]
        room.copy_(features[: len(room)])
        self.next += len(features)

    def result(self):
        """Features of the images of all processes."""
        moments = self.moments.summed(distributed.all_reduce_sum)
        mean, cov = map(torch.from_numpy, moments.result())
        return Features(mean, cov, distributed.all_reduce_sum(self.kept), self.count)


def read_features(path):
    """Features from a file; None where there is none, or a damaged one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in ("mean", "cov", "kept")}
            return Features(**tensors, count=int(arrays["count"]))
    except (OSError, ValueError, LookupError, EOFError, TypeError, zipfile.BadZipFile):
        return None


def write_features(path, features):
    """Write them to an .npz file, whole or not at all. Raises UserError."""
    with atomic_write(path) as temporary:
        np.savez(temporary, **features._asdict())
