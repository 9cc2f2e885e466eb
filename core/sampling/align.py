"""Faces turned, scaled and moved to where CelebA-HQ has them (paper, appendix; the landmarks of core.wing)."""

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from core.data_loader import test_transform
from core.images.folders import SAVED_SUFFIXES, images_below
from core.images.grid import Grid
from core.images.io import read_rgb, to_uint8, write_image
from core.system import console
from core.system.errors import UserError
from core.system.files import system_errors
from core.system.memory import chunks
from core.wing import ANOTHER, LANDMARKS, SIZE, landmarks_of

WEAK = 0.1  # most heat maps of a face exceed it; the masks ignore what is below it, too
EYE_LEFT, EYE_RIGHT, MOUTH = [*range(60, 68), 96], [*range(68, 76), 97], [76, 82]
SPREAD = [96, 97, 76, 82]  # pupils and corners of the mouth, whose distances from the centre give the scale
AT_ONCE = 8  # images through the network
SHEET_CELL, SHEET_COLUMNS, SHEET_MOST = 192, 6, 600


class AlignedFolder(NamedTuple):
    """Numbers of images: written, skipped for lack of a readable face, and not read since their file exists."""

    num_aligned: int
    num_skipped: int
    num_existing: int


def align_folder(fan, mean_face, root, out_dir, img_size, resize, to_device, sheet=None, override=False):
    """Align the faces in the images below root, each saved in out_dir under its own name -> AlignedFolder.

    mean_face: landmarks (98, 2) in pixels of 256. sheet: file for a contact sheet. Raises UserError.
    """
    if sheet and Path(sheet).suffix.lower() not in SAVED_SUFFIXES:
        raise UserError(f"--contact_sheet {sheet} is no name of a picture: end it with .jpg")
    targets = targets_of(root, out_dir)
    paths = [path for path, target in targets.items() if override or not target.exists()]
    reference, num_aligned, pairs = mean_face * (img_size / SIZE), 0, []
    for images in _read_batches(paths, img_size, resize):
        faces = find_faces(fan, to_device(torch.stack(list(images.values()))))
        for path, (image, landmarks, is_face) in zip(images, faces, strict=True):
            aligned = align(image, landmarks, reference) if is_face else None
            if aligned is None:
                console.warn(f"left out: {path} shows no face that can be found")
            else:
                write_image(targets[path], aligned)
                num_aligned += 1
            if sheet and len(pairs) < SHEET_MOST:
                pairs.append([_small(x) for x in (with_landmarks(image, landmarks), aligned) if x is not None])
    if pairs:
        contact_sheet(pairs, sheet)
    num_skipped = len(paths) - num_aligned
    return AlignedFolder(num_aligned, num_skipped, num_existing=len(targets) - len(paths))


def _read_batches(paths, img_size, resize):
    """Yield {path: image (3, S, S) in [-1, 1]} of at most AT_ONCE images; warn about those that cannot be read."""
    transform = test_transform(img_size, resize)
    with console.progress(total=len(paths), desc="aligning", unit="img") as bar:
        for batch in chunks(len(paths), AT_ONCE):
            images = {}
            for path in paths[batch]:
                try:
                    images[path] = transform(read_rgb(path, 2 * img_size))
                except UserError as error:
                    console.warn(f"left out: {error}")
            if images:
                yield images
            bar.update(batch.stop - batch.start)


def targets_of(root, out_dir):
    """{image below root: its file below out_dir}; a PNG where we do not write the image's format. Raises UserError."""
    root, out_dir = Path(root), Path(out_dir)
    folder = root.parent if root.is_file() else root
    if folder.resolve() in (out_dir.resolve(), *out_dir.resolve().parents):
        raise UserError(f"--out_dir {out_dir} lies among the photographs of --inp_dir: choose a folder of its own")
    targets = {}
    for path in images_below(root, "inp_dir"):
        name = path.relative_to(folder)
        targets[path] = out_dir / (name if name.suffix.lower() in SAVED_SUFFIXES else f"{name}.png")
    if not targets:
        raise UserError(f"--inp_dir {root} has no images: give a folder of photographs, or one of them")
    target, num_images = Counter(targets.values()).most_common(1)[0]
    if num_images > 1:
        raise UserError(f"two images of --inp_dir {root} would both become {target}: rename one of them")
    return targets


