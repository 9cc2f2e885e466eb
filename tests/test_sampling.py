import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import main
from core.images.grid import JPEG_MAX_SIDE
from core.images.io import to_uint8
from core.model import build_model
from core.sampling import snapshots, translate
from core.sampling.outputs import OutputWriter
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
    sources = translate.read_sources(nets, x_src.split(batch))
    references = translate.read_references(nets.style_encoder, zip(x_ref.split(batch), y_ref.split(batch), strict=True))
    rows = translate.translate_rows(nets.generator, sources, references.codes, batch)
    found = cells(translate.style_grid(sources, references, rows))
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
    found = cells(snapshots.cycle_grid(nets, x_src, y_src, x_ref, y_ref, batch=3))
    x_fake = nets.generator(x_src, nets.style_encoder(x_ref, y_ref))
    x_rec = nets.generator(x_fake, nets.style_encoder(x_src, y_src))
    for row, images in enumerate((x_src, x_ref, x_fake, x_rec)):
        assert_equal_pictures(found[row], to_uint8(images))


@torch.no_grad()
def test_latent_styles_and_the_mean_they_are_pulled_to(nets):
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    F = nets.mapping_network
    means, styles = translate.mean_styles(F, 16, range(2)), translate.latent_styles(F, z, range(2))
    assert means.shape == (2, 64) and styles.shape == (2, 3, 64)
    torch.testing.assert_close(styles[1], F(z, torch.tensor([1, 1, 1])))
    many = F(torch.randn(20000, 16, generator=torch.Generator().manual_seed(1)), torch.full((20000,), 1)).mean(0)
    torch.testing.assert_close(means[1], many, atol=0.1, rtol=0)
    assert not torch.allclose(means[0], means[1], atol=0.2)


@torch.no_grad()
def test_styles_of_seeds(nets):
    """A seed is the same style whatever else is asked for; psi pulls it to the mean of its domain."""
    F = nets.mapping_network
    some = translate.seed_styles(F, [1, 2], [4, 9], 1, 16)
    assert some.labels == [1, 1, 2, 2] and some.names == ["4", "9"] * 2 and some.shown is None
    assert some.origins[1] == {"seed": 9, "psi": 1}
    alone = translate.seed_styles(F, [2], [9], 1, 16)
    torch.testing.assert_close(alone.codes[0], some.codes[3])
    assert not torch.allclose(some.codes[2], some.codes[3], atol=1e-2)
    z = translate.codes_of_seeds([9], 16)
    torch.testing.assert_close(alone.codes, F(z, torch.tensor([2])))
    means = translate.mean_styles(F, 16, [1, 2])
    half = translate.seed_styles(F, [1, 2], [4, 9], 0.5, 16)
    torch.testing.assert_close(half.codes, (some.codes + means.repeat_interleave(2, 0)) / 2)
    none = translate.seed_styles(F, [1, 2], [4, 9], 0, 16)
    torch.testing.assert_close(none.codes, means.repeat_interleave(2, 0))


@torch.no_grad()
def test_grid_of_random_styles(nets, pictures):
    x_src = pictures[0][:2]
    sources = translate.read_sources(nets, [x_src])
    codes = torch.randn(3, 2, 64, generator=torch.Generator().manual_seed(0))
    styles = translate.in_domains(codes, [0, 2, 1])
    assert styles.labels == [0, 0, 2, 2, 1, 1]
    rows = translate.translate_rows(nets.generator, sources, styles.codes, batch=2)
    found = cells(translate.style_grid(sources, styles, rows))
    assert found.shape == (1 + 6, 2, 32, 32, 3)
    assert np.array_equal(found[0], to_uint8(x_src))
    assert_equal_pictures(found[-1], to_uint8(nets.generator(x_src, codes[2, 1:].expand(2, -1))))


@torch.no_grad()
def test_titles_stand_beside_the_same_cells(nets, pictures):
    x_src, x_ref, y_ref = pictures
    sources = translate.read_sources(nets, [x_src])._replace(names=[f"source {i}" for i in range(5)])
    references = translate.read_references(nets.style_encoder, [(x_ref, y_ref)])._replace(names=list("abcd"))
    rows = list(translate.translate_rows(nets.generator, sources, references.codes, 8))
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


def test_names_of_pictures_that_come_from_elsewhere(nets, pictures):
    """Solver.sample takes any loaders: without files to name, or shuffled, pictures are numbered."""
    x_src, x_ref, y_ref = pictures
    loader = DataLoader(TensorDataset(x_src, torch.zeros(5)), batch_size=2)
    groups = list(translate.source_groups(nets, loader, 3, lambda work: work(2), lambda x: x))
    assert [group.names for group in groups] == [["0", "1", "2"], ["3", "4"]]
    assert np.array_equal(groups[1].shown, to_uint8(x_src[3:]))
    loader = DataLoader(TensorDataset(x_ref, y_ref), batch_size=3)
    styles = translate.reference_styles(nets.style_encoder, loader, lambda work: work(2), lambda x: x, shown=False)
    assert styles.labels == [0, 0, 1, 2] and styles.names == ["0", "1", "2", "3"] and styles.shown is None


def test_no_two_pictures_take_one_name(nets, pictures, tmp_path):
    """Underscores in names, names that differ in capitals only, pages of domains numbered by the user."""
    x_src, x_ref, _ = pictures
    sources = translate.read_sources(nets, [x_src[:2]])._replace(names=["a", "a__cat"], paths=["p", "q"])
    styles = translate.read_references(nets.style_encoder, [(x_ref[:3], torch.tensor([0, 0, 0]))])
    styles = styles._replace(names=["x", "cat__x", "X"], origins=[{"reference": name} for name in "ijk"])
    results = OutputWriter(nets.generator, tmp_path, lambda work: work(2), ["cat", "cat_2"])
    results.images(sources, styles)
    for label in (0, 1):
        for _ in range(2):
            results.write("latent", sources, styles._replace(labels=[label] * 3, shown=None))
    results.finish()
    entries = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert len({entry["file"].casefold() for entry in entries}) == len(entries) == 6
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(
        [entry["file"] for entry in entries]
        + ["manifest.jsonl", "index.html"]
        + ["latent_cat.jpg", "latent_cat_2.jpg", "latent_cat_2_2.jpg", "latent_cat_2_3.jpg"]
    )
    doubled = [e for e in entries if e["file"].startswith("a__cat__cat__x")]
    assert [(e["source"], e["reference"]) for e in doubled] == [("q", "i"), ("p", "j")]
