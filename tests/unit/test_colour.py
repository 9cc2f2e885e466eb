"""Colour profiles: every reader sees the colours that the photographer saw."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from core.images import check
from core.images.io import DAMAGED_PROFILE, FORMATS, read_rgb, read_with_size
from core.images.shape import Shape
from core.system import console
from data import prepare
from tests.command import picture
from tests.profiles import PRIMARIES, cmyk_profile, encoded, grey_profile, patches, rgb_profile


def error(found, expected):
    return np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max()


@pytest.mark.parametrize("name", PRIMARIES)
@pytest.mark.parametrize("form", [("png", {}), ("jpg", {"quality": 100, "subsampling": 0}), ("tif", {}),
                                  ("webp", {"lossless": True})])  # fmt: skip
def test_rgb_profiles_are_converted_to_srgb(name, form, tmp_path):
    path, icc = tmp_path / f"x.{form[0]}", rgb_profile(name)
    encoded(patches(), icc).save(path, icc_profile=icc, **form[1])
    found = read_rgb(path)
    assert error(found, patches()) <= 6 < 30 < error(picture(path), patches())
    assert "icc_profile" not in found.info
    small, nearest = (32, 32), Image.Resampling.NEAREST
    assert error(read_with_size(path, 32)[0].resize(small, nearest), patches().resize(small, nearest)) <= 6


def test_palettes_and_transparency_are_converted_too(tmp_path):
    icc = rgb_profile("Display P3")
    shown = encoded(patches(), icc)
    shown.quantize(64).save(tmp_path / "p.png", icc_profile=icc)
    assert error(read_rgb(tmp_path / "p.png"), patches()) <= 3
    clear = shown.convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    clear.save(tmp_path / "a.png", icc_profile=icc)
    found = read_rgb(tmp_path / "a.png")
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert error(found.crop((16, 0, 64, 64)), patches().crop((16, 0, 64, 64))) <= 3


def test_grey_profiles_are_converted_at_every_depth(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    linear = np.maximum(ramp / 255, 1e-9)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    images = {"8": Image.fromarray(ramp), "16": Image.fromarray(ramp.astype(np.uint16) * 257)}
    images["alpha"] = images["8"].convert("LA")
    for name, image in images.items():
        image.save(tmp_path / f"{name}.png", icc_profile=grey_profile(1.0))
        assert np.abs(np.asarray(read_rgb(tmp_path / f"{name}.png")) - srgb[:, :, None]).max() <= 1, name


def test_cmyk_profiles_are_converted(tmp_path):
    """A profile whose colours depend on black alone: no formula of Pillow knows that."""
    inks = Image.new("CMYK", (16, 16), (255, 128, 0, 0))
    inks.paste((0, 0, 0, 128), (0, 0, 8, 16))
    for name, options in (("x.jpg", {"quality": 100}), ("x.tif", {})):
        inks.save(tmp_path / name, icc_profile=cmyk_profile(), **options)
        found = np.asarray(read_rgb(tmp_path / name)).astype(int)
        assert (found[:, 9:] >= 252).all() and (np.abs(found[:, :7] - 118) <= 4).all(), name  # L* = 50 is 118
        inks.save(tmp_path / name, **options)
        assert error(read_rgb(tmp_path / name), inks.convert("RGB")) <= 12


def test_srgb_images_and_images_without_profile_keep_their_values(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(tmp_path / "plain.png")
    noise.save(tmp_path / "srgb.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert error(read_rgb(tmp_path / "plain.png"), noise) == error(read_rgb(tmp_path / "srgb.png"), noise) == 0


@pytest.fixture
def damaged(tmp_path):
    """Six images with bad profiles: text, cut off, and of another kind of image."""
    for number in range(2):
        for name, icc in (("text", b"no profile"), ("cut", rgb_profile("ProPhoto")[:300]), ("grey", grey_profile(2.2))):
            (tmp_path / "in" / "cat").mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(np.roll(np.asarray(patches()), 16 * number * len(name), axis=0))
            image.save(tmp_path / "in" / "cat" / f"{name}{number}.png", icc_profile=icc)
    return tmp_path / "in"


def test_damaged_profiles_change_nothing_and_cause_one_warning(damaged, capsys):
    for path in sorted((damaged / "cat").iterdir()):
        assert error(read_rgb(path), picture(path)) == 0
        assert DAMAGED_PROFILE in read_with_size(path)[0].info
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "Ignoring the damaged colour profile of" in said and "cut0.png" in said


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_data_set_with_damaged_profiles_is_reported_once(num_workers, damaged, capsys, monkeypatch):
    monkeypatch.setattr(check, "FEW", 2)  # so that workers read them
    for flag in ("train_img_dir", "val_img_dir"):
        check.check_images(damaged, flag, 32, damaged / ".cache.json", num_workers)
    for path in (damaged / "cat").iterdir():
        read_rgb(path)
    said = capsys.readouterr().err
    assert said.count("damaged colour") == 1 and "Found 6 damaged colour profiles among 6 in --train_img_dir" in said
    monkeypatch.setattr(console, "_kinds_warned", set())
    samples = [(path, 0) for path in sorted((damaged / "cat").iterdir())]
    assert check.readable(samples, "--src_dir x", Shape(64), num_workers) == samples
    assert "Found 6 damaged colour profiles among 6 in --src_dir x: " in capsys.readouterr().err


def test_prepared_images_are_srgb(tmp_path):
    icc = rgb_profile("Display P3")
    for number, colour in enumerate([(40, 220, 60), (200, 30, 30), (30, 60, 200), (90, 90, 90)]):
        image = Image.new("RGB", (64, 64), colour)
        image.paste((10, 40 * number, 90), (0, 0, 20, 64))
        (tmp_path / "in" / "dog").mkdir(parents=True, exist_ok=True)
        encoded(image, icc).save(tmp_path / "in" / "dog" / f"{number}.png", icc_profile=icc)
    lines = prepare.prepare(tmp_path / "in", tmp_path / "out", 32)
    (output,) = [line["output"] for line in lines if line["file"] == "dog/0.png"]
    found = picture(tmp_path / "out" / output)
    assert error(found.getpixel((24, 16)), (40, 220, 60)) <= 4 and "icc_profile" not in found.info


def test_every_documented_format_is_one_of_pillow():
    Image.init()
    assert set(FORMATS) - {"AVIF", "HEIF"} <= set(Image.OPEN)  # these two depend on its version and on pillow-heif


def test_the_test_profiles_are_valid():
    for icc in (*map(rgb_profile, PRIMARIES), grey_profile(2.2), cmyk_profile()):
        assert ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.version == pytest.approx(2.1)
