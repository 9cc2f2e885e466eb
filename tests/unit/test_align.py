"""Alignment of faces."""

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


@pytest.fixture(scope="module")
def expected():
    return golden.read("face.npz")


def turned(points, degrees=0.0, scale=1.0, shift=(0.0, 0.0)):
    """Points (98, 2) rotated about their mean, scaled and shifted."""
    angle, mean = np.deg2rad(degrees), points.mean(0)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - mean) @ turn.T + mean + shift


def moved(matrix, points):
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def test_similarity_equals_golden_matrix(expected):
    landmarks, reference = (expected[name].double().numpy() for name in ("landmarks_256", "reference_landmarks"))
    matrix = align.similarity(landmarks, reference)
    np.testing.assert_allclose(matrix, expected["align_matrix"].numpy(), atol=1e-3)


CHANGES = [(0, 1, (0, 0)), (30, 0.8, (9, -6)), (-75, 0.6, (-20, 12)), (180, 1.1, (3, 3))]


@pytest.mark.parametrize("change", CHANGES)
def test_rotation_scale_and_shift_are_recovered(change, mean_face):
    """Landmarks that heat maps represent exactly (a quarter beside a pixel) land on the reference."""
    landmarks = np.floor(mean_face / 4) * 4 + 2 + np.random.default_rng(1).choice([-1, 1], mean_face.shape)
    reference = turned(landmarks, *change)
    found = landmarks_of(golden.heat_maps(torch.from_numpy(landmarks / 4 - 0.5).float()))[0].numpy() * 4.0
    assert np.abs(moved(align.similarity(found, reference), landmarks) - reference).max() < 1e-3


@pytest.mark.parametrize("change", CHANGES)
def test_landmarks_between_pixels_are_aligned_to_a_pixel(change, mean_face):
    """Between pixels heat maps are wrong by up to one pixel of the image; half of that remains on average."""
    landmarks = turned(mean_face, *change)
    found = landmarks_of(golden.heat_maps(torch.from_numpy(landmarks / 4 - 0.5).float()))[0].numpy() * 4.0
    apart = np.linalg.norm(moved(align.similarity(found, mean_face), landmarks) - mean_face, axis=1)
    assert apart.mean() < 0.75 and apart.max() < 1.5


def test_a_rotated_image_is_aligned_upright(mean_face, tmp_path):
    """An image with known landmarks, rotated by 30 degrees, becomes upright again."""
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


def test_warp_by_identity_or_quarter_turn_is_exact():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(align.warp(image, np.eye(3), 64), image)
    quarter = np.array([[0, -1, 64], [1, 0, 0], [0, 0, 1.0]])
    assert np.array_equal(align.warp(image, quarter, 64), np.rot90(image, -1))


def test_downscaling_smooths_stripes():
    """Stripes finer than the output pixels become grey, without aliasing."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    matrix = np.diag([0.5, 0.5, 1])
    small = align.warp(stripes, matrix, 128)[8:120, 8:120]
    assert np.abs(small.astype(float) - 127.5).max() < 8


def test_border_reflects_and_blurs():
    """The image is unchanged; around it is its reflection, which fades into a blur."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    found = align.bordered(image)
    assert found.shape == (512, 512, 3) and np.array_equal(found[128:-128, 128:-128], image)
    reflected = np.pad(image, [(128, 128)] * 2 + [(0, 0)], mode="reflect")
    near, far = (np.abs(found[row, 200:300].astype(float) - reflected[row, 200:300]).mean() for row in (126, 3))
    assert near < 8 and far > 30
    assert found[:8].std() < image.std() / 2, "blurred at the rim"


class Faces(torch.nn.Module):
    """Replaces FAN, whose trained weights are not available: bright images have a face, dark ones have none."""

    def __init__(self, points):
        super().__init__()
        self.points = points

    def get_heatmap(self, x, b_preprocess):
        maps = [golden.heat_maps(torch.from_numpy(self.points / 4 - 0.5).float()) for _ in x]
        return torch.cat(maps) * (x.mean((1, 2, 3)) > 0)[:, None, None, None]


def align_all(mean_face, root, out, **options):
    options |= {"img_size": 128, "resize": "stretch", "to_device": lambda x: x}
    return align.align_folder(fan=Faces(mean_face), mean_face=mean_face, root=root, out_dir=out, **options)


