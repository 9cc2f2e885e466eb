"""The judge: a small network, trained on real images of the demo set, that estimates what an image shows."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from core.data_loader import ImageList, test_transform
from core.system.errors import UserError
from data.demo import FACTORS
from data.demo_faces import DOMAINS

COLUMNS = {  # columns of each factor
    "x": slice(0, 1), "y": slice(1, 2), "size": slice(2, 3), "tilt": slice(3, 4),
    "fur": slice(4, 7), "eyes": slice(7, 10), "background": slice(10, 13),
}  # fmt: skip
WIDTH = 13
MIRRORED = [0, 3]  # x and tilt change sign in a mirror image


def read_faces(root, part, img_size):
    """Load the real images of a part of the demo set -> x (N, 3, H, W), y (N,), factors (N, 13).

    The order is that of factors.jsonl. Images are in [-1, 1]. The factors x and y are relative to the centre of the
    image, in fractions of its side. Raises UserError if the folder contains no demo set.
    """
    try:
        lines = (Path(root) / FACTORS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"No {FACTORS} in {root}. Run python -m data.demo --out {root}.") from error
    rows = [row for row in map(json.loads, lines) if row["file"].startswith(f"{part}/")]
    samples = [(Path(root) / row["file"], DOMAINS.index(row["domain"])) for row in rows]
    batches = list(DataLoader(ImageList(samples, test_transform(img_size)), batch_size=256))
    factors = [np.concatenate([np.atleast_1d(row[name]) for name in COLUMNS]) for row in rows]
    factors = torch.from_numpy(np.stack(factors)).float()
    factors[:, :2] -= 0.5
    x, y = (torch.cat(column) for column in zip(*batches, strict=True))
    return x, y, factors


class Judge(nn.Module):
    """Map x (N, 3, H, W) to logits of the domains (N, 3) and factors (N, 13).

    img_size: H and W, a multiple of 16. mean, deviation: (13,), those of the factors of real images.
    """

    def __init__(self, img_size, mean, deviation):
        super().__init__()
        widths = (3, 16, 32, 64, 64)
        layers = []
        for dim_in, dim_out in pairwise(widths):
            layers += [nn.Conv2d(dim_in, dim_out, 4, stride=2, padding=1), nn.BatchNorm2d(dim_out), nn.ReLU()]
        side = img_size // 2 ** (len(widths) - 1)
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * side**2, 128), nn.ReLU())
        self.head = nn.Linear(128, len(DOMAINS) + WIDTH)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, x):
        """Map x (N, 3, H, W) in [-1, 1] to logits (N, 3) and factors (N, 13), which are as in `read_faces`."""
        logits, factors = self.head(self.trunk(x)).split([len(DOMAINS), WIDTH], dim=1)
        return logits, self.mean + self.deviation * factors


def train_judge(x, y, factors, epochs=8, batch_size=64, seed=0):
    """Train a Judge on real images (x, y, factors) with random mirroring and noise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        judge = Judge(x.shape[-1], factors.mean(0), factors.std(0))
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3)
    order = torch.cat([torch.randperm(len(x), generator=generator) for _ in range(epochs)])
    batches = order.split(batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=len(batches))
    mirror = torch.ones(WIDTH)
    mirror[MIRRORED] = -1
    for chosen in batches:
        flip = torch.rand(len(chosen), generator=generator) < 0.5
        pictures = torch.where(flip[:, None, None, None], x[chosen].flip(3), x[chosen])
        pictures = pictures + 0.05 * torch.randn(pictures.shape, generator=generator)
        wanted = torch.where(flip[:, None], mirror * factors[chosen], factors[chosen])
        logits, found = judge(pictures)
        loss = F.cross_entropy(logits, y[chosen]) + F.mse_loss(found / judge.deviation, wanted / judge.deviation)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def look(judge, x):
    """Return the domains (N,) and factors (N, 13) that the judge estimates for images (N, 3, H, W)."""
    parts = [judge(part.clamp(-1, 1)) for part in x.split(256)]
    return torch.cat([logits for logits, _ in parts]).argmax(1), torch.cat([factors for _, factors in parts])


def correlation(found, wanted, name):
    """Return the Pearson correlation of a factor (for colours: mean over RGB) from factors (N, 13)."""
    a, b = found[:, COLUMNS[name]].double(), wanted[:, COLUMNS[name]].double()
    a, b = a - a.mean(0), b - b.mean(0)
    return ((a * b).sum(0) / (a.square().sum(0) * b.square().sum(0)).sqrt()).mean().item()
