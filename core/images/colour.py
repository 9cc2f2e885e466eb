"""Colour profiles (ICC): convert images to sRGB, as viewers do."""

from functools import lru_cache
from io import BytesIO
from itertools import product

import numpy as np
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile -> mode of its images
ROUNDING = 2  # of 255; profiles that change no colour by more are sRGB, and their images stay as they are
CACHED = 32  # transforms


def fits(image):
    """Whether an image has no profile, or one that is undamaged and of the image's kind (RGB, grey or CMYK)."""
    icc = image.info.get("icc_profile")
    return not icc or _transform(icc, _kind(image))[0] is not None


def to_srgb(image, icc):
    """Return an image without transparency as RGB in sRGB. icc: bytes of its profile; a damaged one changes nothing."""
    mode, transform = _transform(icc, _kind(image)) if icc else (None, None)
    if transform is None:
        return image.convert("RGB")
    return ImageCms.applyTransform(image if image.mode == mode else image.convert(mode), transform)


def _kind(image):
    """Return the mode whose profiles suit an image: "RGB", "L" or "CMYK"."""
    is_grey = image.mode[0] in "1IF" or image.mode in ("L", "LA", "La")
    return "L" if is_grey else "CMYK" if image.mode == "CMYK" else "RGB"


@lru_cache(CACHED)
def _transform(icc, kind):
    """Return (mode of the input, transform to sRGB), without a transform for sRGB. (None, None): the profile is bad."""
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        mode = MODES.get(profile.profile.xcolor_space.strip())
        if mode not in (kind, "RGB" if kind == "L" else None):  # Grey images may keep the profile of their RGB version.
            return None, None
        # LittleCMS computes dark greys inexactly if it optimizes; for RGB it would take ten times as long without.
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
        transform = ImageCms.buildTransform(profile, SRGB, mode, "RGB", ImageCms.Intent.PERCEPTUAL, flags)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None, None
    return mode, None if _changes_nothing(transform, mode) else transform


def _changes_nothing(transform, mode):
    """Whether a transform to sRGB is the identity, apart from rounding."""
    if mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    colours = np.array(list(product(levels, repeat=len(mode))), np.uint8)  # (18 or 5832, channels)
    probe = Image.fromarray(colours[None] if mode == "RGB" else colours.T)
    found = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
    return np.abs(found - np.asarray(probe.convert("RGB"))).max() <= ROUNDING
