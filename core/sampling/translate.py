"""Pictures: sources translated into styles, laid out as grids (paper, figures 1, 4 and 6).

Networks see at most `batch` images at a time, whatever is asked for. What is kept of a source is its
content and an 8-bit copy, of a reference its style and an 8-bit copy.
"""

import math
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import SequentialSampler

from core.images.grid import JPEG_MAX_SIDE, Grid
from core.images.io import to_uint8
from core.model import Content
from core.system import console
from core.system.files import file_names
from core.system.memory import chunks
from core.system.random import random_generator

MEAN_STYLE_CODES = 10_000
MOST_PIXELS = 2**26  # of one picture: a quarter of a gigabyte while it is made, and what viewers open


class Sources(NamedTuple):
    """S images to translate: what the generator keeps of them, and how grids show them."""

    content: Content  # of S images
    shown: np.ndarray  # uint8 (S, H, W, 3)
    names: list = ()  # S texts, to title a column or name a file
    paths: list = ()


class Styles(NamedTuple):
    """Styles of references or of random codes, each in a domain."""

    codes: torch.Tensor  # (R, style_dim)
    labels: list  # R integers
    shown: np.ndarray | None = None  # the references, uint8 (R, H, W, 3)
    names: list = ()  # R texts
    origins: list = ()  # R dicts: what the style is made of

    def part(self, chosen):
        """Those of a slice."""
        return Styles(*(value if value is None else value[chosen] for value in self))


@torch.no_grad()
def read_sources(nets, batches):
    """Take in batches of images x_src (N, 3, H, W) in [-1, 1], one at least -> Sources without names."""
    read = [(Content.of(nets, x_src, len(x_src)), to_uint8(x_src)) for x_src in batches]
    contents, shown = zip(*read, strict=True)
    return Sources(Content.join(contents), np.concatenate(shown))


@torch.no_grad()
def read_references(style_encoder, batches, shown=True):
    """Take in batches of x_ref (N, 3, H, W), y_ref (N,), one at least -> Styles. shown: keep the pictures."""
    read = [(style_encoder(x_ref, y_ref), y_ref, to_uint8(x_ref) if shown else None) for x_ref, y_ref in batches]
    codes, labels, pictures = zip(*read, strict=True)
    return Styles(torch.cat(codes), torch.cat(labels).tolist(), np.concatenate(pictures) if shown else None)


def source_groups(nets, loader, most, fit, place):
    """Yield the sources of a DataLoader, at most so many at a time, as Sources.

    fit: calls work(size) with the number of images that may go through the networks at once. place: puts
    a tensor where the networks are.
    """
    paths = _paths(loader)
    names = file_names(paths)
    images = (x_src for x_batch, _ in loader for x_src in x_batch)
    for group in chunks(len(paths), most):
        x_src = place(torch.stack(list(islice(images, group.stop - group.start))))  # (N, 3, H, W)

        def read(size, x_src=x_src):
            return read_sources(nets, console.progress(x_src.split(size), desc="sources", unit="batch"))

        yield fit(read)._replace(names=names[group], paths=paths[group])


def reference_styles(style_encoder, loader, fit, place, shown=True):
    """The references of a DataLoader as Styles. fit, place: as in `source_groups`. shown: keep the pictures."""

    def read(size):
        pieces = (
            piece
            for batch in console.progress(loader, desc="references", unit="batch")
            for piece in zip(*(place(tensor).split(size) for tensor in batch), strict=True)
        )
        return read_references(style_encoder, pieces, shown)

    styles, paths = fit(read), _paths(loader)
    names = [""] * len(paths)
    for domain in set(styles.labels):  # a name needs to be its own within its domain only
        members = [index for index, label in enumerate(styles.labels) if label == domain]
        for index, name in zip(members, file_names([paths[index] for index in members]), strict=True):
            names[index] = name
    return styles._replace(names=names, origins=[{"reference": str(path)} for path in paths])


