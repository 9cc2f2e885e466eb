"""Alignment of faces to their position in CelebA-HQ (paper, appendix), by the landmarks of core.wing."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from core.data_loader import test_transform
from core.images.folders import SAVED_SUFFIXES, images_below
from core.images.grid import Grid
from core.images.io import read_rgb, to_uint8, write_image
from core.system import console
from core.system.errors import UserError, reason
from core.system.files import clear_away, real_path, system_errors, with_suffix_added
from core.system.memory import chunks
from core.system.notes import read_arrays
from core.wing import LANDMARKS, SIZE, landmarks_of

WEAK = 0.1  # threshold of a heat map: most maps of a face exceed it; the masks ignore lower values as well
EYE_LEFT, EYE_RIGHT, MOUTH = [*range(60, 68), 96], [*range(68, 76), 97], [76, 82]
SPREAD = [96, 97, 76, 82]  # pupils and corners of the mouth; their distances from the centre give the scale
AT_ONCE = 8  # images per batch of the network
SHEET_CELL, SHEET_COLUMNS, SHEET_MOST = 192, 6, 600
ANOTHER = "Delete it and run python -m data.download wing."


def align_folder(fan, mean_face, root, out_dir, img_size, resize, to_device, sheet=None, override=False):
    """Align the faces in the images below root and save each in out_dir under the same name.

    Returns numbers of images: written, skipped (unreadable or without a face), not read because their output exists.
    mean_face: landmarks (98, 2) in pixels of a 256 x 256 image. sheet: file for a contact sheet. Raises UserError.
    """
    if sheet and Path(sheet).suffix.lower() not in SAVED_SUFFIXES:
        raise UserError(f"--contact_sheet must end with one of {', '.join(SAVED_SUFFIXES)}, got {sheet}.")
    targets = targets_of(root, out_dir)
    for folder in {target.parent for target in targets.values()}:
        clear_away(folder, older_than=3600)
    paths = [path for path, target in targets.items() if override or not target.exists()]
    reference, num_aligned, pairs = mean_face * (img_size / SIZE), 0, []
    for images in _read_batches(paths, img_size, resize):
        faces = find_faces(fan, to_device(torch.stack(list(images.values()))))
        for path, (image, landmarks, is_face) in zip(images, faces, strict=True):
            aligned = align(image, landmarks, reference) if is_face else None
            if aligned is None:
                console.warn(f"No face found in {path}. Alignment continues without this image.")
            else:
                write_image(targets[path], aligned)
                num_aligned += 1
            if sheet and len(pairs) < SHEET_MOST:
                pairs.append([_small(x) for x in (with_landmarks(image, landmarks), aligned) if x is not None])
    if pairs:
        contact_sheet(pairs, sheet)
    return num_aligned, len(paths) - num_aligned, len(targets) - len(paths)


def _read_batches(paths, img_size, resize):
    """Yield {path: image (3, S, S) in [-1, 1]} of at most AT_ONCE images; warn about unreadable images."""
    transform = test_transform(img_size, resize)
    with console.progress(total=len(paths), desc="aligning", unit="img") as bar:
        for batch in chunks(len(paths), AT_ONCE):
            images = {}
            for path in paths[batch]:
                try:
                    images[path] = transform(read_rgb(path, 2 * img_size))
                except UserError as error:
                    console.warn(f"{error} Alignment continues without this image.")
            if images:
                yield images
            bar.update(batch.stop - batch.start)


def targets_of(root, out_dir):
    """Map each image below root to its output file in out_dir; PNG if we do not write its format. Raises UserError."""
    root, out_dir = Path(root), Path(out_dir)
    folder = root.parent if root.is_file() else root
    if real_path(out_dir).is_relative_to(real_path(folder)):
        raise UserError(f"Cannot write to --out_dir {out_dir} (it is inside --inp_dir). Choose another --out_dir.")
    targets = {}
    for path in images_below(root, "inp_dir"):
        name = path.name if path.suffix.lower() in SAVED_SUFFIXES else with_suffix_added(path.name, ".png")
        targets[path] = out_dir / path.relative_to(folder).with_name(name)
    if not targets:
        raise UserError(f"No images found in --inp_dir {root}. Give an image or a folder of images.")
    target, num_images = Counter(targets.values()).most_common(1)[0]
    if num_images > 1:
        raise UserError(f"Cannot write two images of --inp_dir {root} to the same file {target}. Rename one of them.")
    return targets


def find_faces(fan, x):
    """Return (uint8 (S, S, 3), landmarks (98, 2) in pixels, whether it has a face) for each image of x (N, 3, S, S)."""
    maps = fan.get_heatmap(x, b_preprocess=False).float().cpu()  # (N, 98, 64, 64)
    landmarks = landmarks_of(maps).numpy() * (4 * x.shape[2] / SIZE)
    is_face = maps.amax(dim=(2, 3)).median(dim=1).values >= WEAK
    return list(zip(to_uint8(x), landmarks, is_face.tolist(), strict=True))


def align(image, landmarks, reference):
    """Rotate, scale and shift a face in uint8 (S, S, 3), S even, onto the reference; None for degenerate landmarks."""
    size = len(image)
    matrix = similarity(landmarks + size // 2, reference)
    return warp(bordered(image), matrix, size) if is_usable(matrix) else None


def is_usable(matrix):
    """Whether a matrix is finite and its scale is neither close to zero nor extreme."""
    return bool(np.isfinite(matrix).all()) and 0.01 < np.linalg.det(matrix[:2, :2]) < 1e4


def similarity(landmarks, reference):
    """Return the similarity (3, 3), for columns (x, y, 1), that maps landmarks (98, 2) onto the reference."""
    p, r = landmarks.mean(0), reference.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # coinciding points; `is_usable` rejects the result
        scale = (np.linalg.norm(reference[SPREAD] - r, axis=1) / np.linalg.norm(landmarks[SPREAD] - p, axis=1)).mean()
        (cos, sin), (cos_r, sin_r) = _axis(landmarks), _axis(reference)
    turn = scale * np.array([[cos * cos_r + sin * sin_r, sin * cos_r - cos * sin_r],
                             [cos * sin_r - sin * cos_r, cos * cos_r + sin * sin_r]])  # fmt: skip
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, r - turn @ p
    return matrix


def _axis(points):
    """Return a unit vector from the left to the right eye, estimated from eyes and mouth."""
    left, right, mouth = (points[chosen].mean(0) for chosen in (EYE_LEFT, EYE_RIGHT, MOUTH))
    x, y = (left + right) / 2 - mouth
    axis = right - left - np.array([y, -x])
    return axis / np.linalg.norm(axis)


def bordered(image):
    """Pad an image by half its size on every side with its reflection, blurred towards the rim -> uint8 (2S, 2S, 3)."""
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
    """Apply a matrix to the coordinates (x, y, 1) of the pixels, and crop size x size pixels from the top left."""
    # Cubic splines are closest to a Lanczos kernel. Images that shrink are drawn larger, then reduced: no aliasing.
    scale = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    finer = max(1, min(4, int(np.ceil(1 / scale))))
    back = np.linalg.inv(matrix)
    # Map the centre of an output pixel to an index of the input image (row, column).
    turn = back[:2, :2][::-1, ::-1] / finer
    shift = back[:2, 2][::-1] + back[:2, :2][::-1, ::-1] @ np.full(2, 0.5 / finer) - 0.5
    shape, channels = (size * finer, size * finer), np.moveaxis(image.astype(np.float32), 2, 0)
    drawn = [ndimage.affine_transform(x, turn, shift, shape, order=3, mode="nearest") for x in channels]
    drawn = np.stack(drawn, axis=2).clip(0, 255).round().astype(np.uint8)
    return np.asarray(Image.fromarray(drawn).reduce(finer)) if finer > 1 else drawn


def with_landmarks(image, landmarks):
    """Return a copy of an image with its landmarks as dots."""
    picture = Image.fromarray(image)
    draw, radius = ImageDraw.Draw(picture), max(1, len(image) // 170)
    for x, y in landmarks:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="lime")
    return np.asarray(picture)


def _small(image):
    return np.asarray(Image.fromarray(image).resize((SHEET_CELL, SHEET_CELL), Image.Resampling.LANCZOS))


def contact_sheet(pairs, path):
    """Write a grid of pairs: each image and, if it has a face, its aligned version."""
    grid = Grid(math.ceil(len(pairs) / SHEET_COLUMNS), 2 * SHEET_COLUMNS, SHEET_CELL)
    for number, pair in enumerate(pairs):
        row, column = divmod(number, SHEET_COLUMNS)
        grid.put(row, 2 * column, pair)
    grid.save(path)


def read_mean_face(path):
    """Read the landmarks (98, 2) of the mean face from celeba_lm_mean.npz. Raises UserError."""
    if not Path(path).is_file():
        raise UserError(f"Cannot find the mean face {path}. Run python -m data.download wing.")
    try:
        with system_errors(path, "read"):
            mean = read_arrays(path, ["mean"])["mean"]
    except ValueError as error:
        raise UserError(f"Cannot read the mean face {path} ({reason(error)}). {ANOTHER}") from error
    is_plausible = mean.shape == (LANDMARKS, 2) and mean.dtype.kind in "fiu" and (np.abs(mean) < 10 * SIZE).all()
    mean = mean.astype(np.float64) if is_plausible else mean
    if not is_plausible or not is_usable(similarity(mean, mean)):
        raise UserError(f"Cannot use the mean face {path} (it must have {LANDMARKS} distinct points). {ANOTHER}")
    return mean
