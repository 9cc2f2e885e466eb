"""3x3 convolutions combined with a resampling by two, computed as one convolution of stride 2.

The networks downsample with a 3x3 convolution followed by 2x2 average pooling. They upsample with nearest-neighbour
interpolation followed by a 3x3 convolution. Both pairs are linear, and each equals one convolution with a 4x4 kernel.

Downsampling. Let K be the 3x3 kernel, with zero padding 1. Per axis, with a in {0, 1}, the average of neighbouring
outputs is

    y[u] = 1/2 sum_a (sum_i K[i] x[2u + a + i - 1]) = sum_k (1/2 sum_a K[k - a]) x[2u + k - 1].

This is a convolution of stride 2 and padding 1. Its 4x4 kernel is the mean of the four shifts of K. The padding adds
the same zeros as before, so borders are exact. The average does not change the bias. A pooled output needs 16 products
instead of 4 * 9 = 36.

Upsampling. Nearest-neighbour interpolation is four times the transpose of the average. A convolution is the transpose
of the convolution with flipped kernel and swapped channels. So interpolation followed by K is the transpose of that
convolution followed by 2x2 sums. This is a transposed 4x4 convolution of stride 2 and padding 1. Its kernel is the sum
of the four shifts of the flipped kernel. Four outputs again need 16 products instead of 36.

A 1x1 convolution commutes with both resamplings, so skip paths apply it to the smaller image. Gradients equal those of
the plain form up to rounding. Modules still use plain nn.Conv2d, so state dicts do not change.

The saving grows with the image size, the cost of the larger kernel does not. Relative to the plain form, forward and
backward of a convolution take 0.6 times as long at 64 px, 0.8 at 32 px, 1.5 at 16 px and 4 at 8 px (CPU, batch 2, 256
to 512 channels; benchmarks/README.md). The loss at 16 px is 1 % of an iteration, less with larger batches.
"""

import torch
from torch.nn import functional as F

FOLD_FROM = 16  # minimum side of the larger image; smaller images use the plain form


def downsample(x):
    """Average 2x2 pixels: (N, C, H, W) -> (N, C, H/2, W/2)."""
    return F.avg_pool2d(x, 2)


def upsample(x):
    """Repeat every pixel 2x2 times: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def conv_downsample(x, conv):
    """Return downsample(conv(x)) for a 3x3 nn.Conv2d of padding 1: (N, C, H, W) -> (N, C', H/2, W/2)."""
    if x.shape[2] < FOLD_FROM:
        return downsample(conv(x))
    return F.conv2d(x, _four_shifts(conv.weight) / 4, conv.bias, stride=2, padding=1)


def upsample_conv(x, conv):
    """Return conv(upsample(x)) for a 3x3 nn.Conv2d of padding 1: (N, C, H, W) -> (N, C', 2H, 2W)."""
    if 2 * x.shape[2] < FOLD_FROM:
        return conv(upsample(x))
    kernel = conv.weight.flip(2, 3).transpose(0, 1)  # (C, C', 3, 3)
    return F.conv_transpose2d(x, _four_shifts(kernel), conv.bias, stride=2, padding=1)


def _four_shifts(kernel):
    """Return the sum of a kernel's shifts by 0 and 1 along both axes: (C', C, 3, 3) -> (C', C, 4, 4).

    It is computed as one matrix product. Padding and adding would need many passes over memory.
    """
    options = {"dtype": kernel.dtype, "device": kernel.device}  # A copy from the CPU would wait for the device.
    one_axis = torch.eye(3, 4, **options) + torch.eye(4, **options)[1:]  # (3, 4), sum of the shifts by 0 and 1
    return (kernel.flatten(2) @ torch.kron(one_axis, one_axis)).view(*kernel.shape[:2], 4, 4)
