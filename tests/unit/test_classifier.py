"""The classifier of domains on features with known answers."""

import pytest
import torch

from metrics.classifier import accuracy, fit_classifier


def classes(counts, seed, size=32, distance=1.5):
    """Gaussian classes, moved apart along one axis each, on the scales of real features."""
    generator = torch.Generator().manual_seed(seed)
    shifts = distance * torch.eye(size)
    scale = torch.logspace(-2, 2, size)
    return [(torch.randn(n, size, generator=generator) + shifts[k]) * scale + 3 for k, n in enumerate(counts)]


def mean_accuracy(classifier, features):
    return sum(accuracy(classifier, x, label) for label, x in enumerate(features)) / len(features)


def test_it_generalises_and_loses_what_is_shuffled():
    classifier, fresh = fit_classifier(classes([300] * 3, 0, distance=4)), classes([200] * 3, 1, distance=4)
    assert mean_accuracy(classifier, fresh) > 0.95
    rotated = fresh[1:] + fresh[:1]  # each class under the label of another
    assert mean_accuracy(classifier, rotated) < 0.05
    mixed = torch.cat(fresh)[torch.randperm(600, generator=torch.Generator().manual_seed(0))].split(200)
    assert mean_accuracy(classifier, mixed) == pytest.approx(1 / 3, abs=0.1)


def test_classes_count_equally():
    """Where a class has far more images, the classifier does not prefer it."""
    classifier = fit_classifier(classes([2000, 50], 0))
    parts = [accuracy(classifier, x, label) for label, x in enumerate(classes([1000, 1000], 1))]
    assert min(parts) > 0.6


def test_autocast_changes_nothing():
    """Evaluation runs with --precision bf16, too."""
    x = classes([50, 50], 0, distance=4)
    expected = fit_classifier(x)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = fit_classifier(x)
        assert mean_accuracy(found, x) == 1
    assert all(torch.equal(a, b) and a.any() for a, b in zip(found, expected, strict=True))


def test_constant_features_and_single_images_are_accepted():
    x = [torch.ones(1, 4), torch.cat([torch.ones(2, 3), torch.zeros(2, 1)], dim=1)]
    classifier = fit_classifier(x)
    assert mean_accuracy(classifier, x) == 1 and all(part.isfinite().all() for part in classifier)
    assert not any(part.requires_grad for part in classifier)
