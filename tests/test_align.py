"""Faces brought into place."""

import numpy as np
import pytest
import torch
from PIL import Image

from core import wing
from core.images.io import read_rgb
from core.sampling import align
from core.system.errors import UserError
from core.wing import landmarks_of
from data import demo
from tests import golden
from tests.command import call, picture
from tests.test_wing import heat_maps


@pytest.fixture(scope="module")
def expected():
    return golden.read("face.npz")


def turned(points, degrees=0.0, scale=1.0, shift=(0.0, 0.0)):
    """Points (98, 2) turned about their mean, scaled and moved."""
    angle, mean = np.deg2rad(degrees), points.mean(0)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - mean) @ turn.T + mean + shift


def moved(matrix, points):
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def test_matrix(expected):
    landmarks, reference = (expected[name].double().numpy() for name in ("landmarks_256", "reference_landmarks"))
    matrix = align.similarity(landmarks, reference)
    np.testing.assert_allclose(matrix, expected["align_matrix"].numpy(), atol=1e-3)


@pytest.fixture(scope="module")
def mean_face():
    """98 points that lie like a face's, in pixels of 256: eyes, mouth and the rest round about them."""
    chance = np.random.default_rng(0)
    points = np.stack([chance.uniform(70, 186, 98), chance.uniform(70, 200, 98)], axis=1)
    for chosen, middle in ((range(60, 68), (96, 112)), (range(68, 76), (160, 112)), (range(76, 96), (128, 178))):
        points[list(chosen)] = np.array(middle) + chance.uniform(-12, 12, (len(chosen), 2)) * (1, 0.5)
    points[[96, 97, 76, 82]] = [(96, 112), (160, 112), (108, 178), (148, 178)]
    return points


CHANGES = [(0, 1, (0, 0)), (30, 0.8, (9, -6)), (-75, 0.6, (-20, 12)), (180, 1.1, (3, 3))]


@pytest.mark.parametrize("change", CHANGES)
def test_rotation_scale_and_shift_are_recovered(change, mean_face):
    """Landmarks where heat maps can tell them exactly, a quarter beside their pixels, land on the reference."""
    landmarks = np.floor(mean_face / 4) * 4 + 2 + np.random.default_rng(1).choice([-1, 1], mean_face.shape)
    reference = turned(landmarks, *change)
    found = landmarks_of(heat_maps(torch.from_numpy(landmarks / 4 - 0.5).float()))[0].numpy() * 4.0
    assert np.abs(moved(align.similarity(found, reference), landmarks) - reference).max() < 1e-3


@pytest.mark.parametrize("change", CHANGES)
def test_landmarks_between_pixels(change, mean_face):
    """PeerError heat maps are wrong by up to one pixel of the image; half of that is left on average."""
    landmarks = turned(mean_face, *change)
    found = landmarks_of(heat_maps(torch.from_numpy(landmarks / 4 - 0.5).float()))[0].numpy() * 4.0
    apart = np.linalg.norm(moved(align.similarity(found, mean_face), landmarks) - mean_face, axis=1)
    assert apart.mean() < 0.75 and apart.max() < 1.5


