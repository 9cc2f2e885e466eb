"""SSIM of known images, and the same numbers from scikit-image."""

import numpy as np
import pytest
import torch

from metrics.ssim import luma, ssim


def images(seed, size=(40, 52), count=3):
    rough = np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)
    return np.stack([np.repeat(np.repeat(x[::4, ::4], 4, 0), 4, 1) for x in rough])


@pytest.mark.parametrize("noise", [2, 20, 200])
def test_ssim_equals_that_of_scikit_image(noise):
    x = images(0)
    y = (x + np.random.default_rng(1).normal(0, noise, x.shape)).clip(0, 255).astype(np.uint8)
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    luma_x, luma_y = luma(x), luma(y)
    expected = [structural_similarity(a.numpy(), b.numpy(), **options) for a, b in zip(luma_x, luma_y, strict=True)]
    found = ssim(luma_x, luma_y)
    assert found.tolist() == pytest.approx(expected, abs=1e-4) and expected[0] < 0.999
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim(luma(x), luma(y)), found)


@pytest.mark.parametrize("values", [(230, 229), (253, 252), (255, 255), (0, 3)])
def test_ssim_of_flat_images_equals_that_of_scikit_image(values):
    """White backgrounds: variances are differences of large numbers."""
    skimage = pytest.importorskip("skimage.metrics")
    x, y = (np.full((24, 24), value, np.float64) for value in values)
    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    found = ssim(*(torch.from_numpy(image).float()[None] for image in (x, y))).item()
    assert found == pytest.approx(skimage.structural_similarity(x, y, **options), abs=1e-4)


def test_ssim_of_equal_inverted_and_black_images():
    x = luma(images(0))
    assert ssim(x, x).tolist() == pytest.approx([1] * 3)
    assert (ssim(x, 255 - x) < 0).all()
    black = torch.zeros(1, 16, 16)
    assert ssim(black, black).item() == 1 and ssim(black, black + 255).item() < 1e-3


def test_luma_weighs_colours_as_bt_601():
    colours = np.array([[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]]], np.uint8)
    assert luma(colours)[0, 0].tolist() == pytest.approx([76.245, 149.685, 29.07, 255])
