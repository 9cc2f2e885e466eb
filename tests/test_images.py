import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from core.images import io
from core.images.grid import Grid, _font
from core.system.errors import UserError


def test_to_uint8_rounds_and_clamps():
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0, 2 * 100.4 / 255 - 1, 2 * 100.6 / 255 - 1])
    x = x[None, None, None].expand(1, 3, 1, -1)
    assert io.to_uint8(x)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 100, 101]
    assert io.to_uint8(x.double()).shape == (1, 1, 7, 3)


def test_to_uint8_undoes_the_loader(tmp_path):
    from core.data_loader import test_transform

    array = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    x = test_transform(16)(Image.fromarray(array))
    assert np.array_equal(io.to_uint8(x[None])[0], array)


def test_reading_honours_orientation_and_modes(tmp_path):
    upright = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to see it upright
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(io.read_rgb(tmp_path / "turned.png"), upright)
    for mode in ("L", "P", "RGBA", "1"):
        upright.convert(mode).save(tmp_path / f"{mode}.png")
        assert io.read_rgb(tmp_path / f"{mode}.png").mode == "RGB"


def test_photographs_of_iphones(tmp_path, monkeypatch):
    """HEIC is read where pillow-heif is installed."""
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()  # to write it
    shown = Image.new("RGB", (64, 96), "red")
    shown.paste("blue", (0, 0, 64, 32))
    shown.save(tmp_path / "x.HEIC", format="HEIF", quality=95)
    Image.init()  # so that none registers itself with what is patched
    for name, of in (("OPEN", dict), ("ID", list)):
        monkeypatch.setattr(Image, name, of(getattr(Image, name)))
    Image.OPEN.pop("HEIF")
    Image.ID.remove("HEIF")  # as before the first one is read
    found = io.read_rgb(tmp_path / "x.HEIC", 16)
    assert found.size == (64, 96) and io.glance(tmp_path / "x.HEIC")[1:] == (64, 96)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(shown)).mean() < 4


def test_more_than_8_bit_is_scaled_not_cut(tmp_path):
    ramp = np.linspace(0, 1, 256 * 4, dtype=np.float32).reshape(4, 256)
    expected = np.round(ramp * 255)
    files = {
        "uint16.png": (ramp * 65535).round().astype(np.uint16),
        "uint16.tif": (ramp * 65535).round().astype(np.uint16),
        "int32.tif": (ramp * 65535).round().astype(np.int32),
        "int8bit.tif": expected.astype(np.int32),
        "unit.tif": ramp,
        "float.tif": ramp * 255,
    }
    for name, array in files.items():
        Image.fromarray(array).save(tmp_path / name)
        found = np.asarray(io.read_rgb(tmp_path / name)).astype(float)
        assert np.abs(found - expected[:, :, None]).max() <= 1, name
    clear = Image.fromarray(files["uint16.png"])
    clear.save(tmp_path / "clear.png", transparency=7)
    assert np.abs(np.asarray(io.read_rgb(tmp_path / "clear.png")) - expected[:, :, None]).max() <= 1
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    assert not np.asarray(io.read_rgb(tmp_path / "nan.tif")).any()


def test_what_is_transparent_becomes_white(tmp_path):
    red = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    red.putpixel((0, 0), (0, 0, 0, 0))
    red.save(tmp_path / "rgba.png")
    Image.new("LA", (2, 1), (0, 51)).save(tmp_path / "la.png")
    palette = red.convert("RGB").quantize(2)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    pixels = {name: np.asarray(io.read_rgb(tmp_path / f"{name}.png"))[0].tolist() for name in ("rgba", "la", "p")}
    assert pixels["rgba"] == pixels["p"] == [[255, 255, 255], [255, 0, 0]]
    assert pixels["la"] == [[204] * 3] * 2


def test_making_square():
    wide = Image.new("RGB", (64, 32), "red")
    wide.paste("blue", (0, 0, 16, 32))
    stretched, cropped, padded = (np.asarray(io.squared(wide, 16, way)) for way in ("stretch", "crop", "pad"))
    assert stretched.shape == cropped.shape == padded.shape == (16, 16, 3)
    assert (stretched[:, 0] == (0, 0, 255)).all() and (stretched[:, -1] == (255, 0, 0)).all()
    assert (cropped[:, 1:] == (255, 0, 0)).all()  # the blue quarter is cut off
    assert (padded[:4] == 255).all() and (padded[12:] == 255).all() and (padded[8, 0] == (0, 0, 255)).all()
    for way in ("stretch", "crop", "pad"):
        assert io.squared(Image.new("RGB", (1, 900)), 16, way).size == (16, 16)


