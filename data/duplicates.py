"""Find copies of an image in any size and quality, but not other images of the same series."""

import numpy as np

CELLS, COARSE = 32, 8  # cells per side in the final and in the first comparison
# Root mean square difference of two images, in units of `detail`. Copies down to a quarter of the size and JPEGs down
# to quality 50 differ by 0.10. Images shifted by 1 % of the side differ by 0.15 or more.
ALIKE = 0.13
ALIKE_ANYWHERE = 20  # of 255, in the cell that differs most; copies: 19, drawn faces with another gaze: 25 or more
FAINT = 4  # minimum detail; below it, noise would decide
BLOCK = 256  # images compared with all others at once


def originals(images):
    """Return for each image the index of its original: an earlier image that is no copy, or its own index.

    images: uint8 arrays (CELLS, CELLS, 3). A matrix product first compares COARSE x COARSE means of all pairs. Means
    never differ by more than their cells, so this step misses no copy.
    """
    total, step = len(images), CELLS // COARSE
    cells = np.array(images, np.uint8).reshape(total, CELLS, CELLS, 3)
    coarse = cells.reshape(total, COARSE, step, COARSE, step, 3).mean((2, 4), np.float32) - 128
    coarse = coarse.reshape(total, COARSE * COARSE * 3)
    squares = np.square(coarse).sum(1)
    original_of, is_original = np.arange(total), np.ones(total, bool)
    for start in range(0, total, BLOCK):
        block = slice(start, min(start + BLOCK, total))
        limits = ALIKE * np.maximum(detail(cells[block]), FAINT)
        apart = squares[block, None] + squares[: block.stop] - 2 * coarse[block] @ coarse[: block.stop].T
        near = apart <= coarse.shape[1] * np.square(limits)[:, None]
        for index, limit, row in zip(range(start, block.stop), limits, near, strict=True):
            candidates = np.flatnonzero(row[:index] & is_original[:index])
            difference = cells[candidates].astype(np.float32) - cells[index]
            alike = np.square(difference).mean((1, 2, 3)) <= limit**2
            alike &= np.abs(difference).max((1, 2, 3)) <= ALIKE_ANYWHERE
            if alike.any():
                original_of[index], is_original[index] = candidates[alike][0], False
    return original_of


def detail(cells):
    """Return the root mean square difference (N,) of neighbouring cells in images, uint8 (N, CELLS, CELLS, 3)."""
    cells = cells.astype(np.float32)
    return np.sqrt(sum(np.square(np.diff(cells, axis=axis)).mean((1, 2, 3)) for axis in (1, 2)) / 2)
