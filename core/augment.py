"""Differentiable augmentation of the images that D sees, for training on few images.

D memorises few training images, and then its gradient no longer helps G. So D sees every image through a random
transform: real and generated images alike, in its own updates and in those of G (Zhao et al. 2020,
DiffAugment). Each kind of transform happens with probability p. While p is well below 1, G still learns the
distribution of plain images and not that of transformed ones (Karras et al. 2020, "Training generative adversarial
networks with limited data", section 2 and appendix B, where the ranges of the transforms come from).

Only D sees transformed images. E must see the true colours, since it extracts the style, and the cycle loss compares
pixels. If they saw transformed images, styles and outputs would contain the transforms.

A transform is an affine function of the pixels: one bilinear resampling, a matrix of colours, a mask. So D of a
transformed image is piecewise linear in the plain image, as core.r1 needs. R1 differentiates by the plain image.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from core.system.device import at_least_single
from core.system.random import random_generator

KINDS = ("flip", "shift", "scale", "rotation", "brightness", "contrast", "hue", "saturation", "cutout")
NUMBERS = len(KINDS) + 10  # random numbers of a transform: whether each kind happens, and 10 for how

LARGEST_SHIFT = 1 / 8  # in sides of the image
CUT = 1 / 2  # side of a cut-out square, in sides of the image
# Karras et al. use 0.6 and 500,000. In short trainings of this model, the mean sign of a D that memorised 30 images per
# domain was only 0.7, so that p stayed near 0 (benchmarks/README.md, "Few training images").
TARGET = 0.2  # mean sign of D's logits at real images
WINDOW = 256  # images in the mean
FULL_RANGE = 50_000  # real images until p rises from 0 to 1
LARGEST = 0.8  # Karras et al. saw transforms in the outputs when p was higher.


def random_numbers(seed, iteration, count, updates):
    """Return the random numbers of an iteration, uniform in [0, 1): (count, updates, 2, NUMBERS) for `count` images,
    in each update for real and for generated ones."""
    return torch.rand(count, updates, 2, NUMBERS, generator=random_generator(seed, "augment", iteration))


def augmented(x, numbers, p):
    """Transform images x (N, 3, H, W) in [-1, 1] by random numbers (N, NUMBERS) and the probability p of each kind.

    Returns (N, 3, H, W), at least in single precision, not clamped. p is a number or a scalar tensor.
    """
    with torch.autocast(x.device.type, enabled=False):  # bf16 would round positions and colours.
        x = at_least_single(x)
        chances, values = numbers.to(x.dtype).split([len(KINDS), NUMBERS - len(KINDS)], dim=1)
        happens = dict(zip(KINDS, (chances < p).unbind(1), strict=True))  # (N,) each
        happens["flip"] = chances[:, 0] < p / 2  # The other half of the flips change nothing.
        pixels = (torch.arange(x.shape[-1], dtype=x.dtype, device=x.device) + 0.5) * 2 / x.shape[-1] - 1  # (W,)
        # Sums of products, since matrix products may round to TF32.
        matrix = sampling_matrix(happens, values[:, :4], len(pixels))
        places = torch.stack([*torch.meshgrid(pixels, pixels, indexing="xy"), torch.ones_like(x[0, 0])], dim=-1)
        grid = (places[:, :, None] * matrix[:, None, None]).sum(-1)  # (N, H, W, 2)
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        matrix, constant = colour_matrix(happens, values[:, 4:8])
        x = (matrix[..., None, None] * x[:, None]).sum(2) + constant[:, None, None, None]  # (N, 3, H, W)
        return x * cutout_mask(happens["cutout"], values[:, 8:], pixels)


def sampling_matrix(happens, values, size):
    """Return the matrices (N, 2, 3) from positions in the result to positions in the image; both are in [-1, 1].

    happens: {kind: (N,) bool}. values (N, 4): shift by x and y, scale, rotation; uniform in [0, 1). size: H = W.
    """
    shift = ((2 * values[:, :2] - 1) * LARGEST_SHIFT * size).round() * 2 / size  # by whole pixels
    shift = shift * happens["shift"][:, None]
    scale = torch.exp2(0.2 * _normal(values[:, 2]) * happens["scale"])
    angle = 2 * math.pi * values[:, 3] * happens["rotation"]
    cos, sin = scale * angle.cos(), scale * angle.sin()
    matrix = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).view(-1, 2, 3)
    mirrored = torch.cat([-matrix[:, :1], matrix[:, 1:]], dim=1)
    return torch.where(happens["flip"][:, None, None], mirrored, matrix)


def colour_matrix(happens, values):
    """Return matrices (N, 3, 3) and constants (N,): RGB becomes matrix @ RGB + constant.

    happens: {kind: (N,) bool}. values (N, 4): brightness, contrast, hue, saturation; uniform in [0, 1).
    """
    brightness = 0.2 * _normal(values[:, 0]) * happens["brightness"]
    contrast = torch.exp2(0.5 * _normal(values[:, 1]) * happens["contrast"])
    angle = 2 * math.pi * values[:, 2] * happens["hue"]
    saturation = torch.exp2(_normal(values[:, 3]) * happens["saturation"])
    unit = torch.eye(3, dtype=values.dtype, device=values.device)
    grey = torch.full_like(unit, 1 / 3)  # projects a colour onto the axis of greys
    quarter = (unit.roll(1, 0) - unit.roll(-1, 0)) / math.sqrt(3)  # turns a colour around this axis by 90 degrees
    cos, sin = (saturation * angle.cos())[:, None, None], (saturation * angle.sin())[:, None, None]
    matrix = grey + cos * (unit - grey) + sin * quarter
    return contrast[:, None, None] * matrix, contrast * brightness


def cutout_mask(happens, values, pixels):
    """Return masks (N, 1, H, W) of 1, and 0 in a square. happens (N,) bool. values (N, 2): its centre, x and y; uniform
    in [0, 1). pixels (W,): positions of pixels in [-1, 1]."""
    column, row = ((pixels - centre[:, None]).abs() < CUT for centre in (2 * values - 1).unbind(1))  # (N, W) each
    is_cut = happens[:, None, None] & row[:, :, None] & column[:, None, :]
    return (~is_cut)[:, None].to(pixels.dtype)


def _normal(uniform):
    """Return standard normal numbers for uniform ones in [0, 1)."""
    return math.sqrt(2) * torch.erfinv(2 * uniform.clamp(1e-6, 1 - 1e-6) - 1)  # MPS has no torch.special.ndtri.


class Probability(nn.Module):
    """The probability p of each kind of transform: constant, or for --augment ada adapted and part of checkpoints."""

    def __init__(self, p=0.0):
        super().__init__()
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("sign", torch.zeros(()))  # running mean over about WINDOW images

    @torch.no_grad()
    def adapt(self, sign, count):
        """Raise p if the mean sign of D's logits at real images is above TARGET, else lower it.

        sign (scalar tensor): the mean over the last `count` images. It rises as D memorises the training images (Karras
        et al. 2020, section 3).
        """
        self.sign.lerp_(sign.to(self.sign).nan_to_num(), min(1.0, count / WINDOW))
        self.p.add_((self.sign - TARGET).sign() * count / FULL_RANGE).clamp_(0, LARGEST)
