"""Residual blocks, adaptive instance normalisation and the high-pass filter (paper, appendix)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from core import resample

SLOPE = 0.2  # of the activation for negative values


def activation():
    """Return the activation of G, E and D, a leaky ReLU."""
    return nn.LeakyReLU(SLOPE)


class ResBlk(nn.Module):
    """Pre-activation residual block of unit variance, optionally with instance normalisation and downsampling by 2."""

    def __init__(self, dim_in, dim_out, normalize=False, downsample=False):
        super().__init__()
        self.downsample = downsample
        self.act = activation()
        self.conv1 = nn.Conv2d(dim_in, dim_in, 3, padding=1)
        self.conv2 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.norm1 = nn.InstanceNorm2d(dim_in, affine=True) if normalize else nn.Identity()
        self.norm2 = nn.InstanceNorm2d(dim_in, affine=True) if normalize else nn.Identity()
        self.conv1x1 = nn.Conv2d(dim_in, dim_out, 1, bias=False) if dim_in != dim_out else nn.Identity()

    def forward(self, x):
        """x (N, dim_in, H, W) -> (N, dim_out, H, W), with `downsample` (N, dim_out, H/2, W/2)."""
        main = self.act(self.norm1(x))
        main = resample.conv_downsample(main, self.conv1) if self.downsample else self.conv1(main)
        main = self.conv2(self.act(self.norm2(main)))  # (N, dim_out, H/2, W/2)
        skip = self.conv1x1(resample.downsample(x) if self.downsample else x)  # (N, dim_out, H/2, W/2)
        return (main + skip) / math.sqrt(2)


class AdaIN(nn.Module):
    """Instance normalisation with scale and shift from a style code (paper, section 2.1)."""

    def __init__(self, style_dim, num_features):
        super().__init__()
        self.fc = nn.Linear(style_dim, num_features * 2)

    def forward(self, x, s):
        """x (N, C, H, W), s (N, style_dim) -> (N, C, H, W). If one has N = 1, it is used for all. Raises RuntimeError
        for other unequal N, ValueError if H = W = 1."""
        gamma, beta = self.fc(s).chunk(2, dim=1)  # (N, C) each
        count = max(x.shape[0], s.shape[0])
        x = x.expand(count, -1, -1, -1)
        scale, shift = (1 + gamma.expand(count, -1)).to(x.dtype), beta.expand(count, -1).to(x.dtype)
        # Treat every channel of every image as one channel of a batch norm. This normalises, scales and shifts in one
        # pass over memory. An instance norm, a product and a sum need three.
        channels = x.reshape(1, -1, *x.shape[2:])  # (1, N * C, H, W)
        out = F.batch_norm(channels, None, None, scale.flatten(), shift.flatten(), training=True, eps=1e-5)
        return out.view(x.shape)


class AdainResBlk(nn.Module):
    """Residual block with AdaIN, optionally with upsampling by 2. With the high-pass filter (w_hpf > 0) it has no skip
    path; the unused `conv1x1` stays in the state dict for compatibility with checkpoints."""

    def __init__(self, dim_in, dim_out, style_dim=64, w_hpf=0, upsample=False):
        super().__init__()
        self.has_skip = w_hpf == 0
        self.upsample = upsample
        self.act = activation()
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1)
        self.norm1 = AdaIN(style_dim, dim_in)
        self.norm2 = AdaIN(style_dim, dim_out)
        self.conv1x1 = nn.Conv2d(dim_in, dim_out, 1, bias=False) if dim_in != dim_out else nn.Identity()

    def forward(self, x, s):
        """x (N, dim_in, H, W), s (N, style_dim) -> (N, dim_out, H, W), with `upsample` (N, dim_out, 2H, 2W)."""
        main = self.act(self.norm1(x, s))
        main = resample.upsample_conv(main, self.conv1) if self.upsample else self.conv1(main)  # (N, dim_out, 2H, 2W)
        main = self.conv2(self.act(self.norm2(main, s)))  # (N, dim_out, 2H, 2W)
        if not self.has_skip:  # High frequencies of the source pass only through the filter.
            return main
        skip = self.conv1x1(x)  # Before the upsampling, where it is four times cheaper.
        return (main + (resample.upsample(skip) if self.upsample else skip)) / math.sqrt(2)


class HighPass(nn.Module):
    """Edge filter for each channel: eight times the pixel minus its eight neighbours, divided by `w_hpf`."""

    def __init__(self, w_hpf):
        super().__init__()
        kernel = torch.full((3, 3), -1.0)
        kernel[1, 1] = 8.0
        self.register_buffer("filter", kernel / w_hpf)

    def forward(self, x):
        """(N, C, H, W) -> (N, C, H, W), with zero padding."""
        channels = x.shape[1]
        return F.conv2d(x, self.filter.expand(channels, 1, 3, 3), padding=1, groups=channels)
