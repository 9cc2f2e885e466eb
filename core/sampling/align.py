"""Faces brought into the place where CelebA-HQ has them (paper, appendix; the landmarks of core.wing)."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from core.data_loader import test_transform
from core.images.folders import images_below
from core.images.grid import Grid
from core.images.io import read_rgb, to_uint8, write_image
from core.system import console
from core.system.errors import UserError
from core.system.files import system_errors
from core.system.memory import chunks
from core.wing import ANOTHER, LANDMARKS, SIZE, landmarks_of

WEAK = 0.1  # what the masks take for nothing too: most heat maps of a face rise above it
EYE_LEFT, EYE_RIGHT, MOUTH = [*range(60, 68), 96], [*range(68, 76), 97], [76, 82]
SPREAD = [96, 97, 76, 82]  # pupils and corners of the mouth, whose distances from the centre tell the scale
AT_ONCE = 8  # images through the network
SHEET_CELL, SHEET_COLUMNS, SHEET_MOST = 192, 6, 600
KEPT_FORMATS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


def align_folder(fan, mean_face, root, out_dir, img_size, resize, place, sheet=None, override=False):
    """Align the faces in the images below root, each saved in out_dir under its own name.

    mean_face: landmarks (98, 2) in pixels of 256. resize: see core.images.squared. place: puts a tensor where the
    network is. sheet: file for a picture of what was found. override: make anew what is there already. Returns how
    many were (made, left out, there already). Raises UserError.
    """
    if sheet and Path(sheet).suffix.lower() not in KEPT_FORMATS:
        raise UserError(f"--contact_sheet {sheet} is no name of a picture: end it with .jpg")
    targets = targets_of(root, out_dir)
    paths = [path for path, target in targets.items() if override or not target.exists()]
    transform, shown, made = test_transform(img_size, resize), [], 0
    with console.progress(total=len(paths), desc="aligning", unit="img") as bar:
        for part in chunks(len(paths), AT_ONCE):
            images = {}
            for path in paths[part]:
                try:
                    images[path] = transform(read_rgb(path, 2 * img_size))
                except UserError as error:
                    console.warn(f"left out: {error}")
            found = find_faces(fan, place(torch.stack(list(images.values())))) if images else []
            for path, (image, landmarks, is_face) in zip(images, found, strict=True):
                aligned = align(image, landmarks, mean_face * (img_size / SIZE)) if is_face else None
                if aligned is None:
                    console.warn(f"left out: {path} shows no face that can be found")
                else:
                    write_image(targets[path], aligned)
                    made += 1
                if sheet and len(shown) < SHEET_MOST:
                    shown.append([_small(picture) for picture in (with_landmarks(image, landmarks), aligned)])
            bar.update(part.stop - part.start)
    if shown:
        contact_sheet(shown, sheet)
    return made, len(paths) - made, len(targets) - len(paths)


def targets_of(root, out_dir):
    """{image below root: where it goes}: as it lies below root; PNG where its format would lose too much.

    Raises UserError where root has no images, out_dir lies in it, or two would get one name.
    """
    root, out_dir = Path(root), Path(out_dir)
    folder = root.parent if root.is_file() else root
    if folder.resolve() in (out_dir.resolve(), *out_dir.resolve().parents):
        raise UserError(f"--out_dir {out_dir} lies among the photographs of --inp_dir: choose a folder of its own")
    targets = {}
    for path in images_below(root, "inp_dir"):
        name = path.relative_to(folder)
        targets[path] = out_dir / (name if name.suffix.lower() in KEPT_FORMATS else f"{name}.png")
    if not targets:
        raise UserError(f"--inp_dir {root} has no images: give a folder of photographs, or one of them")
    twice = [str(target) for target, number in Counter(targets.values()).items() if number > 1]
    if twice:
        raise UserError(f"two images of --inp_dir {root} would both become {twice[0]}: rename one of them")
    return targets


def find_faces(fan, x):
    """For each image of x (N, 3, S, S): itself in uint8 (S, S, 3), landmarks (98, 2) in its pixels, whether a face."""
    maps = fan.get_heatmap(x, b_preprocess=False).float().cpu()  # (N, 98, 64, 64)
    landmarks = landmarks_of(maps).numpy() * (4 * x.shape[2] / SIZE)
    is_face = maps.amax(dim=(2, 3)).median(dim=1).values >= WEAK
    return list(zip(to_uint8(x), landmarks, is_face.tolist(), strict=True))


def align(image, landmarks, reference):
    """Turn, scale and move a face onto the reference.

    image: uint8 (S, S, 3), S even. landmarks, reference: (98, 2), (x, y) in pixels of it -> uint8 (S, S, 3); None
    where the landmarks do not lie like a face's.
    """
    size = len(image)
    matrix = similarity(landmarks + size // 2, reference)
    return warp(bordered(image), matrix, size) if is_usable(matrix) else None


def is_usable(matrix):
    """Whether a matrix neither collapses what it moves nor blows it up beyond measure."""
    return bool(np.isfinite(matrix).all()) and 0.01 < np.linalg.det(matrix[:2, :2]) < 1e4


def similarity(landmarks, reference):
    """The matrix (3, 3), on columns (x, y, 1), that turns, scales and moves landmarks (98, 2) onto the reference."""
    p, r = landmarks.mean(0), reference.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # points that fall together: see `is_usable`
        scale = (np.linalg.norm(reference[SPREAD] - r, axis=1) / np.linalg.norm(landmarks[SPREAD] - p, axis=1)).mean()
        (cos, sin), (cos_r, sin_r) = _axis(landmarks), _axis(reference)
    turn = scale * np.array([[cos * cos_r + sin * sin_r, sin * cos_r - cos * sin_r],
                             [cos * sin_r - sin * cos_r, cos * cos_r + sin * sin_r]])  # fmt: skip
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, r - turn @ p
    return matrix


def _axis(points):
    """The direction from the left eye to the right one, as eyes and mouth tell it together: a unit vector."""
    left, right, mouth = (points[chosen].mean(0) for chosen in (EYE_LEFT, EYE_RIGHT, MOUTH))
    x, y = (left + right) / 2 - mouth
    axis = right - left - np.array([y, -x])
    return axis / np.linalg.norm(axis)


def bordered(image):
    """Half of the image's size on every side, reflected, and the more blurred the farther out: uint8 (2S, 2S, 3)."""
    size = len(image)
    padded = np.pad(image, [(size // 2, size // 2)] * 2 + [(0, 0)], mode="reflect")
    half = np.asarray(Image.fromarray(padded).resize((size, size), Image.Resampling.BOX))
    half = ndimage.gaussian_filter(half, (size // 100, size // 100, 0), mode="nearest")
    blurred = np.asarray(Image.fromarray(half).resize((2 * size, 2 * size), Image.Resampling.BILINEAR))
    place = np.arange(2 * size)
    near = np.minimum(1, np.minimum(place, place[::-1]) / (size / 2))
    weight = np.minimum(near[:, None], near)[..., None] ** 4
    return (padded * weight + blurred * (1 - weight)).round().astype(np.uint8)


def warp(image, matrix, size):
    """The image under a matrix on its pixels' (x, y, 1), cut to size x size from the top left.

    Cubic splines, which come closest to a Lanczos kernel; where the image shrinks it is drawn larger and reduced.
    """
    scale = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    finer = max(1, min(4, int(np.ceil(1 / scale))))
    back = np.linalg.inv(matrix)
    # From the centre of a pixel of the result to an index of the image, rows first.
    turn = back[:2, :2][::-1, ::-1] / finer
    shift = back[:2, 2][::-1] + back[:2, :2][::-1, ::-1] @ np.full(2, 0.5 / finer) - 0.5
    drawn = [
        ndimage.affine_transform(channel, turn, shift, (size * finer, size * finer), order=3, mode="nearest")
        for channel in np.moveaxis(image.astype(np.float32), 2, 0)
    ]
    drawn = np.stack(drawn, axis=2).clip(0, 255).round().astype(np.uint8)
    return np.asarray(Image.fromarray(drawn).reduce(finer)) if finer > 1 else drawn


def with_landmarks(image, landmarks):
    """A copy of an image with its landmarks as dots."""
    picture = Image.fromarray(image)
    draw, radius = ImageDraw.Draw(picture), max(1, len(image) // 170)
    for x, y in landmarks:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="lime")
    return np.asarray(picture)


def _small(image):
    """A cell of the contact sheet."""
    if image is None:
        return None
    return np.asarray(Image.fromarray(image).resize((SHEET_CELL, SHEET_CELL), Image.Resampling.LANCZOS))


def contact_sheet(pairs, path):
    """Write a picture of pairs of cells (image, what came of it or None); white where nothing did."""
    grid = Grid(-(-len(pairs) // SHEET_COLUMNS), 2 * SHEET_COLUMNS, SHEET_CELL)
    for number, pair in enumerate(pairs):
        row, column = divmod(number, SHEET_COLUMNS)
        for side, image in enumerate(pair):
            if image is not None:
                grid.put(row, 2 * column + side, image[None])
    grid.save(path)


def read_mean_face(path):
    """Landmarks (98, 2) of the mean face from celeba_lm_mean.npz. Raises UserError."""
    if not Path(path).is_file():
        raise UserError(f"{path}, the mean face, is missing: get it by python -m data.download wing")
    try:
        with system_errors(path, "read"), np.load(path, allow_pickle=False) as arrays:
            mean = arrays["mean"].astype(np.float64)
    except (ValueError, LookupError, EOFError, TypeError) as error:
        raise UserError(f"{path} is not the mean face ({error}): {ANOTHER}") from error
    if mean.shape != (LANDMARKS, 2) or not is_usable(similarity(mean, mean)):
        raise UserError(f"{path} is not the mean face of {LANDMARKS} points: {ANOTHER}")
    return mean
