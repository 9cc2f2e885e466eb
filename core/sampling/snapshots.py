"""Pictures of a training run: the same inputs and codes at every step, so that steps can be compared."""

import torch

from core.images.grid import JPEG_MAX_SIDE, Grid
from core.images.io import to_uint8
from core.model import face_masks
from core.sampling import translate
from core.system.errors import UserError
from core.system.memory import chunks

PSIS = (0.5, 0.7, 1.0)  # truncations shown
SMALL = "small"  # folder, beside the pictures, of what a page shows of large ones
SMALL_COLUMNS, SMALL_CELL = 9, 128


def shown_domains(num_domains):
    """The domains a snapshot shows in random styles: the first five."""
    return range(min(num_domains, 5))


def check_grid_side(num_images, num_codes, num_domains, size):
    """Raise UserError where a snapshot of so many images and codes in each domain cannot be a JPEG."""
    cells, most = max(num_images, num_codes * len(shown_domains(num_domains))), JPEG_MAX_SIDE // size - 1
    if cells > most:
        raise UserError(
            f"a snapshot {cells} pictures of {size} px long cannot be a JPEG: lower --val_batch_size, or "
            f"--num_outs_per_domain, so that it has at most {most}"
        )


def snapshot_grids(nets, inputs, z_trg, num_domains, batch):
    """Yield (name, Grid): cycle consistency, references, and random codes in three truncations.

    inputs: Munch(x_src, y_src, x_ref, y_ref). z_trg: codes (N, latent_dim). batch: images through the
    networks at once.
    """
    domains = shown_domains(num_domains)
    sources = translate.read_sources(nets, inputs.x_src.split(batch))
    batches = zip(inputs.x_ref.split(batch), inputs.y_ref.split(batch), strict=True)
    yield "cycle_consistency", cycle_grid(nets, *(inputs[name] for name in ("x_src", "y_src", "x_ref", "y_ref")), batch)
    shown = {"reference": translate.read_references(nets.style_encoder, batches)}
    means = translate.mean_styles(nets.mapping_network, z_trg.shape[1], domains)
    free = translate.latent_styles(nets.mapping_network, z_trg, domains)
    for psi in PSIS:
        shown[f"latent_psi_{psi}"] = translate.in_domains(torch.lerp(means[:, None], free, psi), domains)
    for name, styles in shown.items():
        rows = translate.translate_rows(nets.generator, sources, styles.codes, batch)
        yield name, translate.style_grid(sources, styles, rows)


@torch.no_grad()
def cycle_grid(nets, x_src, y_src, x_ref, y_ref, batch):
    """Rows: sources, references, sources in the references' styles, and those translated back."""
    grid = Grid(4, len(x_src), x_src.shape[-1])
    for part in chunks(len(x_src), batch):
        s_ref = nets.style_encoder(x_ref[part], y_ref[part])
        s_src = nets.style_encoder(x_src[part], y_src[part])
        x_fake = nets.generator(x_src[part], s_ref, face_masks(nets, x_src[part]))
        x_rec = nets.generator(x_fake, s_src, face_masks(nets, x_fake))
        for row, images in enumerate((x_src[part], x_ref[part], x_fake, x_rec)):
            grid.put(row, part.start, to_uint8(images))
    return grid
