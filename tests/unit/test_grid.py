"""Grids of images."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from core.images import fonts, io
from core.images.grid import Grid
from core.system.errors import UserError


def test_grid_places_images_and_leaves_the_rest_white(tmp_path):
    grid = Grid(rows=2, columns=3, size=8)
    red, blue = (np.full((1, 8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    grid.put(1, 1, np.concatenate([red, blue]))
    grid.save(tmp_path / "new" / "grid.png")
    array = np.asarray(io.read_rgb(tmp_path / "new" / "grid.png"))
    assert array.shape == (16, 24, 3)
    assert (array[:8] == 255).all() and (array[8:, :8] == 255).all()
    assert (array[8:, 8:16] == (255, 0, 0)).all() and (array[8:, 16:] == (0, 0, 255)).all()


def test_titles_are_shortened_to_fit():
    grid = Grid(1, 2, 48, ["a very long name of a reference in a row"], ["short", "a very long name of a source"])
    title = grid._shortened("a very long name of a source", 40)
    assert grid.font.getlength(title) <= 40 and title[0] == "a" and title[-1] == "e" and "…" in title
    assert grid._shortened("short", 40) == "short" and grid._shortened("x", 1) == "…"
    assert grid.left <= 48 * 3 and grid.canvas.size == (grid.left + 96, grid.top + 48)


def test_titles_in_other_scripts_have_glyphs():
    """The font has glyphs for other scripts, where the system has such a font."""
    grid = Grid(1, 1, 64, ["déjà\nvu"], ["Ñandú"])
    assert grid.font.getlength("é") > 0
    assert fonts.font_for(12, "plain").getname() == ImageFont.load_default(12).getname()


def test_a_grid_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="^Cannot create folder "):
        Grid(1, 1, 8).save(tmp_path / "file" / "grid.png")
    (tmp_path / "grid.png").mkdir()
    with pytest.raises(UserError, match=r"^Cannot write .*grid\.png \("):
        Grid(1, 1, 8).save(tmp_path / "grid.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "grid.png"]


def test_thumbnail_shows_the_first_columns_of_large_grids_only(tmp_path):
    """It shows the first columns; a grid that is small already has no thumbnail."""
    grid = Grid(2, 5, 8)
    for column in range(5):
        grid.put(0, column, np.full((1, 8, 8, 3), 40 * column, np.uint8))
    grid.save_small(tmp_path / "small.png", columns=3, cell=4)
    small = np.asarray(Image.open(tmp_path / "small.png"))
    assert small.shape == (8, 12, 3)
    assert small[0, :, 0].tolist() == [0] * 4 + [40] * 4 + [80] * 4 and (small[4:] == 255).all()
    grid.save_small(tmp_path / "small.png", columns=5, cell=8)
    assert not (tmp_path / "small.png").exists()
