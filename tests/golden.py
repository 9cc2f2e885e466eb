"""The inputs and weights behind tests/golden: every tensor is drawn from the CRC of its name."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from munch import Munch

FOLDER = Path(__file__).parent / "golden"


def read(name):
    """A golden file: .json as dicts, .npz as a dict of tensors."""
    if name.endswith(".json"):
        return json.loads((FOLDER / name).read_text())
    with np.load(FOLDER / name) as arrays:
        return {key: torch.from_numpy(array) for key, array in arrays.items()}


def fill(name, network):
    """Give a network registered as `name` its golden weights."""
    for key, value in network.state_dict().items():
        if key != "hpf.filter" and value.is_floating_point():
            n = torch.from_numpy(_random(f"{name}.{key}").standard_normal(value.shape).astype(np.float32))
            if key.endswith("running_mean"):
                n = 0.1 * n
            elif key.endswith("running_var"):
                n = 1 + 0.1 * n.abs()
            elif value.ndim >= 2:
                n *= float(np.sqrt(2 / np.prod(value.shape[1:])))
            else:
                n = 1 + 0.1 * n if key.endswith("weight") else 0.1 * n
            value.copy_(n)
    return network


def image(name, *shape):
    return torch.from_numpy(_random(name).uniform(-1, 1, shape or (2, 3, 64, 64)).astype(np.float32))


def code(name, *shape):
    return torch.from_numpy(_random(name).standard_normal(shape or (2, 16)).astype(np.float32))


def heat_maps(points):
    """98 Gaussians of sigma 1.5 on the grid of 64 at points (98, 2): (1, 98, 64, 64)."""
    grid, x, y = torch.arange(64.0), points[:, 0, None, None], points[:, 1, None, None]
    return torch.exp(-((grid[None, None] - x) ** 2 + (grid[None, :, None] - y) ** 2) / (2 * 1.5**2))[None]


def iteration_inputs(number, num_domains=3):
    """The inputs of a training iteration in float64."""
    prefix = f"it{number}."
    images = {name: image(prefix + name).double() for name in ("x_src", "x_ref", "x_ref2")}
    codes = {name: code(prefix + name).double() for name in ("z_trg", "z_trg2")}
    labels = {name: torch.from_numpy(_random(prefix + name).randint(0, 3, (2,))) % num_domains
              for name in ("y_src", "y_ref")}  # fmt: skip
    return Munch(**images, **codes, **labels)


def _random(name):
    return np.random.RandomState(zlib.crc32(name.encode()))
