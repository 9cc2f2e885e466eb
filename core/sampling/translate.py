"""Translation of sources into styles, and grids of the results (paper, figures 1, 4 and 6).

`inference_batch`, a MicroBatch, limits the number of images that a network processes at once.
"""

import math
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import SequentialSampler

from core.images.grid import JPEG_MAX_SIDE, Grid
from core.images.io import to_uint8
from core.model import Content
from core.system import console
from core.system.device import at_least_single
from core.system.files import file_names
from core.system.memory import chunks
from core.system.random import random_generator

MEAN_STYLE_CODES = 10_000
MOST_PIXELS = 2**26  # of one grid: a quarter of a gigabyte of memory, small enough for image viewers


@dataclass(frozen=True)
class Sources:
    """S images to translate: their content and 8-bit copies for grids."""

    content: Content  # of S images
    shown: np.ndarray  # uint8 (S, H, W, 3)
    names: list = ()  # S strings, for column titles
    own_codes: torch.Tensor | None = None  # (S, style_dim), their own styles where `strength` is not 1
    strength: float = 1  # of a style, from 0 (the source's own) to 1

    def __len__(self):
        return len(self.shown)

    def styled(self, s_trg):
        """Return the codes for a style s_trg (style_dim,) at this strength: (S, style_dim), or (1, style_dim)."""
        return s_trg[None] if self.own_codes is None else torch.lerp(self.own_codes, s_trg, self.strength)


@dataclass(frozen=True)
class Styles:
    """R styles of references or of random codes, each for one domain. Can be sliced."""

    codes: torch.Tensor  # (R, style_dim)
    labels: list  # R integers
    shown: np.ndarray | None = None  # the references, uint8 (R, H, W, 3)
    names: list = ()  # R strings
    origins: list = ()  # R dicts: the reference, or the seed and psi

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, rows):
        return Styles(**{name: None if value is None else value[rows] for name, value in vars(self).items()})


@torch.no_grad()
def read_sources(nets, batches, inference_batch):
    """Encode one or more batches of images x_src (N, 3, H, W) in [-1, 1] -> Sources without names."""
    contents, shown = [], []
    for x_src in batches:
        contents.append(Content.of(nets, x_src, inference_batch))
        shown.append(to_uint8(x_src))
    return Sources(content=Content.join(contents), shown=np.concatenate(shown))


@torch.no_grad()
def encoded(style_encoder, x, y):
    """Return the style codes (N, style_dim) of images x (N, 3, H, W) in their domains y (N,).

    One image at a time: in a batch, a code would depend on the number of images by rounding.
    """
    return at_least_single(torch.cat([style_encoder(x[row : row + 1], y[row : row + 1]) for row in range(len(x))]))


@torch.no_grad()
def read_references(style_encoder, batches, shown=True):
    """Encode one or more batches of x_ref (N, 3, H, W), y_ref (N,) -> Styles. shown: store the images for grids."""
    codes, labels, images = [], [], []
    for x_ref, y_ref in batches:
        codes.append(encoded(style_encoder, x_ref, y_ref))
        labels += y_ref.tolist()
        if shown:
            images.append(to_uint8(x_ref))
    return Styles(codes=torch.cat(codes), labels=labels, shown=np.concatenate(images) if shown else None)


@torch.no_grad()
def with_own_styles(nets, sources, x_src, labels, strength, inference_batch, x_own=None):
    """Return the Sources x_src (N, 3, H, W) with their own styles. labels: N integers, None where unknown.

    An unknown domain is taken to be the one whose style of the image reproduces the image best. x_own: the images as
    squares of the trained size, if x_src has another shape.
    """
    encoder, x_own = nets.style_encoder, x_src if x_own is None else x_own
    if None in labels:
        errors = []
        for domain in range(len(encoder.unshared)):
            s = encoded(encoder, x_own, torch.full((len(x_own),), domain, device=x_own.device))
            images = inference_batch.run(nets.generator.render, sources.content, s)
            errors.append((torch.cat(images) - x_src).abs().mean((1, 2, 3)))
        best = torch.stack(errors).argmin(0).tolist()
        labels = [guess if label is None else label for label, guess in zip(labels, best, strict=True)]
    own_codes = encoded(encoder, x_own, torch.tensor(labels, device=x_own.device))  # (N, style_dim)
    return replace(sources, own_codes=own_codes, strength=strength)


def folder_labels(paths, domains):
    """Return the label of the domain that is the name of each path's folder, None where there is no such domain."""
    names = [Path(path).parent.name for path in paths]
    return [domains.index(name) if name in domains else None for name in names]


def source_groups(nets, loader, most, inference_batch, to_device, domains=(), strength=1):
    """Yield the images of a DataLoader as Sources of at most `most` images each.

    domains: names in label order; if strength is not 1, the name of an image's folder may tell its domain.
    """
    paths = _paths(loader)
    names = file_names(paths)
    images = (x_src for x_batch, _ in loader for x_src in x_batch)
    for group in chunks(len(paths), most):
        x_src = to_device(torch.stack(list(islice(images, group.stop - group.start))))  # (N, 3, H, W)
        batches = console.progress(x_src.split(inference_batch.size), desc="sources", unit="batch")
        sources = read_sources(nets, batches, inference_batch)
        if strength != 1:
            labels = folder_labels(paths[group], domains)
            sources = with_own_styles(nets, sources, x_src, labels, strength, inference_batch)
        yield replace(sources, names=names[group])


