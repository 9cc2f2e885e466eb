"""Pictures: sources translated into styles, laid out as grids (paper, figures 1, 4 and 6).

Networks see at most `batch` images at a time, whatever is asked for. What is kept of a source is its
content and an 8-bit copy, of a reference its style and an 8-bit copy.
"""

from typing import NamedTuple

import numpy as np
import torch

from core.images import JPEG_MAX_SIDE, Grid, to_uint8
from core.model import Content
from core.runtime import random_generator

PSIS = (0.5, 0.7, 1.0)  # truncations shown in a snapshot
MEAN_STYLE_CODES = 10_000
SHOWN_DOMAINS = 5


class Sources(NamedTuple):
    content: Content  # of S images
    shown: np.ndarray  # uint8 (S, H, W, 3)

    def part(self, images):
        return Sources(self.content.part(images), self.shown[images])


class References(NamedTuple):
    styles: torch.Tensor  # (R, style_dim)
    shown: np.ndarray  # uint8 (R, H, W, 3)
    labels: list  # R integers

    def part(self, images):
        return References(self.styles[images], self.shown[images], self.labels[images])


@torch.no_grad()
def read_sources(generator, batches):
    """Take in batches of images x_src (N, 3, H, W)."""
    read = [(generator.content(x_src), to_uint8(x_src)) for x_src in batches]
    contents, shown = zip(*read, strict=True)
    return Sources(Content.join(contents), np.concatenate(shown))


@torch.no_grad()
def read_references(style_encoder, batches):
    """Take in batches of x_ref (N, 3, H, W), y_ref (N,)."""
    read = [(style_encoder(x_ref, y_ref), to_uint8(x_ref), y_ref) for x_ref, y_ref in batches]
    styles, shown, labels = zip(*read, strict=True)
    return References(torch.cat(styles), np.concatenate(shown), torch.cat(labels).tolist())


@torch.no_grad()
def translate_rows(generator, sources, styles, batch):
    """For each style, yield all sources in it: uint8 (S, H, W, 3)."""
    parts = [sources.content.part(images) for images in chunks(len(sources.shown), batch)]
    for s_trg in styles:
        yield np.concatenate([to_uint8(generator.render(part, s_trg[None])) for part in parts])


def reference_grid(generator, sources, references, batch):
    """Grid of (1 + references) x (1 + sources): sources on top, references on the left."""
    grid = Grid(1 + len(references.shown), 1 + len(sources.shown), sources.shown.shape[1])
    grid.put(0, 1, sources.shown)
    for number, row in enumerate(translate_rows(generator, sources, references.styles, batch), start=1):
        grid.put(number, 0, references.shown[number - 1 : number])
        grid.put(number, 1, row)
    return grid


def grid_pages(num_sources, num_references, size):
    """Slices (of sources, of references) whose grid a JPEG can hold: one pair but for huge sets."""
    most = JPEG_MAX_SIDE // size - 1
    return [(s, r) for s in chunks(num_sources, most) for r in chunks(num_references, most)]


@torch.no_grad()
def cycle_grid(nets, x_src, y_src, x_ref, y_ref, batch):
    """Rows: sources, references, sources in the references' styles, and those translated back."""
    grid = Grid(4, len(x_src), x_src.shape[-1])
    for part in chunks(len(x_src), batch):
        s_ref = nets.style_encoder(x_ref[part], y_ref[part])
        s_src = nets.style_encoder(x_src[part], y_src[part])
        x_fake = nets.generator(x_src[part], s_ref)
        x_rec = nets.generator(x_fake, s_src)
        for row, images in enumerate((x_src[part], x_ref[part], x_fake, x_rec)):
            grid.put(row, part.start, to_uint8(images))
    return grid


@torch.no_grad()
def latent_styles(mapping_network, z, domain, psi, seed):
    """Styles of codes z (N, latent_dim) in a domain, pulled towards its mean style; psi 1 leaves them."""
    many = torch.randn(MEAN_STYLE_CODES, z.shape[1], generator=random_generator(seed, "mean style")).to(z)
    codes = torch.cat([many, z])
    styles = mapping_network(codes, torch.full((len(codes),), domain, device=z.device))
    return torch.lerp(styles[: len(many)].mean(0), styles[len(many) :], psi)


def latent_grid(nets, sources, z_trg, num_domains, psi, seed, batch):
    """Sources on top, then a row for each of the first five domains and each code of z_trg."""
    domains = range(min(num_domains, SHOWN_DOMAINS))
    styles = torch.cat([latent_styles(nets.mapping_network, z_trg, d, psi, seed) for d in domains])
    grid = Grid(1 + len(styles), len(sources.shown), sources.shown.shape[1])
    grid.put(0, 0, sources.shown)
    for number, row in enumerate(translate_rows(nets.generator, sources, styles, batch), start=1):
        grid.put(number, 0, row)
    return grid


def chunks(count, size):
    """Slices of at most `size` that cover range(count)."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