def test_align_folder_aligns_every_face_and_reports_the_rest(photographs, mean_face, tmp_path, capsys):
    out, sheet = tmp_path / "out", tmp_path / "sheet.jpg"
    assert align_all(mean_face, photographs, out, sheet=sheet) == (3, 2, 0)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "bright.jpg", "more/small.gif.png", "side.jpg",
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert "broken.png as an image (" in said and f"No face found in {photographs / 'dark.png'}." in said
    assert said.count("Alignment continues without this image.") == 2
    assert all(picture(path).size == (128, 128) for path in out.rglob("*.*"))
    assert picture(sheet).size == (12 * 192, 192)
    upright = np.asarray(read_rgb(photographs / "side.jpg").resize((128, 128))).astype(float)
    aligned = np.asarray(picture(out / "side.jpg")).astype(float)
    assert np.abs(aligned - upright)[16:-16, 16:-16].mean() < 3, "the landmarks are in place, so only EXIF turns it"
    assert np.abs(aligned - np.rot90(upright))[16:-16, 16:-16].mean() > 20


def test_existing_files_are_kept_without_override(photographs, mean_face, tmp_path):
    """A stopped run continues; existing files are overwritten only with --override."""
    out = tmp_path / "out"
    align_all(mean_face, photographs, out)
    (out / "side.jpg").unlink()
    (out / "bright.jpg").write_bytes(b"mine")
    assert align_all(mean_face, photographs, out) == (1, 2, 2)
    assert (out / "bright.jpg").read_bytes() == b"mine"
    assert align_all(mean_face, photographs, out, override=True) == (3, 2, 0)
    assert picture(out / "bright.jpg").size == (128, 128)


def test_overlapping_folders_and_equal_names_are_refused(photographs, mean_face, tmp_path):
    for out in (photographs, photographs / "more", photographs / "new"):
        with pytest.raises(UserError, match="it is inside --inp_dir"):
            align_all(mean_face, photographs, out)
    assert align_all(mean_face, photographs / "more", photographs)[0] == 1, "above is no matter"
    assert align_all(mean_face, photographs / "bright.jpg", tmp_path / "one")[0] == 1
    (photographs / "more" / "small.gif.png").write_bytes((photographs / "more" / "small.gif").read_bytes())
    with pytest.raises(UserError, match=r"two images .* to the same file .*small\.gif\.png"):
        align_all(mean_face, photographs, tmp_path / "two")
    with pytest.raises(UserError, match=r"^--contact_sheet must end with one of \.jpg, "):
        align_all(mean_face, photographs / "bright.jpg", tmp_path / "three", sheet=tmp_path / "sheet.xyz")


def test_coinciding_landmarks_are_no_face(photographs, mean_face, tmp_path):
    """The image is skipped."""
    assert align.align(np.zeros((64, 64, 3), np.uint8), np.full((98, 2), 30.0), mean_face) is None
    fan = Faces(np.full((98, 2), 100.0))
    counts = align.align_folder(
        fan=fan, mean_face=mean_face, root=photographs, out_dir=tmp_path / "out", img_size=64, resize="pad",
        to_device=lambda x: x,
    )  # fmt: skip
    assert counts == (0, 5, 0) and not (tmp_path / "out").exists()


def test_user_errors_exit_2_and_say_what_is_missing(photographs, mean_face, tmp_path, capsys):
    torch.save({"state_dict": golden.fill("fan", wing.FAN()).state_dict()}, tmp_path / "wing.ckpt")
    np.savez(tmp_path / "mean.npz", mean=mean_face)
    files = {"wing_path": tmp_path / "wing.ckpt", "lm_path": tmp_path / "mean.npz"}
    where = {"inp_dir": photographs, "out_dir": tmp_path / "out", **files}
    for flag, path, sentence in (
        ("out_dir", photographs, "(it is inside --inp_dir)"),
        ("lm_path", tmp_path / "none.npz", "none.npz. Run python -m data.download wing."),
        ("wing_path", tmp_path / "none.ckpt", "Cannot load the face landmark network"),
        ("inp_dir", tmp_path / "nothing", "does not exist"),
    ):
        assert call("align", "--device cpu", **{**where, flag: path}) == 2
        assert sentence in capsys.readouterr().err
    for points in (np.zeros((5, 2)), np.zeros((98, 2))):
        np.savez(tmp_path / "mean.npz", mean=points)
        with pytest.raises(UserError, match="it must have 98 distinct points"):
            align.read_mean_face(tmp_path / "mean.npz")
    (tmp_path / "mean.npz").write_bytes(b"<html>")
    with pytest.raises(UserError, match="^Cannot read the mean face"):
        align.read_mean_face(tmp_path / "mean.npz")