def test_a_turned_picture_comes_back(mean_face, tmp_path):
    """A picture with known landmarks, turned by 30 degrees, is level again."""
    demo.make(tmp_path, size=256, train=1, val=0)
    image = picture(tmp_path / "train" / "cat" / "00000.png")
    slanted = np.asarray(image.rotate(-30, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)))
    angle, centre = np.deg2rad(30), np.array([128.0, 128.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    level = align.align(slanted, (mean_face - centre) @ turn.T + centre, mean_face)
    inner = slice(64, 192)
    difference = np.abs(level[inner, inner].astype(float) - np.asarray(image)[inner, inner])
    assert difference.mean() < 3
    assert np.abs(slanted[inner, inner].astype(float) - np.asarray(image)[inner, inner]).mean() > 10


def test_the_identity_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(align.warp(image, np.eye(3), 64), image)
    quarter = np.array([[0, -1, 64], [1, 0, 0], [0, 0, 1.0]])
    assert np.array_equal(align.warp(image, quarter, 64), np.rot90(image, -1))


def test_what_shrinks_is_smoothed():
    """Stripes finer than the result's pixels become grey instead of a pattern."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    matrix = np.diag([0.5, 0.5, 1])
    small = align.warp(stripes, matrix, 128)[8:120, 8:120]
    assert np.abs(small.astype(float) - 127.5).max() < 8


def test_border():
    """The image stays as it is; around it is its reflection, that fades into a blur."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    found = align.bordered(image)
    assert found.shape == (512, 512, 3) and np.array_equal(found[128:-128, 128:-128], image)
    reflected = np.pad(image, [(128, 128)] * 2 + [(0, 0)], mode="reflect")
    near, far = (np.abs(found[row, 200:300].astype(float) - reflected[row, 200:300]).mean() for row in (126, 3))
    assert near < 8 and far > 30
    assert found[:8].std() < image.std() / 2, "blurred at the rim"


class Faces(torch.nn.Module):
    """In place of FAN, whose trained weights are not here: heat maps of faces that the picture's colour tells."""

    def __init__(self, points):
        super().__init__()
        self.points = points

    def get_heatmap(self, x, b_preprocess):
        maps = [heat_maps(torch.from_numpy(self.points / 4 - 0.5).float()) for _ in x]
        return torch.cat(maps) * (x.mean((1, 2, 3)) > 0)[:, None, None, None]


@pytest.fixture
def photographs(tmp_path):
    """A bright and a dark one, one on its side by its EXIF data, one in a folder, one broken."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    Image.new("RGB", (300, 200), (220, 200, 180)).save(folder / "bright.jpg")
    Image.new("RGB", (300, 200), (20, 20, 20)).save(folder / "dark.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.linear_gradient("L").resize((640, 480)).point(lambda v: 128 + v // 2).convert("RGB").save(
        folder / "side.jpg", exif=exif
    )
    Image.new("RGB", (64, 64), "white").save(folder / "more" / "small.gif")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def align_all(mean_face, root, out, **options):
    return align.align_folder(Faces(mean_face), mean_face, root, out, 128, "stretch", lambda x: x, **options)


def test_a_folder(photographs, mean_face, tmp_path, capsys):
    out, sheet = tmp_path / "out", tmp_path / "sheet.jpg"
    assert align_all(mean_face, photographs, out, sheet=sheet) == (3, 2, 0)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "bright.jpg", "more/small.gif.png", "side.jpg",
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert "broken.png cannot be read" in said and "dark.png shows no face" in said and said.count("left out") == 2
    assert all(picture(path).size == (128, 128) for path in out.rglob("*.*"))
    assert picture(sheet).size == (12 * 192, 192)
    upright = np.asarray(read_rgb(photographs / "side.jpg").resize((128, 128))).astype(float)
    aligned = np.asarray(picture(out / "side.jpg")).astype(float)
    assert np.abs(aligned - upright)[16:-16, 16:-16].mean() < 3, "the landmarks are in place, so only EXIF turns it"
    assert np.abs(aligned - np.rot90(upright))[16:-16, 16:-16].mean() > 20


def test_what_is_there_stays(photographs, mean_face, tmp_path):
    """A run that was stopped goes on; nothing is written over unasked."""
    out = tmp_path / "out"
    align_all(mean_face, photographs, out)
    (out / "side.jpg").unlink()
    (out / "bright.jpg").write_bytes(b"mine")
    assert align_all(mean_face, photographs, out) == (1, 2, 2)
    assert (out / "bright.jpg").read_bytes() == b"mine"
    assert align_all(mean_face, photographs, out, override=True) == (3, 2, 0)
    assert picture(out / "bright.jpg").size == (128, 128)


def test_folders_beside_and_within_each_other(photographs, mean_face, tmp_path):
    for out in (photographs, photographs / "more", photographs / "new"):
        with pytest.raises(UserError, match="lies among the photographs"):
            align_all(mean_face, photographs, out)
    assert align_all(mean_face, photographs / "more", photographs)[0] == 1, "above is no matter"
    assert align_all(mean_face, photographs / "bright.jpg", tmp_path / "one")[0] == 1
    (photographs / "more" / "small.gif.png").write_bytes((photographs / "more" / "small.gif").read_bytes())
    with pytest.raises(UserError, match=r"two images .* would both become .*small\.gif\.png"):
        align_all(mean_face, photographs, tmp_path / "two")
    with pytest.raises(UserError, match="end it with"):
        align_all(mean_face, photographs / "bright.jpg", tmp_path / "three", sheet=tmp_path / "sheet.xyz")


def test_landmarks_of_no_face(photographs, mean_face, tmp_path):
    """That fall together: the picture is left out."""
    assert align.align(np.zeros((64, 64, 3), np.uint8), np.full((98, 2), 30.0), mean_face) is None
    fan = Faces(np.full((98, 2), 100.0))
    counts = align.align_folder(fan, mean_face, photographs, tmp_path / "out", 64, "pad", lambda x: x)
    assert counts == (0, 5, 0) and not (tmp_path / "out").exists()


def test_what_a_user_can_do_wrong(photographs, mean_face, tmp_path, capsys):
    torch.save({"state_dict": golden.fill("fan", wing.FAN()).state_dict()}, tmp_path / "wing.ckpt")
    np.savez(tmp_path / "mean.npz", mean=mean_face)
    files = {"wing_path": tmp_path / "wing.ckpt", "lm_path": tmp_path / "mean.npz"}
    where = {"inp_dir": photographs, "out_dir": tmp_path / "out", **files}
    for flag, path, sentence in (
        ("out_dir", photographs, "lies among the photographs"),
        ("lm_path", tmp_path / "none.npz", "the mean face, is missing: get it by python -m data.download wing"),
        ("wing_path", tmp_path / "none.ckpt", "the network that finds faces, is missing"),
        ("inp_dir", tmp_path / "nothing", "does not exist"),
    ):
        assert call("align", "--device cpu", **{**where, flag: path}) == 2
        assert sentence in capsys.readouterr().err
    for points in (np.zeros((5, 2)), np.zeros((98, 2))):
        np.savez(tmp_path / "mean.npz", mean=points)
        with pytest.raises(UserError, match="98 points"):
            align.read_mean_face(tmp_path / "mean.npz")
    (tmp_path / "mean.npz").write_bytes(b"<html>")
    with pytest.raises(UserError, match="is not the mean face"):
        align.read_mean_face(tmp_path / "mean.npz")


def test_the_program(photographs, mean_face, tmp_path, capsys):
    """With a network of random weights, whose heat maps are large everywhere: it takes all for faces."""
    torch.save({"state_dict": golden.fill("fan", wing.FAN()).state_dict()}, tmp_path / "wing.ckpt")
    np.savez(tmp_path / "mean.npz", mean=mean_face)
    where = {"inp_dir": photographs, "out_dir": tmp_path / "out", "wing_path": tmp_path / "wing.ckpt"}
    more = {"lm_path": tmp_path / "mean.npz", "contact_sheet": tmp_path / "sheet.jpg"}
    assert call("align", "--device cpu --img_size 64", **where, **more) == 0
    said = capsys.readouterr()
    assert "broken.png cannot be read" in said.err and "left out 1 images" in said.out
    assert len(list((tmp_path / "out").rglob("*.*"))) == 4 and (tmp_path / "sheet.jpg").is_file()
