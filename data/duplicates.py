"""Pictures that show the same, at whatever size and quality, told from pictures of one series."""

import numpy as np

CELLS, COARSE = 32, 8  # per side, in which pictures are compared in the end, and at first
# The root of the mean square of what two differ by, in steps from a cell to the next (see `detail`). Other sizes, down
# to a quarter, and JPEGs down to quality 50 differ by 0.10; what moved by a hundredth of the side, by 0.15 and more.
ALIKE = 0.13
ALIKE_ANYWHERE = 20  # of 255, in the cell that differs most: copies 19, drawn faces that look elsewhere 25 and more
FAINT = 4  # a detail below which it is noise that decides
BLOCK = 256  # pictures that are compared with all others at once


def originals(pictures):
    """What each picture is a copy of: the index of an earlier one that is itself no copy, or its own.

    pictures: uint8 arrays (CELLS, CELLS, 3). All are compared with all, at first in COARSE x COARSE means, by a matrix
    product: means never differ by more than what they are of, so nothing is missed.
    """
    total, step = len(pictures), CELLS // COARSE
    cells = np.array(pictures, np.uint8).reshape(total, CELLS, CELLS, 3)
    coarse = cells.reshape(total, COARSE, step, COARSE, step, 3).mean((2, 4), np.float32) - 128
    coarse = coarse.reshape(total, COARSE * COARSE * 3)
    squares = np.square(coarse).sum(1)
    found, is_original = np.arange(total), np.ones(total, bool)
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
                found[index], is_original[index] = candidates[alike][0], False
    return found


def detail(cells):
    """How much a cell differs from the next in each of uint8 (N, CELLS, CELLS, 3): root mean squares (N,)."""
    cells = cells.astype(np.float32)
    return np.sqrt(sum(np.square(np.diff(cells, axis=axis)).mean((1, 2, 3)) for axis in (1, 2)) / 2)
