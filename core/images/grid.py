"""Grids of images, with titles."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from core.images.fonts import composed, font_for, missing, spelled
from core.images.io import LONGEST_SIDE, SAVE_OPTIONS
from core.system.files import atomic_write

JPEG_MAX_SIDE = LONGEST_SIDE[".jpg"]


class Grid:
    """An image of rows x columns cells of size x size pixels, with row titles on the left and column titles on top.

    missing: set of the titles' characters that no font has. The grid shows a similar character or a code for each.
    """

    def __init__(self, rows, columns, size, row_titles=(), column_titles=()):
        text = "".join((*row_titles, *column_titles)).replace("\n", "")
        self.size, self.font = size, font_for(max(10, size // 12), text)
        self.missing = missing(self.font, composed(text))
        rows_of_lines = [[spelled(self.font, line) for line in title.split("\n")] for title in row_titles]
        gap = self.font.size // 2
        width = max((self.font.getlength(line) for lines in rows_of_lines for line in lines), default=0)
        self.left = min(math.ceil(width), 2 * size) + 2 * gap if row_titles else 0
        self.top = 2 * self.font.size if column_titles else 0
        self.canvas = Image.new("RGB", (self.left + columns * size, self.top + rows * size), "white")
        draw = ImageDraw.Draw(self.canvas)
        for row, lines in enumerate(rows_of_lines):
            text = "\n".join(self._shortened(line, self.left - 2 * gap) for line in lines)
            position = (self.left - gap, self.top + (row + 0.5) * size)
            draw.multiline_text(position, text, "black", self.font, anchor="rm", align="right")
        for column, title in enumerate(column_titles):
            position = (self.left + (column + 0.5) * size, self.top / 2)
            draw.text(position, self._shortened(spelled(self.font, title), size - gap), "black", self.font, anchor="mm")

    def put(self, row, column, images):
        """Place uint8 images (N, size, size, 3) side by side, the first at (row, column)."""
        strip = Image.fromarray(np.concatenate(list(images), axis=1))  # (size, N * size, 3)
        self.canvas.paste(strip, (self.left + column * self.size, self.top + row * self.size))

    def save(self, path):
        """Write the grid in the format of the suffix, atomically. Raises UserError."""
        with atomic_write(path) as temporary:
            self.canvas.save(temporary, **SAVE_OPTIONS)

    def save_small(self, path, columns, cell):
        """Write a small version for pages: the first columns, with cells of at most `cell` pixels. Raises UserError."""
        if self.canvas.width <= columns * cell:  # small enough already
            Path(path).unlink(missing_ok=True)
            return
        scale = min(1, cell / self.size)
        width = min(self.canvas.width, self.left + columns * self.size)
        size = round(width * scale), max(1, round(self.canvas.height * scale))
        small = self.canvas.resize(size, Image.Resampling.BOX, (0, 0, width, self.canvas.height))
        with atomic_write(path) as temporary:
            small.save(temporary, quality=90)

    def _shortened(self, text, width):
        """Shorten a text in its middle until it fits into `width` pixels."""
        short, length = text, len(text)
        while length and self.font.getlength(short) > width:
            length -= 1
            short = f"{text[: (length + 1) // 2]}…{text[len(text) - length // 2 :]}"
        return short