def reference_styles(style_encoder, loader, to_device, shown=True):
    """Return the references of a DataLoader as Styles. shown: store the images for grids."""
    progress = console.progress(loader, desc="references", unit="batch")
    batches = ((to_device(x_ref), to_device(y_ref)) for x_ref, y_ref in progress)
    styles, paths = read_references(style_encoder, batches, shown), _paths(loader)
    names = [""] * len(paths)
    for domain in set(styles.labels):  # names only have to differ within a domain
        members = [index for index, label in enumerate(styles.labels) if label == domain]
        for index, name in zip(members, file_names([paths[index] for index in members]), strict=True):
            names[index] = name
    return replace(styles, names=names, origins=[{"reference": str(path)} for path in paths])


def _paths(loader):
    """Return the paths of a DataLoader's images in their order; numbers if it has no paths or no fixed order."""
    samples = getattr(loader.dataset, "samples", None)
    if samples is None or not isinstance(loader.sampler, SequentialSampler):
        return [str(number) for number in range(len(loader.dataset))]
    return [path for path, _ in samples]


def seed_styles(mapping_network, domains, seeds, psi, latent_dim):
    """Return Styles of random codes, one per seed and domain. psi: truncation, from 0 (mean style) to 1 (none)."""
    z_trg = [torch.randn(1, latent_dim, generator=random_generator(seed, "code")) for seed in seeds]
    # One code at a time: in a batch, a style would depend on the number of seeds by rounding.
    codes = torch.cat([latent_styles(mapping_network, z, domains) for z in z_trg], dim=1)  # (domains, seeds, style_dim)
    if psi != 1:
        means = mean_styles(mapping_network, latent_dim, domains)
        codes = torch.lerp(means[:, None], codes, psi)
    names = [str(number) for number in seeds] * len(domains)
    origins = [{"seed": number, "psi": psi} for number in seeds] * len(domains)
    return replace(in_domains(codes, domains), names=names, origins=origins)


def render(generator, content, s_trg, inference_batch, convert=to_uint8):
    """Render Content of N images in styles s_trg (N or 1, style_dim) -> [convert(x_fake), ...], one per micro-batch."""
    if len(s_trg) == 1:
        return inference_batch.run(lambda part: convert(generator.render(part, s_trg)), content)
    return inference_batch.run(lambda part, s: convert(generator.render(part, s)), content, s_trg)


@torch.no_grad()
def translate_rows(generator, sources, codes, inference_batch):
    """For each of the style codes (R, style_dim), yield all sources in this style: uint8 (S, H, W, 3)."""
    for s_trg in codes:
        yield np.concatenate(render(generator, sources.content, sources.styled(s_trg), inference_batch))


def style_grid(sources, styles, rows, domains=None):
    """Return a Grid with the sources on top, one row per style, and the references, if any, on the left.

    rows: from `translate_rows`. domains: names in label order, for titles of rows and columns; None: no titles.
    """
    column = 0 if styles.shown is None else 1  # column of the first source
    row_titles, column_titles = [], []
    if domains is not None:
        are_seeds = not column and all("seed" in origin for origin in styles.origins)
        prefix, named = "seed " if are_seeds else "", zip(styles.labels, styles.names, strict=True)
        row_titles = ["", *(f"{domains[label]}\n{prefix}{name}" for label, name in named)]
        column_titles = ([""] if column else []) + list(sources.names)
    grid = Grid(1 + len(styles), column + len(sources), sources.shown.shape[1], row_titles, column_titles)
    grid.put(0, column, sources.shown)
    for number, row in enumerate(rows, start=1):
        if column:
            grid.put(number, 0, styles.shown[number - 1 : number])
        grid.put(number, column, row)
    return grid


def grid_pages(num_sources, num_styles, size):
    """Split the styles into slices of about equal length whose grids with all sources fit into memory and a JPEG."""
    columns = 1 + num_sources
    most = min((JPEG_MAX_SIDE - 20) // size - 1, MOST_PIXELS // (size * size * columns)) - 1  # 1 row for titles
    pages = math.ceil(num_styles / max(1, most))
    return chunks(num_styles, math.ceil(num_styles / pages))


def mean_styles(mapping_network, latent_dim, domains):
    """Return the mean style of each domain over many codes, the centre of truncation: (domains, style_dim)."""
    return latent_styles(mapping_network, many_codes(latent_dim), domains).mean(1)


def many_codes(latent_dim):
    """Return the random codes whose styles stand for all styles of a domain: (MEAN_STYLE_CODES, latent_dim)."""
    return torch.randn(MEAN_STYLE_CODES, latent_dim, generator=random_generator("mean style"))


@torch.no_grad()
def latent_styles(mapping_network, z_trg, domains):
    """Return the styles of codes z_trg (N, latent_dim) in each domain: (domains, N, style_dim)."""
    z_trg = z_trg.to(next(mapping_network.parameters()))
    labels = [torch.full((len(z_trg),), domain, device=z_trg.device) for domain in domains]
    return at_least_single(torch.stack([mapping_network(z_trg, y_trg) for y_trg in labels]))


def in_domains(codes, domains):
    """Return style codes (domains, N, style_dim) as Styles, ordered by domain."""
    return Styles(codes=codes.flatten(0, 1), labels=[domain for domain in domains for _ in range(codes.shape[1])])
