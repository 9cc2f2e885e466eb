import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from core.images.grid import JPEG_MAX_SIDE
from core.images.io import to_uint8
from core.sampling import translate
from core.system.memory import MicroBatch
from core.system.random import random_generator
from tests.grids import assert_equal_pictures, cells


@pytest.mark.parametrize("batch", [1, 2, 8])
@torch.no_grad()
def test_reference_grid_shows_every_source_in_every_style(nets, pictures, batch):
    x_src, x_ref, y_ref = pictures
    inference_batch = MicroBatch(batch, batch)
    sources = translate.read_sources(nets, [x_src], inference_batch)
    references = translate.read_references(nets.style_encoder, [(x_ref, y_ref)])
    rows = translate.translate_rows(nets.generator, sources, references.codes, inference_batch)
    found = cells(translate.style_grid(sources, references, rows))
    assert found.shape == (5, 6, 32, 32, 3)
    assert (found[0, 0] == 255).all()
    assert np.array_equal(found[0, 1:], to_uint8(x_src)) and np.array_equal(found[1:, 0], to_uint8(x_ref))
    styles = nets.style_encoder(x_ref, y_ref)
    for row, style in enumerate(styles, start=1):
        expected = to_uint8(nets.generator(x_src, style.expand(5, -1)))
        assert_equal_pictures(found[row, 1:], expected)


@torch.no_grad()
def test_latent_styles_and_domain_means_come_from_the_mapping_network(nets):
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    F = nets.mapping_network
    means, styles = translate.mean_styles(F, 16, range(2)), translate.latent_styles(F, z, range(2))
    assert means.shape == (2, 64) and styles.shape == (2, 3, 64)
    torch.testing.assert_close(styles[1], F(z, torch.tensor([1, 1, 1])))
    many = F(torch.randn(20000, 16, generator=torch.Generator().manual_seed(1)), torch.full((20000,), 1)).mean(0)
    torch.testing.assert_close(means[1], many, atol=0.1, rtol=0)
    assert not torch.allclose(means[0], means[1], atol=0.2)


@torch.no_grad()
def test_seed_styles_depend_only_on_seed_domain_and_psi(nets):
    """A seed is the same style whatever else is asked for; psi pulls it to the mean of its domain."""
    F = nets.mapping_network
    some = translate.seed_styles(F, [1, 2], [4, 9], 1, 16)
    assert some.labels == [1, 1, 2, 2] and some.names == ["4", "9"] * 2 and some.shown is None
    assert some.origins[1] == {"seed": 9, "psi": 1}
    alone = translate.seed_styles(F, [2], [9], 1, 16)
    torch.testing.assert_close(alone.codes[0], some.codes[3])
    assert not torch.allclose(some.codes[2], some.codes[3], atol=1e-2)
    z = torch.randn(1, 16, generator=random_generator(9, "code"))
    torch.testing.assert_close(alone.codes, F(z, torch.tensor([2])))
    means = translate.mean_styles(F, 16, [1, 2])
    half = translate.seed_styles(F, [1, 2], [4, 9], 0.5, 16)
    torch.testing.assert_close(half.codes, (some.codes + means.repeat_interleave(2, 0)) / 2)
    none = translate.seed_styles(F, [1, 2], [4, 9], 0, 16)
    torch.testing.assert_close(none.codes, means.repeat_interleave(2, 0))


@torch.no_grad()
def test_latent_grid_shows_every_source_in_every_random_style(nets, pictures):
    x_src = pictures[0][:2]
    sources = translate.read_sources(nets, [x_src], MicroBatch(2, 2))
    codes = torch.randn(3, 2, 64, generator=torch.Generator().manual_seed(0))
    styles = translate.in_domains(codes, [0, 2, 1])
    assert styles.labels == [0, 0, 2, 2, 1, 1]
    rows = translate.translate_rows(nets.generator, sources, styles.codes, MicroBatch(2, 2))
    found = cells(translate.style_grid(sources, styles, rows))
    assert found.shape == (1 + 6, 2, 32, 32, 3)
    assert np.array_equal(found[0], to_uint8(x_src))
    assert_equal_pictures(found[-1], to_uint8(nets.generator(x_src, codes[2, 1:].expand(2, -1))))


@torch.no_grad()
def test_titles_do_not_change_the_cells(nets, pictures):
    x_src, x_ref, y_ref = pictures
    inference_batch = MicroBatch(8, 8)
    sources = translate.read_sources(nets, [x_src], inference_batch)
    sources = replace(sources, names=[f"source {i}" for i in range(5)])
    references = translate.read_references(nets.style_encoder, [(x_ref, y_ref)])
    references = replace(references, names=list("abcd"))
    rows = list(translate.translate_rows(nets.generator, sources, references.codes, inference_batch))
    plain = np.asarray(translate.style_grid(sources, references, rows).canvas)
    grid = translate.style_grid(sources, references, rows, domains=["cat", "dog", "wild"])
    titled = np.asarray(grid.canvas)
    assert np.array_equal(titled[grid.top :, grid.left :], plain)
    assert (titled[: grid.top, : grid.left + 32] == 255).all()  # nothing over the references
    for row in range(5):
        beside = titled[grid.top + 32 * row : grid.top + 32 * (row + 1), : grid.left]
        assert (beside < 128).any() == (row > 0)
    for column in range(6):
        above = titled[: grid.top, grid.left + 32 * column : grid.left + 32 * (column + 1)]
        assert (above < 128).any() == (column > 0)


def test_huge_grids_are_split_into_pages():
    assert translate.grid_pages(15, 28, 256) == [slice(0, 28)]
    pages = translate.grid_pages(15, 112, 256)
    assert [page.stop - page.start for page in pages] == [56, 56]
    for sources, styles, size in ((62, 300, 256), (15, 500, 512), (1, 5000, 16), (3, 9, 4096)):
        for page in translate.grid_pages(sources, styles, size):
            rows = 1 + page.stop - page.start
            assert rows == 2 or rows * (1 + sources) * size * size <= translate.MOST_PIXELS
            assert rows * size + max(20, size // 6) <= JPEG_MAX_SIDE  # titles above
    Image.new("RGB", (255 * 256, 8)).save(io.BytesIO(), format="JPEG")


def test_images_without_files_are_numbered(nets, pictures):
    """Solver.sample takes any loaders: without files to name, or shuffled, pictures are numbered."""
    x_src, x_ref, y_ref = pictures
    loader = DataLoader(TensorDataset(x_src, torch.zeros(5)), batch_size=2)
    groups = list(translate.source_groups(nets, loader, 3, MicroBatch(2, 2), lambda x: x))
    assert [group.names for group in groups] == [["0", "1", "2"], ["3", "4"]]
    assert np.array_equal(groups[1].shown, to_uint8(x_src[3:]))
    loader = DataLoader(TensorDataset(x_ref, y_ref), batch_size=3)
    styles = translate.reference_styles(nets.style_encoder, loader, lambda x: x, shown=False)
    assert styles.labels == [0, 0, 1, 2] and styles.names == ["0", "1", "2", "3"] and styles.shown is None
