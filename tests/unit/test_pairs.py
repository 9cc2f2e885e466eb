"""Known answers for the scores of two sets of features, and the same numbers from other programs."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from metrics import pairs
from metrics.pairs import pair_scores
from metrics.sets import FeatureSet, set_scores
from metrics.stats import Moments


def draw(count, seed, size=16, scale=1.0, shift=0.0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) * scale + shift


def as_set(features):
    moments = Moments(features.shape[1])
    moments.add(features)
    return FeatureSet(*map(torch.from_numpy, moments.result()), kept=features, count=len(features))


def test_scores_follow_their_definitions():
    real, fake = draw(40, 1).double(), draw(30, 2, scale=0.8, shift=0.5).double()
    across = torch.cdist(real, fake)
    radius = [torch.cdist(x, x).sort(1).values[:, 5] for x in (real, fake)]
    in_real, in_fake = across < radius[0][:, None], across < radius[1]
    found = pair_scores(real, fake)
    assert found.precision == pytest.approx(in_real.any(0).double().mean().item())
    assert found.recall == pytest.approx(in_fake.any(1).double().mean().item())
    assert found.density == pytest.approx(in_real.sum().item() / (5 * 30))
    assert found.coverage == pytest.approx(in_real.any(1).double().mean().item())
    assert 0 < found.coverage < found.precision < 1


def test_kernel_distance_is_unbiased_and_equals_the_sum_over_pairs():
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64) + 1
    k = lambda a, b: float((a @ b / 5 + 1) ** 3)  # noqa: E731
    within = [np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
    expected = sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert pytest.approx(expected) == pair_scores(x, y).KID
    assert np.isnan(pair_scores(x, y[:1]).KID)
    draws = torch.randn(400, 6, 5, generator=torch.Generator().manual_seed(0))
    assert abs(np.mean([pair_scores(a[:3], a[3:]).KID for a in draws])) < 0.2


def test_scores_do_not_depend_on_the_size_of_blocks(monkeypatch):
    x, y = draw(40, 1), draw(33, 2)
    expected = pair_scores(x, y)
    monkeypatch.setattr(pairs, "BLOCK", 7)
    assert pair_scores(x, y) == pytest.approx(expected)


def test_equal_sets_have_the_best_scores():
    x = draw(200, 1, size=2048) + 100
    found = set_scores(as_set(x), as_set(x.clone()))
    assert [found[name] for name in ("precision", "recall", "density", "coverage")] == pytest.approx([1, 1, 1, 1])
    assert found["FID"] == pytest.approx(0, abs=1e-6)


def test_equal_sets_of_repeated_images_are_recognised():
    """Balls have the radius 0."""
    x = draw(10, 1, size=2048).repeat(6, 1) + 100
    assert pair_scores(x, x.clone())[1:] == pytest.approx((1, 1, 1.2, 1))
    assert pair_scores(x, x[:1].repeat(6, 1) + 1)[1:] == (0, 0, 0, 0)


def test_sets_of_one_distribution_have_good_scores():
    found = pair_scores(draw(1000, 1), draw(1000, 2))
    assert min(found.precision, found.recall, found.coverage) > 0.85 and found.density == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("spread", [0, 1e-3])
def test_collapse_costs_recall_and_coverage_but_not_precision(spread):
    """All outputs look like one real image."""
    real = draw(500, 1)
    found = pair_scores(real, real[:1] + spread * draw(300, 2))
    assert found.precision == 1 and found.recall < 0.01 and found.coverage < 0.1


def test_outputs_that_look_like_nothing_real_have_no_precision():
    found = pair_scores(draw(300, 1), draw(300, 2, shift=10))
    assert found.precision == found.density == found.coverage == found.recall == 0


@pytest.mark.parametrize(("n", "m"), [(5, 40), (40, 5), (6, 6)])
def test_small_sets_have_no_neighbours(n, m):
    found = pair_scores(draw(n, 1), draw(m, 2))
    assert np.isnan(found[1:]).all() == (min(n, m) < 6) == (min(n, m) < pairs.FEWEST["recall"])
    assert np.isfinite(found.KID)


@pytest.mark.parametrize("shift", [0, 0.5, 1])
def test_precision_and_recall_equal_those_of_torch_fidelity(shift):
    torch_fidelity = pytest.importorskip("torch_fidelity.metric_prc")
    real, fake = draw(600, 1, size=64), draw(500, 2, size=64, scale=0.9, shift=shift)
    precision, recall = torch_fidelity.calculate_precision_recall_full(fake, real, neighborhood=5)
    found = pair_scores(real, fake)
    assert (found.precision, found.recall) == pytest.approx((precision, recall), abs=1e-4)
    assert 0 < precision < 1


@pytest.mark.parametrize("count", [700, 60])  # by covariances, by features
def test_fid_equals_the_plain_formula(count):
    real, fake = draw(count, 1, size=48), draw(count + 9, 2, size=48, scale=1.3, shift=0.2)
    (mu, cov), (mu2, cov2) = (
        (x.double().mean(0).numpy(), np.cov(x.double().numpy(), rowvar=False)) for x in (real, fake)
    )
    expected = ((mu - mu2) ** 2).sum() + np.trace(cov + cov2 - 2 * sqrtm(cov @ cov2).real)
    assert set_scores(as_set(real), as_set(fake))["FID"] == pytest.approx(expected, rel=1e-6)