def find_faces(fan, x):
    """For each image of x (N, 3, S, S): itself in uint8 (S, S, 3), landmarks (98, 2) in its pixels, whether a face."""
    maps = fan.get_heatmap(x, b_preprocess=False).float().cpu()  # (N, 98, 64, 64)
    landmarks = landmarks_of(maps).numpy() * (4 * x.shape[2] / SIZE)
    is_face = maps.amax(dim=(2, 3)).median(dim=1).values >= WEAK
    return list(zip(to_uint8(x), landmarks, is_face.tolist(), strict=True))


def align(image, landmarks, reference):
    """Turn, scale and move a face in uint8 (S, S, 3), S even, onto the reference; None for landmarks of no face."""
    size = len(image)
    matrix = similarity(landmarks + size // 2, reference)
    return warp(bordered(image), matrix, size) if is_usable(matrix) else None


def is_usable(matrix):
    """Whether a matrix neither collapses what it moves nor blows it up beyond measure."""
    return bool(np.isfinite(matrix).all()) and 0.01 < np.linalg.det(matrix[:2, :2]) < 1e4


def similarity(landmarks, reference):
    """The matrix (3, 3), on columns (x, y, 1), that turns, scales and moves landmarks (98, 2) onto the reference."""
    p, r = landmarks.mean(0), reference.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # points that coincide: see `is_usable`
        scale = (np.linalg.norm(reference[SPREAD] - r, axis=1) / np.linalg.norm(landmarks[SPREAD] - p, axis=1)).mean()
        (cos, sin), (cos_r, sin_r) = _axis(landmarks), _axis(reference)
    turn = scale * np.array([[cos * cos_r + sin * sin_r, sin * cos_r - cos * sin_r],
                             [cos * sin_r - sin * cos_r, cos * cos_r + sin * sin_r]])  # fmt: skip
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, r - turn @ p
    return matrix


def _axis(points):
    """The direction from the left eye to the right one, estimated from eyes and mouth: a unit vector."""
    left, right, mouth = (points[chosen].mean(0) for chosen in (EYE_LEFT, EYE_RIGHT, MOUTH))
    x, y = (left + right) / 2 - mouth
    axis = right - left - np.array([y, -x])
    return axis / np.linalg.norm(axis)


def bordered(image):
    """Pad an image by half its size on every side: reflected, more blurred farther out -> uint8 (2S, 2S, 3)."""
    size = len(image)
    padded = np.pad(image, [(size // 2, size // 2)] * 2 + [(0, 0)], mode="reflect")
    half = np.asarray(Image.fromarray(padded).resize((size, size), Image.Resampling.BOX))
    half = ndimage.gaussian_filter(half, (size // 100, size // 100, 0), mode="nearest")
    blurred = np.asarray(Image.fromarray(half).resize((2 * size, 2 * size), Image.Resampling.BILINEAR))
    pixels = np.arange(2 * size)
    near = np.minimum(1, np.minimum(pixels, pixels[::-1]) / (size / 2))
    weight = np.minimum(near[:, None], near)[..., None] ** 4
    return (padded * weight + blurred * (1 - weight)).round().astype(np.uint8)


def warp(image, matrix, size):
    """Apply a matrix to the pixels' (x, y, 1), and crop size x size from the top left."""
    # Cubic splines come closest to a Lanczos kernel. An image that shrinks is drawn larger and reduced.
    scale = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    finer = max(1, min(4, int(np.ceil(1 / scale))))
    back = np.linalg.inv(matrix)
    # From the centre of a pixel of the result to an index of the image, rows first.
    turn = back[:2, :2][::-1, ::-1] / finer
    shift = back[:2, 2][::-1] + back[:2, :2][::-1, ::-1] @ np.full(2, 0.5 / finer) - 0.5
    shape, channels = (size * finer, size * finer), np.moveaxis(image.astype(np.float32), 2, 0)
    drawn = [ndimage.affine_transform(x, turn, shift, shape, order=3, mode="nearest") for x in channels]
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
    return np.asarray(Image.fromarray(image).resize((SHEET_CELL, SHEET_CELL), Image.Resampling.LANCZOS))


def contact_sheet(pairs, path):
    """Write a grid of pairs: an image and, if it has a face, its aligned version."""
    grid = Grid(math.ceil(len(pairs) / SHEET_COLUMNS), 2 * SHEET_COLUMNS, SHEET_CELL)
    for number, pair in enumerate(pairs):
        row, column = divmod(number, SHEET_COLUMNS)
        grid.put(row, 2 * column, pair)
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
