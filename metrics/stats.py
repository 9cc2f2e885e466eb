"""Streaming means and covariances of features, and the Frechet distance."""

import numpy as np
import torch


class Moments:
    """Mean and covariance of batches of feature vectors of length d = `size`, in float64.

    Batches are merged by means and scatters (Chan, Golub, LeVeque 1983); sums of squares would lose precision.
    """

    def __init__(self, size):
        self.count = 0
        self.mean, self.scatter = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)

    def add(self, features):
        """Add features (N, d)."""
        features = features.detach().cpu().double()
        count, mean = len(features), features.mean(0)
        centred, shift, total = features - mean, mean - self.mean, self.count + count
        self.scatter += centred.T @ centred + torch.outer(shift, shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total

    def reduced(self, all_reduce_sum):
        """Return the Moments of the vectors of all processes. all_reduce_sum(tensor): its sum over processes."""
        total = Moments(len(self.mean))
        total.count = int(all_reduce_sum(torch.tensor(self.count)))
        total.mean = all_reduce_sum(self.count * self.mean) / total.count
        shift = self.mean - total.mean
        total.scatter = all_reduce_sum(self.scatter + self.count * torch.outer(shift, shift))
        return total

    def result(self):
        """Return mean (d,) and covariance (d, d), divided by n - 1, as arrays; the covariance of one vector is zero."""
        return self.mean.numpy(), (self.scatter / max(1, self.count - 1)).numpy()


def frechet_distance(mu, cov, mu2, cov2, root=None):
    """Return the squared Frechet distance of two Gaussians: |mu - mu2|^2 + Tr(cov + cov2 - 2 (cov cov2)^(1/2)).

    cov cov2 has the same eigenvalues as the symmetric cov^(1/2) cov2 cov^(1/2), which stay real despite rounding.
    mu, mu2: (d,). cov, cov2: (d, d). root: cov^(1/2) from `symmetric_root`, if known.
    """
    root = symmetric_root(cov) if root is None else root
    trace_of_root = _roots(np.linalg.eigvalsh(root @ cov2 @ root)).sum()
    shift = np.asarray(mu) - np.asarray(mu2)
    return float(shift @ shift + np.trace(cov) + np.trace(cov2) - 2 * trace_of_root)


def frechet_distance_of_few(x, y):
    """Return the same distance for features (n, d) and (m, d); fast if one of the sets is small.

    With the centred features A, divided by sqrt(n - 1), and B, by sqrt(m - 1), the trace of the root is the sum of the
    singular values of the n x m matrix A B^T. No covariance is computed.
    """
    means = x.mean(0, dtype=np.float64), y.mean(0, dtype=np.float64)
    a, b = ((z - mean) / np.sqrt(max(1, len(z) - 1)) for z, mean in zip((x, y), means, strict=True))
    trace_of_root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    shift = means[0] - means[1]
    return float(shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * trace_of_root)


def symmetric_root(matrix):
    """Return the square root of a symmetric matrix (d, d) without negative eigenvalues."""
    values, vectors = np.linalg.eigh(np.atleast_2d(matrix))
    return (vectors * _roots(values)) @ vectors.T


def _roots(eigenvalues):
    """Return square roots; zero for eigenvalues within rounding error, since thousands of such roots would add up."""
    rounding = len(eigenvalues) * np.finfo(np.float64).eps * eigenvalues.max()
    return np.sqrt(np.where(eigenvalues > rounding, eigenvalues, 0))
