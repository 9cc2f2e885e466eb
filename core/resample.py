"""Convolutions beside a resampling by two, with the resampling folded into the kernel.

The networks halve their images by 2x2 averages behind a 3x3 convolution and double them by nearest neighbours in
front of one. Both pairs are linear, and each is one convolution of stride 2:

Averaging behind (K the 3x3 kernel, zero padding 1). An average of four neighbouring outputs is

    y[u] = 1/2 sum_a (sum_i K[i] x[2u + a + i - 1]) = sum_k (1/2 sum_a K[k - a]) x[2u + k - 1],

a, i counted per axis, a in {0, 1}: a 4x4 kernel, the mean of K's four shifts, stride 2, padding 1. The zeros that the
padding adds are the same ones, so borders are exact, and a constant bias passes through an average unchanged. 16
products for four outputs' 36.

Doubling in front. Nearest neighbours are four times the transpose of the average, and a convolution is the transpose
of the one with its kernel flipped and its channels swapped. So doubling, then K, is the transpose of (that
convolution, then sums of four): a transposed 4x4 convolution of stride 2 and padding 1, whose kernel is the sum of the
four shifts of the flipped kernel. Again 16 products for 36.

A 1x1 convolution commutes with both, so skips use it on the side of the smaller image. Gradients and the second
gradients that R1 needs are those of the plain form, up to rounding. Modules keep their plain nn.Conv2d, so state dicts
do not change.

What is saved grows with the image, what the larger kernel costs does not: folded, a convolution forward and
backward takes 0.6 of the plain time at 64 px, 0.8 at 32, 1.5 at 16 and four times as much at 8 (CPU, batch 2,
256 to 512 channels; benchmarks/README.md). At 16 px that is 1 % of an iteration, less with larger batches.
"""

import torch
from torch.nn import functional as F

FOLD_FROM = 16  # side of the larger image; below, the plain form


def downsample(x):
    """Means of 2x2 pixels: (N, C, H, W) -> (N, C, H/2, W/2)."""
    return F.avg_pool2d(x, 2)


def upsample(x):
    """Every pixel as 2x2: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def conv_downsample(x, conv):
    """downsample(conv(x)) for a 3x3 nn.Conv2d of padding 1: (N, C, H, W) -> (N, C', H/2, W/2)."""
    if x.shape[2] < FOLD_FROM:
        return downsample(conv(x))
    return F.conv2d(x, _four_shifts(conv.weight) / 4, conv.bias, stride=2, padding=1)


def upsample_conv(x, conv):
    """conv(upsample(x)) for a 3x3 nn.Conv2d of padding 1: (N, C, H, W) -> (N, C', 2H, 2W)."""
    if 2 * x.shape[2] < FOLD_FROM:
        return conv(upsample(x))
    kernel = conv.weight.flip(2, 3).transpose(0, 1)  # (C, C', 3, 3)
    return F.conv_transpose2d(x, _four_shifts(kernel), conv.bias, stride=2, padding=1)


def _four_shifts(kernel):
    """The sum of a kernel's shifts by 0 and 1 along both axes: (C', C, 3, 3) -> (C', C, 4, 4).

    As one product over the weights, since pads and sums of them take many passes through memory.
    """
    options = {"dtype": kernel.dtype, "device": kernel.device}  # made there: a copy would wait for the device
    one_axis = torch.eye(3, 4, **options) + torch.eye(4, **options)[1:]  # (3, 4): to its place and to the next
    return (kernel.flatten(2) @ torch.kron(one_axis, one_axis)).unflatten(2, (4, 4))
