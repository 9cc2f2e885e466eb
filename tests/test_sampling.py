import io

import numpy as np
import pytest
import torch
from PIL import Image

import main
from core import sampling
from core.images import to_uint8
from core.model import build_model
from tests.command import NARROW


@pytest.fixture(scope="module")
def nets():
    return build_model(main.parse_args(["--mode", "sample", *NARROW.split(), "--num_domains", "3"]))[1]


@pytest.fixture(scope="module")
def pictures():
    torch.manual_seed(0)
    return torch.rand(5, 3, 32, 32) * 2 - 1, torch.rand(4, 3, 32, 32) * 2 - 1, torch.tensor([0, 0, 1, 2])


def cells(grid):
    """The grid's picture as (rows, columns, H, W, 3)."""
    array, size = np.asarray(grid.canvas), grid.size
    rows, columns = array.shape[0] // size, array.shape[1] // size
    return array.reshape(rows, size, columns, size, 3).swapaxes(1, 2)


def assert_equal_pictures(found, expected):
    """The same pictures but for a rounding: batches of another size add up in another order."""
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("batch", [1, 2, 8])
@torch.no_grad()
def test_reference_grid_shows_every_source_in_every_style(nets, pictures, batch):
    x_src, x_ref, y_ref = pictures
    sources = sampling.read_sources(nets.generator, x_src.split(batch))
    references = sampling.read_references(nets.style_encoder, zip(x_ref.split(batch), y_ref.split(batch), strict=True))
    found = cells(sampling.reference_grid(nets.generator, sources, references, batch))
    assert found.shape == (5, 6, 32, 32, 3)
    assert (found[0, 0] == 255).all()
    assert np.array_equal(found[0, 1:], to_uint8(x_src)) and np.array_equal(found[1:, 0], to_uint8(x_ref))
    styles = nets.style_encoder(x_ref, y_ref)
    for row, style in enumerate(styles, start=1):
        expected = to_uint8(nets.generator(x_src, style.expand(5, -1)))
        assert_equal_pictures(found[row, 1:], expected)


@torch.no_grad()
def test_cycle_grid(nets, pictures):
    x_src, x_ref, y_ref = pictures
    x_src, y_src = x_src[:4], torch.tensor([2, 1, 0, 0])
    found = cells(sampling.cycle_grid(nets, x_src, y_src, x_ref, y_ref, batch=3))
    x_fake = nets.generator(x_src, nets.style_encoder(x_ref, y_ref))
    x_rec = nets.generator(x_fake, nets.style_encoder(x_src, y_src))
    for row, images in enumerate((x_src, x_ref, x_fake, x_rec)):
        assert_equal_pictures(found[row], to_uint8(images))


@torch.no_grad()
def test_latent_styles_and_the_mean_they_are_pulled_to(nets):
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    F = nets.mapping_network
    means, styles = sampling.latent_styles(F, z, range(2), seed=7)
    assert means.shape == (2, 1, 64) and styles.shape == (2, 3, 64)
    torch.testing.assert_close(styles[1], F(z, torch.tensor([1, 1, 1])))
    many = F(torch.randn(20000, 16, generator=torch.Generator().manual_seed(1)), torch.full((20000,), 1)).mean(0)
    torch.testing.assert_close(means[1, 0], many, atol=0.1, rtol=0)
    assert not torch.allclose(means[0], means[1], atol=0.2)


@torch.no_grad()
def test_latent_grid(nets, pictures):
    x_src = pictures[0][:2]
    sources = sampling.read_sources(nets.generator, [x_src])
    styles = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    found = cells(sampling.latent_grid(nets.generator, sources, styles, batch=2))
    assert found.shape == (1 + 6, 2, 32, 32, 3)
    assert np.array_equal(found[0], to_uint8(x_src))
    assert_equal_pictures(found[-1], to_uint8(nets.generator(x_src, styles[-1:].expand(2, -1))))


def test_huge_grids_are_split_into_pages_a_jpeg_can_hold():
    assert sampling.grid_pages(15, 28, 256) == [(slice(0, 15), slice(0, 28))]
    pages = sampling.grid_pages(300, 10, 256)
    assert pages[::2] == [(slice(0, 254), slice(0, 7)), (slice(254, 300), slice(0, 7))]
    for s, r in sampling.grid_pages(300, 300, 256):
        assert (1 + s.stop - s.start) * (1 + r.stop - r.start) * 256 * 256 <= sampling.MOST_PIXELS
    assert sampling.grid_pages(15, 112, 256) == [(slice(0, 15), slice(0, 112))]
    Image.new("RGB", (255 * 256, 8)).save(io.BytesIO(), format="JPEG")
