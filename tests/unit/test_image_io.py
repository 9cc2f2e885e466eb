import os
import socketserver
import struct
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngInfo

from core.images import io
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


def test_reading_applies_orientation_and_converts_to_rgb(tmp_path):
    upright = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to see it upright
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(io.read_rgb(tmp_path / "turned.png"), upright)
    for mode in ("L", "P", "RGBA", "1"):
        upright.convert(mode).save(tmp_path / f"{mode}.png")
        assert io.read_rgb(tmp_path / f"{mode}.png").mode == "RGB"


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()  # to write it
    shown = Image.new("RGB", (64, 96), "red")
    shown.paste("blue", (0, 0, 64, 32))
    shown.save(tmp_path / "x.HEIC", format="HEIF", quality=95)
    Image.init()  # so that no plugin registers itself in the patched dict
    for name, of in (("OPEN", dict), ("ID", list)):
        monkeypatch.setattr(Image, name, of(getattr(Image, name)))
    Image.OPEN.pop("HEIF")
    Image.ID.remove("HEIF")  # as before the first one is read
    found = io.read_rgb(tmp_path / "x.HEIC", 16)
    assert found.size == (64, 96) and io.read_with_size(tmp_path / "x.HEIC", 32)[1] == (64, 96)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(shown)).mean() < 4


def test_images_of_more_than_8_bits_are_scaled_not_clipped(tmp_path):
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


def test_transparent_pixels_become_white(tmp_path):
    red = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    red.putpixel((0, 0), (0, 0, 0, 0))
    red.save(tmp_path / "rgba.png")
    Image.new("LA", (2, 1), (0, 51)).save(tmp_path / "la.png")
    palette = red.convert("RGB").quantize(2)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    pixels = {name: np.asarray(io.read_rgb(tmp_path / f"{name}.png"))[0].tolist() for name in ("rgba", "la", "p")}
    assert pixels["rgba"] == pixels["p"] == [[255, 255, 255], [255, 0, 0]]
    assert pixels["la"] == [[204] * 3] * 2


def test_squared_stretches_crops_or_pads():
    wide = Image.new("RGB", (64, 32), "red")
    wide.paste("blue", (0, 0, 16, 32))
    stretched, cropped, padded = (np.asarray(io.squared(wide, 16, way)) for way in ("stretch", "crop", "pad"))
    assert stretched.shape == cropped.shape == padded.shape == (16, 16, 3)
    assert (stretched[:, 0] == (0, 0, 255)).all() and (stretched[:, -1] == (255, 0, 0)).all()
    assert (cropped[:, 1:] == (255, 0, 0)).all()  # the blue quarter is cut off
    assert (padded[:4] == 255).all() and (padded[12:] == 255).all() and (padded[8, 0] == (0, 0, 255)).all()
    for way in ("stretch", "crop", "pad"):
        line = np.asarray(io.squared(Image.new("RGB", (1, 900)), 16, way))
        assert line.shape == (16, 16, 3) and (line == 0).any()


def test_reduced_jpeg_decoding_stays_close_to_full_decoding(tmp_path):
    """Resized to 64 px, the image stays within 2 / 255 of full decoding on average."""
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
def test_files_that_are_not_images_are_refused(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"^Cannot read .*x\.jpg as an image \(.*\. Replace or remove it\."):
        io.read_rgb(tmp_path / "x.jpg")


