"""Sets of images as feature vectors, and the scores of one set against another."""

from dataclasses import dataclass
from functools import cached_property

import torch

from metrics.pairs import pair_scores, within
from metrics.stats import frechet_distance, frechet_distance_of_few, symmetric_root

MOST_KEPT = 10_000  # features stored per set: 80 MB
FEW = 512  # images; up to this number FID is faster from features than from covariances


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of a set of images. What scores need of this set alone is computed once, when first used."""

    mean: torch.Tensor  # (d,), float64
    cov: torch.Tensor  # (d, d), float64
    kept: torch.Tensor  # (min(count, MOST_KEPT), d), of its first images
    count: int  # number of images

    @cached_property
    def root(self):
        """The square root of the covariance, an array (d, d)."""
        return symmetric_root(self.cov.numpy())

    @cached_property
    def within(self):
        """The mean kernel and the radii of the kept features, see `metrics.pairs.within`."""
        return within(self.kept)


def set_scores(real, fake):
    """Return {name: score} of a FeatureSet against that of real images: FID, and the PairScores of kept features."""
    if min(real.count, fake.count) <= FEW and max(real.count, fake.count) <= MOST_KEPT:
        distance = frechet_distance_of_few(real.kept.numpy(), fake.kept.numpy())
    else:
        mu, cov, mu2, cov2 = (moment.numpy() for moment in (real.mean, real.cov, fake.mean, fake.cov))
        distance = frechet_distance(mu, cov, mu2, cov2, root=real.root)
    return {"FID": distance} | pair_scores(real.kept, fake.kept, real.within, fake.within)._asdict()
