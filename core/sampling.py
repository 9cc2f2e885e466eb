"""Pictures: sources translated into styles, laid out as grids (paper, figures 1, 4 and 6).

Networks see at most `batch` images at a time, whatever is asked for. What is kept of a source is its
content and an 8-bit copy, of a reference its style and an 8-bit copy.
"""

from typing import NamedTuple

import numpy as np
import torch

from core.errors import UserError
from core.images import JPEG_MAX_SIDE, Grid, to_uint8
from core.model import Content
from core.runtime import chunks, random_generator

PSIS = (0.5, 0.7, 1.0)  # truncations shown in a snapshot
MEAN_STYLE_CODES = 10_000
MOST_PIXELS = 2**27  # of one picture: half a gigabyte while it is made


class Sources(NamedTuple):
    content: Content  # of S images
    shown: np.ndarray  # uint8 (S, H, W, 3)

    def part(self, images):
        return Sources(self.content[images], self.shown[images])


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
    parts = [sources.content[images] for images in chunks(len(sources.shown), batch)]
    for s_trg in styles:
        yield np.concatenate([to_uint8(generator.render(part, s_trg[None])) for part in parts])


def reference_grid(generator, sources, references, batch):
    """Grid of (1 + references) x (1 + sources): sources on top, references on the left."""
    grid = Grid(1 + len(references.shown), 1 + len(sources.shown), sources.shown.shape[1])
    for number in range(len(references.shown)):
        grid.put(1 + number, 0, references.shown[number : number + 1])
    return _with_translations(grid, 1, generator, sources, references.styles, batch)


def grid_pages(num_sources, num_references, size):
    """Slices (of sources, of references) whose grid one picture can hold: one pair but for huge sets."""
    columns = min(num_sources, JPEG_MAX_SIDE // size - 1)
    rows = min(JPEG_MAX_SIDE // size, MOST_PIXELS // (size * size * (1 + columns))) - 1
    return [(s, r) for s in chunks(num_sources, columns) for r in chunks(num_references, max(1, rows))]


def check_grid_side(cells, size):
    """Raise UserError where a snapshot of so many cells, and one, cannot be a JPEG."""
    most = JPEG_MAX_SIDE // size - 1
    if cells > most:
        raise UserError(
            f"a snapshot {cells} pictures of {size} px long cannot be a JPEG: lower --val_batch_size, or "
            f"--num_outs_per_domain, so that it has at most {most}"
        )


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


def shown_domains(num_domains):
    """The domains a snapshot shows: the first five."""
    return range(min(num_domains, 5))


@torch.no_grad()
def latent_styles(mapping_network, z_trg, domains, seed):
    """Styles of codes z_trg (N, latent_dim) in each domain, and the domains' mean styles.

    Returns means (domains, 1, style_dim), styles (domains, N, style_dim). Truncation is
    lerp(means, styles, psi): psi 1 leaves the styles, 0 gives the mean.
    """
    many = torch.randn(MEAN_STYLE_CODES, z_trg.shape[1], generator=random_generator(seed, "mean style"))
    codes = torch.cat([many.to(z_trg), z_trg])
    labels = [torch.full((len(codes),), domain, device=z_trg.device) for domain in domains]
    styles = torch.stack([mapping_network(codes, y_trg) for y_trg in labels])
    return styles[:, : len(many)].mean(1, keepdim=True), styles[:, len(many) :]


def latent_grid(generator, sources, styles, batch):
    """Sources on top, then a row for each style."""
    grid = Grid(1 + len(styles), len(sources.shown), sources.shown.shape[1])
    return _with_translations(grid, 0, generator, sources, styles, batch)


def _with_translations(grid, column, generator, sources, styles, batch):
    """The grid with the sources on top and a row for each style, from a column on."""
    grid.put(0, column, sources.shown)
    for number, row in enumerate(translate_rows(generator, sources, styles, batch), start=1):
        grid.put(number, column, row)
    return grid
