"""Streaming statistics of features, and distances between sets of them."""

import numpy as np
import torch


class Moments:
    """Mean and covariance of feature vectors that come in batches, in float64, without keeping them.

    Batches are merged by their means and scatters (Chan, Golub, LeVeque 1983), not by sums of squares, whose
    difference would cancel. size: length d of the vectors.
    """

    def __init__(self, size):
        self.count = 0
        self.mean, self.scatter = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)

    def add(self, features):
        """Take in features (N, d)."""
        features = features.detach().cpu().double()
        mean = features.mean(0)
        centred = features - mean
        self.merge(len(features), mean, centred.T @ centred)

    def merge(self, count, mean, scatter):
        """Take in the moments of `count` others: their mean (d,) and scatter (d, d) about it."""
        total = self.count + count
        apart = mean - self.mean
        self.scatter += scatter + torch.outer(apart, apart) * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count = total

    def summed(self, total):
        """The moments of what several processes have taken in. total(tensor): its sum over them."""
        found = Moments(len(self.mean))
        found.count = int(total(torch.tensor(self.count)))
        found.mean = total(self.count * self.mean) / found.count
        apart = self.mean - found.mean
        found.scatter = total(self.scatter + self.count * torch.outer(apart, apart))
        return found

    def result(self):
        """Mean (d,) and covariance (d, d) over n - 1 as arrays; of one vector the covariance is zero."""
        return self.mean.numpy(), (self.scatter / max(1, self.count - 1)).numpy()


def frechet_distance(mu, cov, mu2, cov2, root=None):
    """Squared Frechet distance of two Gaussians: |mu - mu2|^2 + Tr(cov + cov2 - 2 (cov cov2)^(1/2)).

    The trace of the root is the sum of the roots of the eigenvalues of the symmetric cov^(1/2) cov2 cov^(1/2),
    which has those of cov cov2; none of them turns complex by rounding, and singular matrices need no care.
    mu, mu2: (d,). cov, cov2: (d, d). root: cov^(1/2) from `symmetric_root`, where it is used again.
    """
    root = symmetric_root(cov) if root is None else root
    trace_of_root = _roots(np.linalg.eigvalsh(root @ cov2 @ root)).sum()
    apart = np.asarray(mu) - np.asarray(mu2)
    return float(apart @ apart + np.trace(cov) + np.trace(cov2) - 2 * trace_of_root)


def frechet_distance_of_few(x, y):
    """The same for Gaussians of features (n, d) and (m, d), quick where one of the sets is small.

    With centred features A / sqrt(n - 1) and B / sqrt(m - 1), the trace of the root is the sum of the singular
    values of A B^T, an n x m matrix, and no covariance is formed.
    """
    means = x.mean(0, dtype=np.float64), y.mean(0, dtype=np.float64)
    a, b = ((z - mean) / np.sqrt(max(1, len(z) - 1)) for z, mean in zip((x, y), means, strict=True))
    trace_of_root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    apart = means[0] - means[1]
    return float(apart @ apart + np.square(a).sum() + np.square(b).sum() - 2 * trace_of_root)


def symmetric_root(matrix):
    """The square root (d, d) of a symmetric matrix (d, d) without negative eigenvalues."""
    values, vectors = np.linalg.eigh(np.atleast_2d(matrix))
    return (vectors * _roots(values)) @ vectors.T


def _roots(eigenvalues):
    """Square roots, zero for what is zero but for rounding: thousands of such roots would add up."""
    rounding = len(eigenvalues) * np.finfo(np.float64).eps * eigenvalues.max()
    return np.sqrt(np.where(eigenvalues > rounding, eigenvalues, 0))


def kernel_distance(features, features2, block=4096):
    """KID: unbiased squared distance of two sets of features (N, d), (M, d) in the kernel (x.y / d + 1)^3.

    Its expectation is zero for sets of one distribution, whatever their size, so it also suits small ones
    (Binkowski et al., ICLR 2018). NaN where a set has fewer than two.
    """
    n, m = len(features), len(features2)
    if min(n, m) < 2:
        return float("nan")
    within, within2 = (_kernel_sum(x, x, block) - _kernel_of_itself(x) for x in (features, features2))
    across = _kernel_sum(features, features2, block)
    return float(within / (n * (n - 1)) + within2 / (m * (m - 1)) - 2 * across / (n * m))


def _kernel_sum(x, y, block):
    parts = [(a, b) for a in x.split(block) for b in y.split(block)]
    return sum(((a.double() @ b.double().T / a.shape[1] + 1) ** 3).sum() for a, b in parts)


def _kernel_of_itself(x):
    return ((x.double().square().sum(1) / x.shape[1] + 1) ** 3).sum()
