"""Read and write images: 8-bit files, and tensors of RGB values in [-1, 1]."""

import stat
import struct
import warnings
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from core.images import colour
from core.images.folders import HEIF, SUFFIXES
from core.system import console
from core.system.errors import UserError, reason
from core.system.files import atomic_write

# The only formats that are opened, whatever a file's name: other readers of Pillow may start programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM", "JPEG2000", "HEIF", "TGA")
MOST_PIXELS = 2**28  # of an image: photographs of 200 megapixels, but no file that would fill the memory
MOST_TEXT = 2**26  # bytes of the texts in a PNG file, which are not used
DAMAGED_PROFILE, ALPHA = "damaged_profile", "alpha"  # entries of an image's info
SAVE_OPTIONS = {"quality": 95, "subsampling": 0}  # of JPEG; WebP also has the quality, others ignore both
LONGEST_SIDE = {".webp": 16_383, ".jpg": 65_500}  # pixels; the limits of libwebp and libjpeg
READ_ERRORS = (  # raised by Pillow for files that are no image, truncated or too large
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, RuntimeError, MemoryError, struct.error,
)  # fmt: skip
# Pillow has these limits only as globals. It refuses images of more than twice the first.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MOST_TEXT


def read_rgb(path, least_side=None):
    """Read an image file as an upright RGB PIL image in sRGB, without metadata. Raises UserError.

    Transparent pixels become white; the info of the image keeps its transparency as ALPHA, a PIL image. 16-bit and
    floating-point grey values are scaled, not clipped, to 8 bit. least_side: decode a JPEG at 1/2, 1/4 or 1/8 of
    its size if its sides remain at least this long. From 1024 px to 256 px this takes half the time and changes pixels
    by 0.3 / 255.
    """
    image, _ = read_with_size(path, least_side)
    if DAMAGED_PROFILE in image.info:
        effect = "Colours of images with such profiles are read as sRGB."
        console.warn_once(DAMAGED_PROFILE, f"Ignoring the damaged colour profile of {path}. {effect}")
    return image


def read_with_size(path, least_side=None):
    """Read an image like `read_rgb` -> (image, (width, height) of the complete upright image). Raises UserError.

    No warning, but an entry DAMAGED_PROFILE in the image's info, if its colour profile cannot be used.
    """
    with opened(path) as image:
        width, height = image.size
        if least_side is not None and isinstance(image, JpegImageFile):  # others may return an embedded thumbnail
            image.draft("RGB", (least_side, least_side))
        decoded_size = image.size
        ImageOps.exif_transpose(image, in_place=True)
        size = (width, height) if image.size == decoded_size else (height, width)
        has_good_profile, rgb = colour.fits(image), _rgb(image, image.format)
    if not has_good_profile:
        rgb.info[DAMAGED_PROFILE] = True
    return rgb, size


def as_rgb(image):
    """Convert a PIL image, like a file in `read_rgb`, to an upright RGB image in sRGB."""
    upright = ImageOps.exif_transpose(image)
    return _rgb(upright, image.format)


def image_size(path):
    """Return (width, height) as stored in an image file, without decoding it. Raises UserError."""
    with opened(path) as image:
        return image.size


class Upload(BytesIO):
    """The content of an image file with its name, for readers instead of a path."""

    def __init__(self, name, content):
        super().__init__(content)
        self.name = name

    def __repr__(self):
        return self.name


@contextmanager
def opened(path, kind=UserError):
    """Open an image file or an Upload. Errors of Pillow within the context become errors of the class `kind`."""
    try:
        is_file = isinstance(path, Upload) or stat.S_ISREG(Path(path).stat().st_mode)
        if not is_file:  # Opening a pipe would wait for ever.
            raise kind(f"Cannot read {path} as an image (it is not a regular file). Replace or remove it.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large images (an error from twice Pillow's limit), damaged metadata
            with Image.open(path, formats=_formats()) as image:
                yield image
    except Image.DecompressionBombError as error:
        size = reason(error).partition(",")[0]  # without Pillow's remark on denial-of-service attacks
        raise kind(f"Cannot read {path} as an image: {size}. Make it smaller.") from error
    except READ_ERRORS as error:
        raise kind(f"Cannot read {path} as an image ({reason(error)}). Replace or remove it.") from error


def _formats():
    """Return the names of the formats to read, as far as this Pillow reads them."""
    if HEIF[0] in SUFFIXES and "HEIF" not in Image.OPEN:
        with suppress(ImportError):  # optional
            from pillow_heif import register_heif_opener

            register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _rgb(image, file_format):
    icc = image.info.get("icc_profile")
    if image.mode[0] in "IF":
        image = _eight_bit(image, file_format)
    if not image.has_transparency_data:
        rgb = colour.to_srgb(image, icc)
        rgb.info = {}
        return rgb
    rgba = image.convert("RGBA")
    colours = rgba.getchannel("R") if image.mode in ("L", "LA") else rgba.convert("RGB")
    opaque = colour.to_srgb(colours, icc)
    alpha = rgba.getchannel("A")
    opaque.putalpha(alpha)
    rgb = Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque).convert("RGB")
    rgb.info = {ALPHA: alpha}
    return rgb


def _eight_bit(image, file_format):
    """Scale an image of more than 8 bit per value, which Pillow would clip at 255, to mode L."""
    array = np.array(image, np.float32)
    np.nan_to_num(array, copy=False)
    sixteen_bit = image.mode.startswith("I;16") or file_format in ("PNG", "PPM")
    scales = (65535,) if sixteen_bit else (1, 255, 65535) if image.mode == "F" else (255, 65535)
    most = next((scale for scale in scales if array.max() <= scale), array.max())
    array *= 255 / most
    return Image.fromarray(array.clip(0, 255, out=array).round(out=array).astype(np.uint8))


def squared(image, size, resize="stretch", resample=Image.Resampling.BILINEAR):
    """Resize a PIL image to size x size. "stretch" changes its shape, "crop" cuts the longer side, "pad" adds white."""
    if resize == "crop":
        return ImageOps.fit(image, (size, size), resample)
    if resize == "pad":
        left, top, right, bottom = padded_box(image.size, size)
        square = Image.new("RGB", (size, size), "white")
        square.paste(image.resize((right - left, bottom - top), resample), (left, top))
        return square
    return image.resize((size, size), resample)


def padded_box(image_size, size):
    """Return (left, top, right, bottom) of an image that `squared` pads to size x size."""
    longer = max(image_size)  # ImageOps.pad fails, or adds nothing but white, where a side is rounded to 0
    width, height = (max(1, round(side / longer * size)) for side in image_size)
    left, top = round((size - width) / 2), round((size - height) / 2)
    return left, top, left + width, top + height


def to_uint8(x):
    """Convert images (N, 3, H, W) in [-1, 1], clamped -> uint8 array (N, H, W, 3), rounded half up."""
    x = ((x.detach().float() + 1) / 2).clamp(0, 1).mul(255).add(0.5).byte()
    return x.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def write_image(path, image):
    """Write a uint8 image (H, W, 3), or (H, W, 4) with transparency, in the format of the suffix, atomically. JPEG
    drops the transparency. Raises UserError."""
    array, longest = np.ascontiguousarray(image), LONGEST_SIDE.get(Path(path).suffix)
    if longest and max(array.shape[:2]) > longest:
        raise UserError(f"Cannot write {path} (in this format, sides have at most {longest:,} pixels). Use PNG.")
    with atomic_write(path) as temporary:
        Image.fromarray(array[..., :3] if Path(path).suffix == ".jpg" else array).save(temporary, **SAVE_OPTIONS)
