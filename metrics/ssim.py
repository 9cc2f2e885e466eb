"""SSIM: structural similarity of the luma of two images (Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004)."""

import numpy as np
import torch

RADIUS, SIGMA = 5, 1.5  # of the Gaussian window, in pixels
WINDOW = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * SIGMA**2))
WINDOW = (WINDOW / WINDOW.sum()).tolist()
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
MIDDLE = 128  # subtracted first: variances of large values would lose precision
LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601


def luma(images):
    """Return the luma of 8-bit images: uint8 array (N, H, W, 3) -> float tensor (N, H, W) in [0, 255]."""
    return torch.from_numpy(images @ LUMA)


def ssim(x, y):
    """Return the mean SSIM of each pair of luma images x, y (N, H, W) in [0, 255], at least 11 px a side: (N,)."""
    x, y = x - MIDDLE, y - MIDDLE
    maps = torch.stack([x, y, x * x, y * y, x * y])  # (5, N, H, W)
    # Sums of shifted images: unlike convolutions, they do not lose precision under autocast or with TF32.
    for dim in (2, 3):
        length = maps.shape[dim] - 2 * RADIUS  # without borders
        shifted = [maps.narrow(dim, offset, length) for offset in range(2 * RADIUS + 1)]
        maps = torch.zeros_like(shifted[0])
        for part, weight in zip(shifted, WINDOW, strict=True):
            maps.add_(part, alpha=weight)
    mean_x, mean_y, xx, yy, xy = maps
    structure = (2 * (xy - mean_x * mean_y) + C2) / (xx - mean_x**2 + yy - mean_y**2 + C2)
    mean_x, mean_y = mean_x + MIDDLE, mean_y + MIDDLE
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return (luminance * structure).mean((1, 2))
