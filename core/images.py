"""Images between files and tensors: RGB floats in [-1, 1] here, 8 bit there."""

import struct

import numpy as np
from PIL import Image, ImageOps

from core.errors import UserError
from core.files import replacing

JPEG_MAX_SIDE = 65_500  # what libjpeg can write
READ_ERRORS = (  # what Pillow raises over bytes that are no image, cut short, or far too many
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


def read_rgb(path, least_side=None):
    """Read an image file upright, as an RGB PIL image. Raises UserError where it cannot be read.

    least_side: a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as both sides
    keep at least this; of a 1024 px picture for 256 px that changes pixels by 0.3 / 255 and takes half the time.
    """
    try:
        with Image.open(path) as image:
            if least_side is not None:
                image.draft("RGB", (least_side, least_side))
            return ImageOps.exif_transpose(image).convert("RGB")
    except READ_ERRORS as error:
        raise UserError(f"{path} cannot be read as an image ({error}): replace or remove it") from error


def to_uint8(x):
    """Images (N, 3, H, W) in [-1, 1], clamped -> uint8 array (N, H, W, 3), rounded half up."""
    x = ((x.detach().float() + 1) / 2).clamp(0, 1).mul(255).add(0.5).byte()
    return x.permute(0, 2, 3, 1).contiguous().cpu().numpy()


class Grid:
    """A picture of rows x columns equal cells without padding, white where nothing is put."""

    def __init__(self, rows, columns, size):
        self.size = size
        self.canvas = Image.new("RGB", (columns * size, rows * size), "white")

    def put(self, row, column, images):
        """Place uint8 images (N, size, size, 3) side by side, the first at (row, column)."""
        strip = Image.fromarray(np.concatenate(list(images), axis=1))  # (size, N * size, 3)
        self.canvas.paste(strip, (column * self.size, row * self.size))

    def save(self, path):
        """Write a JPEG (or what the suffix says) under its final name once it is whole."""
        with replacing(path) as temporary:
            self.canvas.save(temporary, quality=95, subsampling=0)
