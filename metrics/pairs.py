"""Scores from the pairs of two sets of feature vectors: KID, precision, recall, density and coverage.

KID is the unbiased squared MMD with the kernel (x.y / d + 1)^3 (Binkowski et al., ICLR 2018). The ball of a vector
reaches to its k-th nearest neighbour in its own set, k = 5. Precision is the fraction of fake vectors in the ball of a
real one, recall the fraction of real vectors in the ball of a fake one (Kynkaanniemi et al., NeurIPS 2019). Density is
the number of real balls around a fake vector, divided by k, and coverage the fraction of real balls with a fake vector
(Naeem et al., ICML 2020).
"""

from typing import NamedTuple

import torch

NEIGHBOURS = 5  # k
BLOCK = 512  # rows of products in memory at once
INSIDE = 1 - 1e-9  # of the squared radius: a neighbour that defines a ball is not inside, despite rounding
SAME = 1e-13  # of the largest squared length: an equal vector is inside a ball of radius 0, despite rounding


class PairScores(NamedTuple):
    """Scores of a set against real vectors; NaN if a set has fewer vectors than FEWEST."""

    KID: float
    precision: float
    recall: float
    density: float
    coverage: float


FEWEST = dict.fromkeys(PairScores._fields, NEIGHBOURS + 1) | {"KID": 2}


def pair_scores(real, fake, within_real=None, within_fake=None):
    """Return the PairScores of vectors real (N, d), fake (M, d). within_real, within_fake: from `within`, if known."""
    kernel, radii = within_real or within(real)
    kernel2, radii2 = within_fake or within(fake)
    total, balls, covered, recalled = 0.0, torch.zeros(len(fake), dtype=torch.float64), 0, 0
    for rows, products, distances in _blocks(real, fake):  # (rows, M)
        total += _kernel(products, real.shape[1]).sum().item()
        in_real, in_fake = distances < radii[rows, None], distances < radii2
        balls += in_real.sum(0)  # (M,)
        covered += in_real.any(1).sum().item()
        recalled += in_fake.any(1).sum().item()
    kid = kernel + kernel2 - 2 * total / (len(real) * len(fake))
    if min(len(real), len(fake)) <= NEIGHBOURS:
        return PairScores(kid, *[float("nan")] * 4)
    precision, density = (balls > 0).double().mean().item(), balls.mean().item() / NEIGHBOURS
    return PairScores(kid, precision, recalled / len(real), density, covered / len(real))


def within(x):
    """Return what `pair_scores` needs of one set x (N, d): the mean kernel of two vectors, and squared radii (N,)."""
    count, d, total, radii = *x.shape, 0.0, []
    for rows, products, distances in _blocks(x, x):
        total += (_kernel(products, d).sum() - _kernel(products.diagonal(rows.start), d).sum()).item()
        distances.diagonal(rows.start).fill_(torch.inf)  # A vector is no neighbour of itself.
        radii.append(distances.topk(min(NEIGHBOURS, count), largest=False).values[:, -1])
    rounding = SAME * x.double().square().sum(1).max()
    return total / (count * (count - 1)) if count > 1 else float("nan"), torch.cat(radii) * INSIDE + rounding


def _blocks(x, y):
    """Yield (rows of x, their inner products with y, their squared distances from y) in float64."""
    y = y.double()
    squares = y.square().sum(1)
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK].double()
        products = part @ y.T
        distances = (-2 * products).add_(squares).add_(part.square().sum(1, keepdim=True))
        yield slice(start, start + len(part)), products, distances


def _kernel(products, d):
    return (products / d + 1) ** 3
