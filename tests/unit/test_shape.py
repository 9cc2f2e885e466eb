"""Shapes of images: to the networks and back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from munch import Munch
from PIL import Image

from core.images.check import warn_about_shapes
from core.images.io import ALPHA, read_rgb, to_uint8
from core.images.shape import Shape
from core.model import Generator
from core.sampling.single import Translator

SIZES = [(70, 130), (130, 70), (64, 64), (63, 65), (1, 1), (3, 200), (8, 5)]


def noise(size):
    return Image.fromarray(np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("trained", [16, 32, 64, 256])
def test_keep_extends_to_what_the_generator_needs_and_cuts_back(size, trained):
    image = noise(size)
    shape = Shape(trained, "keep")
    fitted = shape.fit(image)
    step = trained // 16
    assert all(side % step == 0 and side >= 2 * step for side in fitted.image.size)
    assert all(new < max(2 * step, old + step) + 1 for new, old in zip(fitted.image.size, size, strict=True))
    assert np.array_equal(shape.restored(np.asarray(fitted.image), fitted), np.asarray(image))
    if size == (64, 64):
        assert fitted.image.size == size


def test_borders_are_reflections():
    image = noise((9, 8))
    fitted = Shape(64, "keep").fit(image)  # 3 columns more: 1 on the left, 2 on the right
    columns = np.asarray(image)[:, [1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6]]
    assert np.array_equal(np.asarray(fitted.image), columns)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_restored_outputs_have_the_shape_and_transparency_of_the_source(size, resize):
    image = noise(size)
    image.info[ALPHA] = Image.fromarray(np.random.default_rng(1).integers(0, 256, size[::-1], np.uint8))
    shape = Shape(64, resize, restore=True)
    fitted = shape.fit(image)
    assert fitted.image.size == (64, 64)
    output = np.full((64, 64, 3), [10, 200, 30], np.uint8)
    restored = shape.restored(output, fitted)
    assert restored.shape == (size[1], size[0], 4)
    assert np.array_equal(restored[..., 3], np.asarray(image.info[ALPHA]))
    replaced = (restored[..., :3] == [10, 200, 30]).all(-1)
    if resize == "crop":  # the largest square in the middle; around it, the source stays
        side, (width, height) = min(size), size
        left, top = (width - side) // 2, (height - side) // 2
        assert replaced[top : top + side, left : left + side].all()
        expected = np.asarray(image).copy()
        expected[top : top + side, left : left + side] = [10, 200, 30]
        assert np.array_equal(restored[..., :3], expected)
    else:
        assert replaced.all()
    assert Shape(64, resize).restored(output, Shape(64, resize).fit(image)) is output


def test_the_white_of_pad_is_cut_off():
    """What the networks see of a wide image comes back; the borders do not."""
    image = Image.new("RGB", (80, 40), (200, 10, 10))
    shape = Shape(64, "pad", restore=True)
    fitted = shape.fit(image)
    assert np.array_equal(shape.restored(np.asarray(fitted.image), fitted), np.asarray(image))


def test_transparency_of_files_is_kept(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    Image.fromarray(rgba[..., :3]).save(tmp_path / "b.png")
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "a.png").info[ALPHA]), rgba[..., 3])
    assert ALPHA not in read_rgb(tmp_path / "b.png").info


def test_only_kept_sizes_far_from_training_are_warned_about(capsys):
    near, far = [(64, 64), (128, 128), (40, 90)], [(129, 128), (31, 31)]
    for sizes, shape in ((near, Shape(64, "keep")), ([*far, (4000, 3000)], Shape(64, "crop"))):
        warn_about_shapes({Path(f"{number}.png"): size for number, size in enumerate(sizes)}, "--src_dir x", shape)
    assert capsys.readouterr().err == ""
    for size in far:
        warn_about_shapes({Path("x.png"): size}, "--src_dir x", Shape(64, "keep"))
        assert f"x.png ({size[0]} x {size[1]}). Results may be poor" in capsys.readouterr().err


def test_the_generator_translates_any_shape():
    torch.manual_seed(0)
    generator = Generator(img_size=32, w_hpf=0, channel_base=256, max_conv_dim=16).eval()
    translator = Translator(Munch(generator=generator), Shape(32, "keep"), lambda x: x)
    image, s_trg = translator.shape.fit(noise((35, 66))), torch.randn(1, 64)
    x_src = translator.tensor(image.image)
    assert x_src.shape == (1, 3, 66, 36)
    (found,) = translator.render(translator.encode(image), image, s_trg)
    with torch.no_grad():
        expected = to_uint8(generator(x_src, s_trg))[0, :, :35]
    assert found.shape == (66, 35, 3) and np.array_equal(found, expected)
