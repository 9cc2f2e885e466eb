"""Face landmarks (Wang et al., Adaptive Wing Loss, ICCV 2019) and the masks that StarGAN v2 computes from them."""

from argparse import Namespace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from core.checkpoint.io import found, read_data
from core.checkpoint.tensors import fit_state, plain_keys
from core.system.errors import UserError, reason

LANDMARKS = 98
SIZE = 256  # height and width of the input; heat maps have a quarter of it
DEPTH = 4  # number of downsamplings in the hourglass

# Landmarks around a part of the face: first, last, rows to shift the map up (of 256), power.
CHIN, EYEBROWS, NOSTRILS = (8, 24, 0, 3), (34, 50, -7, 2), (55, 59, 8, 4)
UPPER_LIP, LOWER_LIP, INNER_LIP = (77, 81, -8, 4), (83, 87, 8, 4), (88, 95, -2, 3)
NOSE_TIP, NOSE, PUPILS = (51, 51, 0, 1), (52, 54, 4, 1), (96, 97, 0, 1)
EYES = slice(60, 76)
UNUSED_EYEBROW = 46

ANOTHER = "Delete it and run python -m data.download wing."


class CoordConv(nn.Module):
    """Convolution with three additional input channels: row, column and radius, in [-1, 1]."""

    def __init__(self, size, dim_in, dim_out, kernel_size, **options):
        super().__init__()
        self.conv = nn.Conv2d(dim_in + 3, dim_out, kernel_size, **options)
        axis = torch.linspace(-1, 1, size)
        row, column = torch.meshgrid(axis, axis, indexing="ij")
        radius = torch.hypot(row, column)
        planes = torch.stack([row, column, radius / radius.max()])
        self.register_buffer("planes", planes, persistent=False)  # (3, size, size)

    def forward(self, x):
        """x (N, dim_in, size, size) -> (N, dim_out, H, W). H and W depend on stride and padding."""
        return self.conv(torch.cat([x, self.planes.expand(len(x), -1, -1, -1)], dim=1))