def test_truncated_images_are_refused(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"^Cannot read .*x\.png as an image \("):
        io.read_rgb(tmp_path / "x.png")


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    Image.new("L", (64, 64)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert io.read_rgb(tmp_path / "x.png").size == (64, 64)  # large, and no warning (pytest makes it an error)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"^Cannot read .*x\.png as an image: image size \(4096 .*Make it smaller"):
        io.read_rgb(tmp_path / "x.png")


def with_size(path, width, height):
    """Change the size in the header of a PNG file."""
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def test_the_limit_of_pixels_admits_photographs_of_200_megapixels(tmp_path):
    for width, height, is_read in (
        (16320, 12240, True),
        (16384, 16384, True),
        (16384, 16385, False),
        (2**20, 2**20, False),
    ):
        Image.new("L", (8, 8)).save(tmp_path / "x.png")
        with_size(tmp_path / "x.png", width, height)
        if is_read:
            assert io.image_size(tmp_path / "x.png") == (width, height)
        else:
            with pytest.raises(UserError, match="exceeds limit of 268435456 pixels. Make it smaller"):
                io.image_size(tmp_path / "x.png")


def test_a_jpeg_of_200_megapixels_is_read_at_reduced_size(tmp_path):
    Image.new("L", (16320, 12240), 77).save(tmp_path / "x.jpg", quality=30)
    image, size = io.read_with_size(tmp_path / "x.jpg", 512)
    assert size == (16320, 12240) and image.size == (2040, 1530) and image.getpixel((9, 9)) == (77, 77, 77)
    assert io.read_with_size(tmp_path / "x.jpg", 32)[1] == (16320, 12240)


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "after the image"])
def test_long_texts_in_png_files_are_ignored(tmp_path, kind):
    text, info = "{" + "x" * 9_000_000 + "}", PngInfo()
    if kind == "iTXt":
        info.add_itxt("workflow", text, zip=True)
    else:
        info.add_text("workflow", text, zip=kind != "tEXt")
    red = Image.new("RGB", (8, 8), "red")
    red.save(tmp_path / "x.png", pnginfo=info)
    if kind == "after the image":
        content = (tmp_path / "x.png").read_bytes()
        start, pixels = content.index(b"zTXt") - 4, content.index(b"IDAT") - 4
        end = content.index(b"IEND") - 4
        (tmp_path / "x.png").write_bytes(content[:start] + content[pixels:end] + content[start:pixels] + content[end:])
    assert np.array_equal(io.read_rgb(tmp_path / "x.png"), red)


def test_only_documented_formats_are_opened_whatever_the_name(tmp_path, monkeypatch):
    """An EPS file would start Ghostscript. The other formats of Pillow are not documented."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_args, **_options: pytest.fail("started a program"))
    image, eps = Image.new("RGB", (16, 16), "red"), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    for number, file_format in enumerate(("EPS", "PDF", "PCX", "ICO", "ICNS", "DDS", "SGI")):
        path = tmp_path / f"{number}.{('jpg', 'png', 'tif', 'eps')[number % 4]}"
        image.save(path, format=file_format)
        for content in (path.read_bytes(), eps):
            path.write_bytes(content)
            for read in (io.read_rgb, partial(io.read_with_size, least_side=32), io.image_size):
                with pytest.raises(UserError, match="as an image"):
                    read(path)
    for file_format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA"):
        image.save(tmp_path / "x.jpg", format=file_format)
        assert io.read_rgb(tmp_path / "x.jpg").size == (16, 16), file_format


@pytest.mark.parametrize(
    "kind", ["pipe", "socket", "device", "folder", "linked pipe", "link to itself", "link to nowhere"]
)
def test_only_regular_files_are_opened(kind, tmp_path):
    path = tmp_path / "x.png"
    make = {
        "pipe": lambda: os.mkfifo(path),
        "socket": lambda: socketserver.UnixStreamServer(str(path), None).server_close(),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "linked pipe": lambda: (os.mkfifo(tmp_path / "pipe"), path.symlink_to("pipe")),
        "link to itself": lambda: path.symlink_to("x.png"),
        "link to nowhere": lambda: path.symlink_to("nowhere"),
    }
    try:
        make[kind]()
    except (OSError, AttributeError):
        pytest.skip("not possible on this system")
    for read in (io.read_rgb, partial(io.read_with_size, least_side=32), io.image_size):
        with pytest.raises(UserError, match=r"^Cannot read .*x\.png as an image \(.*\)\. Replace or remove it\."):
            read(path)