def test_a_large_jpeg_may_be_decoded_smaller(tmp_path):
    """Reduced to 64 px, the picture stays within 2 / 255 of the plain way on average."""
    noise = np.random.default_rng(0).normal(0, 25, (512, 384, 3))
    y, x = np.mgrid[:512, :384]
    waves = np.stack([128 + 90 * np.sin(x / 9 + y / 31), 128 + 90 * np.cos(y / 7), (x + y) / 4], axis=2)
    Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / "x.jpg", quality=92)
    plain, quick = io.read_rgb(tmp_path / "x.jpg"), io.read_rgb(tmp_path / "x.jpg", least_side=128)
    assert plain.size == (384, 512) and quick.size == (192, 256)
    assert io.read_rgb(tmp_path / "x.jpg", least_side=200).size == plain.size
    small = [np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(float) for image in (plain, quick)]
    assert np.abs(small[0] - small[1]).mean() < 2


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"\xff\xd8\xff\xe0broken"])
def test_what_is_no_image(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.jpg cannot be read as an image"):
        io.read_rgb(tmp_path / "x.jpg")


def test_a_cut_image(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"x\.png cannot be read"):
        io.read_rgb(tmp_path / "x.png")


def test_an_image_too_large_to_be_honest(tmp_path, monkeypatch):
    Image.new("L", (64, 64)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert io.read_rgb(tmp_path / "x.png").size == (64, 64)  # large, and no warning (pytest makes it an error)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"x\.png cannot be read.*make it smaller"):
        io.read_rgb(tmp_path / "x.png")


def test_grid(tmp_path):
    grid = Grid(rows=2, columns=3, size=8)
    red, blue = (np.full((1, 8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    grid.put(1, 1, np.concatenate([red, blue]))
    grid.save(tmp_path / "new" / "grid.png")
    array = np.asarray(io.read_rgb(tmp_path / "new" / "grid.png"))
    assert array.shape == (16, 24, 3)
    assert (array[:8] == 255).all() and (array[8:, :8] == 255).all()
    assert (array[8:, 8:16] == (255, 0, 0)).all() and (array[8:, 16:] == (0, 0, 255)).all()


def test_titles_are_shortened_to_their_place():
    grid = Grid(1, 2, 48, ["a very long name of a reference in a row"], ["short", "a very long name of a source"])
    title = grid._shortened("a very long name of a source", 40)
    assert grid.font.getlength(title) <= 40 and title[0] == "a" and title[-1] == "e" and "…" in title
    assert grid._shortened("short", 40) == "short" and grid._shortened("x", 1) == "…"
    assert grid.left <= 48 * 3 and grid.canvas.size == (grid.left + 96, grid.top + 48)


def test_titles_in_other_letters():
    """Where the system has a font for them, they are no row of equal boxes."""
    grid = Grid(1, 1, 64, ["déjà\nvu"], ["Ñandú"])
    assert grid.font.getlength("é") > 0
    assert _font(12, "plain").getname() == ImageFont.load_default(12).getname()


def test_a_grid_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be made a folder"):
        Grid(1, 1, 8).save(tmp_path / "file" / "grid.png")
    (tmp_path / "grid.png").mkdir()
    with pytest.raises(UserError, match=r"grid\.png cannot be written"):
        Grid(1, 1, 8).save(tmp_path / "grid.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "grid.png"]


def test_a_small_version_of_a_grid(tmp_path):
    """The first columns, at most so large; none of a grid that is small."""
    grid = Grid(2, 5, 8)
    for column in range(5):
        grid.put(0, column, np.full((1, 8, 8, 3), 40 * column, np.uint8))
    grid.save_small(tmp_path / "small.png", columns=3, cell=4)
    small = np.asarray(Image.open(tmp_path / "small.png"))
    assert small.shape == (8, 12, 3)
    assert small[0, :, 0].tolist() == [0] * 4 + [40] * 4 + [80] * 4 and (small[4:] == 255).all()
    grid.save_small(tmp_path / "small.png", columns=5, cell=8)
    assert not (tmp_path / "small.png").exists()
