"""Grids of validation images during training. All steps use the same inputs and codes and can be compared."""

from functools import partial

import numpy as np
import torch

from core.images.grid import JPEG_MAX_SIDE, Grid
from core.images.io import to_uint8
from core.model import face_masks
from core.sampling import translate
from core.system.errors import UserError

PSIS = (0.5, 0.7, 1.0)  # truncation factors shown
SMALL = "small"  # sub-folder for the small versions of grids that pages show
SMALL_COLUMNS, SMALL_CELL = 9, 128


def shown_domains(num_domains):
    """Return the labels of the domains that a snapshot shows in random styles: the first five."""
    return range(min(num_domains, 5))


def check_grid_side(num_images, num_codes, num_domains, size):
    """Raise UserError if a snapshot of so many images and codes per domain exceeds the size limit of JPEG."""
    cells, most = max(num_images, num_codes * len(shown_domains(num_domains))), JPEG_MAX_SIDE // size - 1
    if cells > most:
        raise UserError(
            f"Cannot write snapshots (the grid has {cells} images per side, a JPEG holds at most {most} of {size} px). "
            "Reduce --val_batch_size or --num_outs_per_domain."
        )


def snapshot_grids(nets, inputs, z_trg, num_domains, inference_batch):
    """Yield (name, Grid): cycle consistency, references, and random codes z_trg (N, latent_dim) for each psi of PSIS.
    inputs: Munch(x_src, y_src, x_ref, y_ref)."""
    yield "cycle_consistency", cycle_grid(nets, inputs, inference_batch)
    sources = translate.read_sources(nets, [inputs.x_src], inference_batch)
    references = [(inputs.x_ref, inputs.y_ref)]  # a single batch
    styles = {"reference": translate.read_references(nets.style_encoder, references)}
    domains = shown_domains(num_domains)
    means = translate.mean_styles(nets.mapping_network, z_trg.shape[1], domains)
    codes = translate.latent_styles(nets.mapping_network, z_trg, domains)
    for psi in PSIS:
        styles[f"latent_psi_{psi}"] = translate.in_domains(torch.lerp(means[:, None], codes, psi), domains)
    for name, shown in styles.items():
        rows = translate.translate_rows(nets.generator, sources, shown.codes, inference_batch)
        yield name, translate.style_grid(sources, shown, rows)


@torch.no_grad()
def cycle_grid(nets, inputs, inference_batch):
    """Return a Grid with rows: sources, references, sources in the references' styles, and those translated back."""
    x_src, x_ref = inputs.x_src, inputs.x_ref
    parts = inference_batch.run(partial(_cycle, nets), x_src, inputs.y_src, x_ref, inputs.y_ref)
    grid = Grid(4, len(x_src), x_src.shape[-1])
    for row, images in enumerate(zip(*parts, strict=True)):
        grid.put(row, 0, np.concatenate(images))
    return grid


def _cycle(nets, x_src, y_src, x_ref, y_ref):
    """Return uint8 sources, references, sources in the references' styles, and those translated back."""
    s_ref = nets.style_encoder(x_ref, y_ref)
    s_src = nets.style_encoder(x_src, y_src)
    x_fake = nets.generator(x_src, s_ref, face_masks(nets, x_src))
    x_rec = nets.generator(x_fake, s_src, face_masks(nets, x_fake))
    return [to_uint8(x) for x in (x_src, x_ref, x_fake, x_rec)]
