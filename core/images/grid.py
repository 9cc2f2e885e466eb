"""Grids: images side by side in one picture, with titles."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.images.io import FINE
from core.system.files import atomic_write

JPEG_MAX_SIDE = 65_500  # what libjpeg can write


FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf", "arial.ttf")


class Grid:
    """A picture of rows x columns equal cells without padding, white where nothing is put.

    row_titles, column_titles: empty, or a text for each row (left of it; lines by newline) or column (above it).
    """

    def __init__(self, rows, columns, size, row_titles=(), column_titles=()):
        self.size, self.font = size, _font(max(10, size // 12), "".join((*row_titles, *column_titles)))
        gap = self.font.size // 2
        width = max((self.font.getlength(line) for title in row_titles for line in title.split("\n")), default=0)
        self.left = min(math.ceil(width), 2 * size) + 2 * gap if row_titles else 0
        self.top = 2 * self.font.size if column_titles else 0
        self.canvas = Image.new("RGB", (self.left + columns * size, self.top + rows * size), "white")
        draw = ImageDraw.Draw(self.canvas)
        for row, title in enumerate(row_titles):
            text = "\n".join(self._shortened(line, self.left - 2 * gap) for line in title.split("\n"))
            place = (self.left - gap, self.top + (row + 0.5) * size)
            draw.multiline_text(place, text, "black", self.font, anchor="rm", align="right")
        for column, title in enumerate(column_titles):
            place = (self.left + (column + 0.5) * size, self.top / 2)
            draw.text(place, self._shortened(title, size - gap), "black", self.font, anchor="mm")

    def put(self, row, column, images):
        """Place uint8 images (N, size, size, 3) side by side, the first at (row, column)."""
        strip = Image.fromarray(np.concatenate(list(images), axis=1))  # (size, N * size, 3)
        self.canvas.paste(strip, (self.left + column * self.size, self.top + row * self.size))

    def save(self, path):
        """Write a JPEG (or what the suffix says) under its final name once it is whole. Raises UserError."""
        with atomic_write(path) as temporary:
            self.canvas.save(temporary, **FINE)

    def save_small(self, path, columns, cell):
        """Write a smaller version, for pages: the first columns, cells of at most so many pixels. Raises UserError.

        A picture no wider than that is shown as it is, so there is no such file afterwards.
        """
        if self.canvas.width <= columns * cell:
            Path(path).unlink(missing_ok=True)
            return
        scale = min(1, cell / self.size)
        width = min(self.canvas.width, self.left + columns * self.size)
        size = round(width * scale), max(1, round(self.canvas.height * scale))
        small = self.canvas.resize(size, Image.Resampling.BOX, (0, 0, width, self.canvas.height))
        with atomic_write(path) as temporary:
            small.save(temporary, quality=90)

    def _shortened(self, text, width):
        """The text, or as much of its two ends as fits into so many pixels."""
        short, kept = text, len(text)
        while kept and self.font.getlength(short) > width:
            kept -= 1
            short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        return short


def _font(size, text):
    """Pillow's own font, which looks the same everywhere; for other letters than ASCII the system's."""
    for name in () if text.isascii() else FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue  # not on this system
    return ImageFont.load_default(size)
