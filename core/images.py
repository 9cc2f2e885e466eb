"""Images between files and tensors: RGB floats in [-1, 1] here, 8 bit there."""

import math
import struct
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from core.errors import UserError
from core.files import replacing
from core.folders import HEIF

JPEG_MAX_SIDE = 65_500  # what libjpeg can write
FINE = {"quality": 95, "subsampling": 0}  # of JPEGs; other formats have no use for it
FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf", "arial.ttf")
READ_ERRORS = (  # what Pillow raises over bytes that are no image, cut short, or far too many
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, RuntimeError, MemoryError, struct.error,
)  # fmt: skip


def read_rgb(path, least_side=None):
    """Read an image file upright, as an RGB PIL image. Raises UserError where it cannot be read.

    What is transparent becomes white; 16-bit and floating-point greys are scaled, not clipped, to 8 bit.
    least_side: a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as both sides
    keep at least this; of a 1024 px picture for 256 px that changes pixels by 0.3 / 255 and takes half the time.
    """
    with _opened(path) as image:
        if least_side is not None:
            _draft(image, least_side)
        return _rgb(ImageOps.exif_transpose(image), image.format)


def glance(path):
    """A small RGB version of an image file, all of whose bytes were read, and its width and height.

    Raises UserError where it cannot be read.
    """
    with _opened(path) as image:
        size = image.size
        _draft(image, 32)
        return _rgb(image, image.format).resize((32, 32), Image.Resampling.NEAREST), *size


def _draft(image, least_side):
    if isinstance(image, JpegImageFile):  # others would give a thumbnail that was made elsewhere, maybe of less quality
        image.draft("RGB", (least_side, least_side))


@contextmanager
def _opened(path):
    """An image file; what goes wrong with it, within the context too, becomes a UserError."""
    if Path(path).suffix.lower() in HEIF and "HEIF" not in Image.OPEN:
        with suppress(ImportError):  # optional
            from pillow_heif import register_heif_opener

            register_heif_opener()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of panoramas (twice as much is an error), and of damaged metadata
            with Image.open(path) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} cannot be read as an image of so many pixels: make it smaller ({error})") from error
    except READ_ERRORS as error:
        raise UserError(f"{path} cannot be read as an image ({error}): replace or remove it") from error


def _rgb(image, file_format):
    if image.mode[0] in "IF":  # more than 8 bit; Pillow would cut off what is above 255
        array = np.nan_to_num(np.asarray(image, np.float32))
        sixteen_bit = image.mode.startswith("I;16") or file_format in ("PNG", "PPM")
        scales = (65535,) if sixteen_bit else (1, 255, 65535) if image.mode == "F" else (255, 65535)
        most = next((scale for scale in scales if array.max() <= scale), array.max())
        return Image.fromarray((array * (255 / most)).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def squared(image, size, resize="stretch", resample=Image.Resampling.BILINEAR):
    """A PIL image as size x size: "stretch" does not keep its shape; "crop" cuts the longer side to the
    middle; "pad" fits all of it in and leaves white beside it. resample: Pillow's filter."""
    if resize == "crop":
        return ImageOps.fit(image, (size, size), resample)
    if resize == "pad":
        return ImageOps.pad(image, (size, size), resample, color="white")
    return image.resize((size, size), resample)


def to_uint8(x):
    """Images (N, 3, H, W) in [-1, 1], clamped -> uint8 array (N, H, W, 3), rounded half up."""
    x = ((x.detach().float() + 1) / 2).clamp(0, 1).mul(255).add(0.5).byte()
    return x.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def write_image(path, image):
    """Write a uint8 image (H, W, 3) in the format of the suffix, under its final name once it is whole."""
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, **FINE)


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
        with replacing(path) as temporary:
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
        with replacing(path) as temporary:
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
