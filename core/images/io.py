"""Read and write images: 8-bit files, and tensors of RGB values in [-1, 1]."""

import struct
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from core.images.folders import HEIF
from core.system.errors import UserError, reason
from core.system.files import atomic_write

JPEG_OPTIONS = {"quality": 95, "subsampling": 0}  # other formats ignore them
READ_ERRORS = (  # raised by Pillow for files that are no image, truncated or too large
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, RuntimeError, MemoryError, struct.error,
)  # fmt: skip


def read_rgb(path, least_side=None):
    """Read an image file as an upright RGB PIL image. Raises UserError.

    Transparent pixels become white; 16-bit and floating-point grey values are scaled, not clipped, to 8 bit.
    least_side: decode a JPEG at 1/2, 1/4 or 1/8 of its size if its sides remain at least this long. From 1024 px to
    256 px this takes half the time and changes pixels by 0.3 / 255.
    """
    with _opened(path) as image:
        if least_side is not None:
            _draft(image, least_side)
        return _rgb(ImageOps.exif_transpose(image), image.format)


def glance(path):
    """Decode an image file completely -> (version of 32 x 32 pixels, width, height). Raises UserError."""
    with _opened(path) as image:
        size = image.size
        _draft(image, 32)
        return _rgb(image, image.format).resize((32, 32), Image.Resampling.NEAREST), *size


def image_size(path):
    """Return (width, height) as stored in an image file, without decoding it. Raises UserError."""
    with _opened(path) as image:
        return image.size


def _draft(image, least_side):
    if isinstance(image, JpegImageFile):  # other formats may return an embedded thumbnail of lower quality
        image.draft("RGB", (least_side, least_side))


@contextmanager
def _opened(path):
    """Open an image file. Errors of Pillow within the context become UserErrors."""
    if Path(path).suffix.lower() in HEIF and "HEIF" not in Image.OPEN:
        with suppress(ImportError):  # optional
            from pillow_heif import register_heif_opener

            register_heif_opener()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large images (an error from twice the limit), damaged metadata
            with Image.open(path) as image:
                yield image
    except Image.DecompressionBombError as error:
        size = reason(error).partition(",")[0]  # without Pillow's remark on denial-of-service attacks
        raise UserError(f"Cannot read {path} as an image: {size}. Make it smaller.") from error
    except READ_ERRORS as error:
        raise UserError(f"Cannot read {path} as an image ({reason(error)}). Replace or remove it.") from error


def _rgb(image, file_format):
    if image.mode[0] in "IF":  # more than 8 bit per value; Pillow would clip values above 255
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
    """Resize a PIL image to size x size. "stretch" changes its shape, "crop" cuts the longer side, "pad" adds white."""
    if resize == "crop":
        return ImageOps.fit(image, (size, size), resample)
    if resize == "pad":
        return ImageOps.pad(image, (size, size), resample, color="white")
    return image.resize((size, size), resample)


def to_uint8(x):
    """Convert images (N, 3, H, W) in [-1, 1], clamped -> uint8 array (N, H, W, 3), rounded half up."""
    x = ((x.detach().float() + 1) / 2).clamp(0, 1).mul(255).add(0.5).byte()
    return x.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def write_image(path, image):
    """Write a uint8 image (H, W, 3) in the format of the suffix, atomically. Raises UserError."""
    with atomic_write(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, **JPEG_OPTIONS)