def _paths(loader):
    """What a DataLoader's images are called, in the order in which they come: files where it says so, else numbers."""
    samples = getattr(loader.dataset, "samples", None)
    if samples is None or not isinstance(loader.sampler, SequentialSampler):
        return [str(number) for number in range(len(loader.dataset))]
    return [path for path, _ in samples]


def seed_styles(mapping_network, domains, seeds, psi, latent_dim):
    """Styles of random codes, one for each of `seeds`, in each of the domains.

    psi: truncation, 1 leaves them as they are, 0 gives each domain's mean style.
    """
    codes = latent_styles(mapping_network, codes_of_seeds(seeds, latent_dim), domains)
    if psi != 1:
        means = mean_styles(mapping_network, latent_dim, domains)
        codes = torch.lerp(means[:, None], codes, psi)
    names = [str(number) for number in seeds] * len(domains)
    origins = [{"seed": number, "psi": psi} for number in seeds] * len(domains)
    return in_domains(codes, domains)._replace(names=names, origins=origins)


@torch.no_grad()
def translate_rows(generator, sources, codes, batch):
    """For each of the style codes (R, style_dim), yield all sources in it: uint8 (S, H, W, 3)."""
    parts = [sources.content[images] for images in chunks(len(sources.shown), batch)]
    for s_trg in codes:
        yield np.concatenate([to_uint8(generator.render(part, s_trg[None])) for part in parts])


def style_grid(sources, styles, rows, domains=None):
    """A Grid: the sources on top, then a row for each style; on the left the references, where there are any.

    rows: as from `translate_rows`. domains: names in label order, to title rows and columns; None: no titles.
    """
    column = 0 if styles.shown is None else 1  # where the sources begin
    titles = ()
    if domains is not None:
        kind = "" if column else "seed "
        of_rows = [f"{domains[label]}\n{kind}{name}" for label, name in zip(styles.labels, styles.names, strict=True)]
        titles = (["", *of_rows], [""] * column + list(sources.names))
    grid = Grid(1 + len(styles.labels), column + len(sources.shown), sources.shown.shape[1], *titles)
    grid.put(0, column, sources.shown)
    for number, row in enumerate(rows, start=1):
        if column:
            grid.put(number, 0, styles.shown[number - 1 : number])
        grid.put(number, column, row)
    return grid


def grid_pages(num_sources, num_styles, size):
    """Slices of the styles whose grids with all the sources can be made and viewed, of about equal length."""
    columns = 1 + num_sources
    most = min((JPEG_MAX_SIDE - 20) // size - 1, MOST_PIXELS // (size * size * columns)) - 1  # a row for titles
    pages = math.ceil(num_styles / max(1, most))
    return chunks(num_styles, math.ceil(num_styles / pages))


def codes_of_seeds(seeds, latent_dim):
    """A random code for each seed, from a generator of its own: (seeds, latent_dim)."""
    return torch.cat([torch.randn(1, latent_dim, generator=random_generator(seed, "code")) for seed in seeds])


def mean_styles(mapping_network, latent_dim, domains):
    """The style of each domain that truncation pulls to, a mean over many codes: (domains, style_dim)."""
    many = torch.randn(MEAN_STYLE_CODES, latent_dim, generator=random_generator("mean style"))
    return latent_styles(mapping_network, many, domains).mean(1)


@torch.no_grad()
def latent_styles(mapping_network, z_trg, domains):
    """Styles of codes z_trg (N, latent_dim) in each domain: (domains, N, style_dim)."""
    z_trg = z_trg.to(next(mapping_network.parameters()))
    labels = [torch.full((len(z_trg),), domain, device=z_trg.device) for domain in domains]
    return torch.stack([mapping_network(z_trg, y_trg) for y_trg in labels])


def in_domains(codes, domains):
    """Style codes (domains, N, style_dim) as Styles, domain after domain."""
    return Styles(codes.flatten(0, 1), [domain for domain in domains for _ in range(codes.shape[1])])