class ConvBlock(nn.Module):
    """Three convolutions with 1/2, 1/4 and 1/4 of the output channels, concatenated, and a residual connection."""

    def __init__(self, dim_in, dim_out):
        super().__init__()
        widths = (dim_in, dim_out // 2, dim_out // 4, dim_out // 4)
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            self.add_module(f"bn{number}", nn.BatchNorm2d(before))
            self.add_module(f"conv{number}", nn.Conv2d(before, after, 3, padding=1, bias=False))
        self.downsample = nn.Identity()
        if dim_in != dim_out:
            convolution = nn.Conv2d(dim_in, dim_out, 1, bias=False)
            self.downsample = nn.Sequential(nn.BatchNorm2d(dim_in), nn.ReLU(), convolution)

    def forward(self, x):
        """(N, dim_in, H, W) -> (N, dim_out, H, W)."""
        out1 = self.conv1(F.relu(self.bn1(x)))
        out2 = self.conv2(F.relu(self.bn2(out1)))
        out3 = self.conv3(F.relu(self.bn3(out2)))
        return torch.cat([out1, out2, out3], dim=1) + self.downsample(x)


class HourGlass(nn.Module):
    """Hourglass network with five resolutions. Each adds the upsampled features of the next lower one."""

    def __init__(self, dim, size):
        super().__init__()
        self.coordconv = CoordConv(size, dim, dim, 1)
        for level in range(DEPTH, 0, -1):
            for name in ("b1", "b2", "b3"):
                self.add_module(f"{name}_{level}", ConvBlock(dim, dim))
        self.b2_plus_1 = ConvBlock(dim, dim)

    def forward(self, x):
        """(N, dim, size, size) -> the same shape. size must be a multiple of 16."""
        return self._level(DEPTH, self.coordconv(x))

    def _level(self, level, x):
        block = {name: getattr(self, f"{name}_{level}") for name in ("b1", "b2", "b3")}
        low = block["b2"](F.avg_pool2d(x, 2))  # (N, C, H/2, W/2)
        low = block["b3"](self._level(level - 1, low) if level > 1 else self.b2_plus_1(low))
        return block["b1"](x) + F.interpolate(low, scale_factor=2, mode="nearest")


class FAN(nn.Module):
    """Face alignment network: heat maps of 98 face landmarks and of the face boundary."""

    def __init__(self):
        super().__init__()
        self.conv1 = CoordConv(SIZE, 3, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = ConvBlock(64, 128), ConvBlock(128, 128), ConvBlock(128, 256)
        self.m0 = HourGlass(256, SIZE // 4)
        self.top_m_0 = ConvBlock(256, 256)
        self.conv_last0 = nn.Conv2d(256, 256, 1)
        self.bn_end0 = nn.BatchNorm2d(256)
        self.l0 = nn.Conv2d(256, LANDMARKS + 1, 1)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode=True):
        """Stay in evaluation mode, so that the batch norms do not change their statistics."""
        return super().train(False)

    def forward(self, x):
        """x (N, 3, 256, 256) in [0, 1] -> heat maps (N, 99, 64, 64), about 1 at the landmark."""
        x = self.conv2(F.relu(self.bn1(self.conv1(x))))  # (N, 128, 128, 128)
        x = self.conv4(self.conv3(F.avg_pool2d(x, 2)))  # (N, 256, 64, 64)
        x = self.top_m_0(self.m0(x))
        return self.l0(F.relu(self.bn_end0(self.conv_last0(x))))  # (N, 99, 64, 64)

    @torch.no_grad()
    def get_heatmap(self, x, b_preprocess=True):
        """Images x (N, 3, H, W) in [-1, 1] -> the two masks of `preprocess`, or raw heat maps (N, 98, 64, 64)."""
        x = F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        maps = self((x + 1) / 2)[:, :LANDMARKS]
        if not b_preprocess:
            return maps
        return preprocess(F.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=True))


def preprocess(x):
    """Heat maps (N, 98, H, W), about 1 at the landmark -> two masks (N, 1, H, W) in [0, 1].

    The first covers all parts of the face, for 32 px. The second covers eyes and nose, for 64 and 128 px.
    """
    unit = x.shape[2] // SIZE
    x = torch.where(x < 0.1, 0, x)
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    x = (x - low) / (high - low + 1e-6)

    def covered(first, last, rows, power):
        return x[:, first : last + 1].roll(-rows * unit, 2).pow(power).sum(1, keepdim=True)  # (N, 1, H, W)

    eyes = x[:, EYES].roll(8, 2).pow(3) + x[:, EYES].roll(24, 2)
    fine = eyes.sum(1, keepdim=True) + sum(covered(*part) for part in (NOSE_TIP, NOSE, NOSTRILS, PUPILS))
    coarse = fine + sum(covered(*part) for part in (CHIN, EYEBROWS, UPPER_LIP, LOWER_LIP, INNER_LIP))
    coarse = coarse - covered(UNUSED_EYEBROW, UNUSED_EYEBROW, *EYEBROWS[2:])
    return tuple(mask.nan_to_num(nan=0.0).clamp(0, 1) for mask in (coarse, fine))


def landmarks_of(maps):
    """Heat maps (N, 98, H, W) -> positions (x, y) of their maxima (N, 98, 2), shifted towards the higher neighbours."""
    width, flat = maps.shape[3], maps.flatten(2)
    top = flat.argmax(2)  # (N, 98)
    px, py = top % width, top // width
    inside = ((px > 0) & (px < width - 1) & (py > 0) & (py < maps.shape[2] - 1)).to(maps.dtype)

    def slope(step):
        after, before = ((top + sign * step).clamp(0, flat.shape[2] - 1) for sign in (1, -1))
        return (flat.gather(2, after[..., None]) - flat.gather(2, before[..., None])).sign().squeeze(2) * inside

    return torch.stack([px + 0.25 * slope(1), py + 0.25 * slope(width)], dim=2) + 0.5


def find_wing(path):
    """Raise UserError if the file with the weights of FAN is missing."""
    if not Path(path).is_file():
        advice = "Run python -m data.download wing, or set --w_hpf 0 if the images are not aligned faces"
        raise UserError(f"Cannot load the face landmark network {path} (no such file). {advice}.")


def load_wing(fan, path):
    """Load the weights of FAN from wing.ckpt, which also contains other values. Raises UserError."""
    find_wing(path)
    scalar = np.float64(0).__reduce__()[0]  # the function that unpickles the file's NumPy numbers
    allowed = [Namespace, np.dtype, scalar, (scalar, "numpy.core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals([*allowed, *(type(np.dtype(code)) for code in "efdilqB?")]):
            content = read_data(Path(path))
        state = content.get("state_dict") if isinstance(content, dict) else None
        if not isinstance(state, dict):
            entries = found(content) if isinstance(content, dict) else ""
            raise UserError(f"Cannot find an entry state_dict in the file{entries}. Use another file.")
        expected, state = fan.state_dict(), plain_keys(state)
        counters = {key: value for key, value in expected.items() if key.endswith("num_batches_tracked")}  # unused
        state = fit_state(counters | {key: value for key, value in state.items() if key in expected}, fan, "it")
    except UserError as error:
        raise UserError(f"Cannot use {path} as the face landmark network: {reason(error)}. {ANOTHER}") from error
    fan.load_state_dict(state)
