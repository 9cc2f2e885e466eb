"""Grids that a training writes."""

import torch
from munch import Munch

from core.images.io import to_uint8
from core.sampling import snapshots
from core.system.memory import MicroBatch
from tests.grids import assert_equal_pictures, cells


@torch.no_grad()
def test_cycle_grid_shows_source_reference_translation_and_way_back(nets, pictures):
    x_src, x_ref, y_ref = pictures
    x_src, y_src = x_src[:4], torch.tensor([2, 1, 0, 0])
    inputs = Munch(x_src=x_src, y_src=y_src, x_ref=x_ref, y_ref=y_ref)
    found = cells(snapshots.cycle_grid(nets, inputs, MicroBatch(3, 3)))
    x_fake = nets.generator(x_src, nets.style_encoder(x_ref, y_ref))
    x_rec = nets.generator(x_fake, nets.style_encoder(x_src, y_src))
    for row, images in enumerate((x_src, x_ref, x_fake, x_rec)):
        assert_equal_pictures(found[row], to_uint8(images))
