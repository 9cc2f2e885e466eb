import numpy as np
import pytest
import torch
from PIL import Image

from core import images
from core.errors import UserError


def test_to_uint8_rounds_and_clamps():
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0, 2 * 100.4 / 255 - 1, 2 * 100.6 / 255 - 1])
    x = x[None, None, None].expand(1, 3, 1, -1)
    assert images.to_uint8(x)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 100, 101]
    assert images.to_uint8(x.double()).shape == (1, 1, 7, 3)


def test_to_uint8_undoes_the_loader(tmp_path):
    from core.data_loader import test_transform

    array = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    x = test_transform(16)(Image.fromarray(array))
    assert np.array_equal(images.to_uint8(x[None])[0], array)


def test_reading_honours_orientation_and_modes(tmp_path):
    upright = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to see it upright
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(images.read_rgb(tmp_path / "turned.png"), upright)
    for mode in ("L", "P", "RGBA", "1"):
        upright.convert(mode).save(tmp_path / f"{mode}.png")
        assert images.read_rgb(tmp_path / f"{mode}.png").mode == "RGB"


def test_a_large_jpeg_may_be_decoded_smaller(tmp_path):
    """Reduced to 64 px, the picture stays within 2 / 255 of the plain way on average."""
    noise = np.random.default_rng(0).normal(0, 25, (512, 384, 3))
    y, x = np.mgrid[:512, :384]
    waves = np.stack([128 + 90 * np.sin(x / 9 + y / 31), 128 + 90 * np.cos(y / 7), (x + y) / 4], axis=2)
    Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / "x.jpg", quality=92)
    plain, quick = images.read_rgb(tmp_path / "x.jpg"), images.read_rgb(tmp_path / "x.jpg", least_side=128)
    assert plain.size == (384, 512) and quick.size == (192, 256)
    assert images.read_rgb(tmp_path / "x.jpg", least_side=200).size == plain.size
    small = [np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(float) for image in (plain, quick)]
    assert np.abs(small[0] - small[1]).mean() < 2


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"\xff\xd8\xff\xe0broken"])
def test_what_is_no_image(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.jpg cannot be read as an image"):
        images.read_rgb(tmp_path / "x.jpg")


def test_a_cut_image(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"x\.png cannot be read"):
        images.read_rgb(tmp_path / "x.png")


def test_an_image_too_large_to_be_honest(tmp_path, monkeypatch):
    Image.new("L", (64, 64)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"x\.png cannot be read.*decompression bomb"):
        images.read_rgb(tmp_path / "x.png")


def test_grid(tmp_path):
    grid = images.Grid(rows=2, columns=3, size=8)
    red, blue = (np.full((1, 8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    grid.put(1, 1, np.concatenate([red, blue]))
    grid.save(tmp_path / "new" / "grid.png")
    array = np.asarray(images.read_rgb(tmp_path / "new" / "grid.png"))
    assert array.shape == (16, 24, 3)
    assert (array[:8] == 255).all() and (array[8:, :8] == 255).all()
    assert (array[8:, 8:16] == (255, 0, 0)).all() and (array[8:, 16:] == (0, 0, 255)).all()


def test_a_grid_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be made a folder"):
        images.Grid(1, 1, 8).save(tmp_path / "file" / "grid.png")
    (tmp_path / "grid.png").mkdir()
    with pytest.raises(UserError, match=r"grid\.png cannot be written"):
        images.Grid(1, 1, 8).save(tmp_path / "grid.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "grid.png"]
