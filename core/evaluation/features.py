"""Inception features of a set of images: accumulate over batches and processes, save, read."""

import glob
import hashlib
import json

import numpy as np
import torch

from core.images.folders import images_below
from core.images.io import read_rgb
from core.system import console, distributed
from core.system.errors import UserError, reason
from core.system.files import atomic_write, delete_earlier
from core.system.notes import read_arrays
from metrics import fid
from metrics.fid import FEATURES
from metrics.sets import MOST_KEPT, FeatureSet
from metrics.stats import Moments

KEY_DIGITS = 16  # of the hash in the name of a file
ARRAYS = ("mean", "cov", "kept", "count")  # of a FeatureSet, in a file


class FeatureAccumulator:
    """Accumulator of the FeatureSet of `count` images. Each process adds its shard, batch by batch."""

    def __init__(self, count):
        self.moments, self.count = Moments(FEATURES), count
        self.kept = torch.zeros(min(count, MOST_KEPT), FEATURES)

    def add(self, features, start):
        """Add the features (N, 2048) of N images. start: index of the first of them in the set."""
        self.moments.add(features)
        rows = self.kept[start : start + len(features)]  # fewer than N rows at the limit MOST_KEPT
        rows.copy_(features[: len(rows)])

    def result(self):
        """Return the FeatureSet of the images of all processes."""
        mean, cov = map(torch.from_numpy, self.moments.reduced(distributed.all_reduce_sum).result())
        return FeatureSet(mean, cov, distributed.all_reduce_sum(self.kept), self.count)


def folder_features(folder, img_size, batch_size, device):
    """Return the FeatureSet of the images below a folder. Raises UserError, MissingWeights."""
    paths, network = images_below(folder), fid.pretrained(str(device))
    accumulator = FeatureAccumulator(len(paths))
    for start in console.progress(range(0, len(paths), batch_size), desc=str(folder), unit="batch"):
        images = [fid.eval_transform(read_rgb(path), img_size) for path in paths[start : start + batch_size]]
        accumulator.add(network(torch.stack(images).to(device)), start)
    return accumulator.result()


def read_features(path, count):
    """Read the FeatureSet of `count` images from a file; None if it is missing or, with a warning, wrong."""
    try:
        arrays = read_arrays(path, ARRAYS)
        flaw = _flaw(arrays, count)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        flaw = reason(error)
    if flaw:
        console.warn(f"Cannot use {path} ({flaw}). The program computes the features of these images again.")
        return None
    tensors = {name: torch.from_numpy(arrays[name]) for name in ("mean", "cov", "kept")}
    return FeatureSet(**tensors, count=count)


def _flaw(arrays, count):
    """Return why arrays cannot be the FeatureSet of `count` images, an empty text if they can."""
    mean, cov, kept, number = (arrays[name] for name in ARRAYS)
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
    """Write a FeatureSet to a `cache_file` atomically, and delete those of earlier images. Raises UserError."""
    delete_earlier(path.parent, f"{glob.escape(path.stem[:-KEY_DIGITS])}{'?' * KEY_DIGITS}.npz")
    with atomic_write(path) as temporary:
        np.savez(temporary, **{name: getattr(features, name) for name in ARRAYS})


def cache_file(folder, name, paths, settings):
    """Return the path for the FeatureSet of images. Its name ends with a hash of the files' state and of settings."""
    try:
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    except OSError as error:
        raise UserError(
            f"Cannot read {error.filename} ({reason(error)}). Restore the file, or start again without it."
        ) from error
    content = json.dumps([files, *settings])
    return folder / f"{name}_{hashlib.blake2b(content.encode(), digest_size=KEY_DIGITS // 2).hexdigest()}.npz"
