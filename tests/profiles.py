"""Colour profiles (ICC) with known colours, written byte by byte."""

import io
import struct

import numpy as np
from PIL import Image, ImageCms

KEYS = b"rXYZ", b"gXYZ", b"bXYZ"
WHITE = (0.9642, 1, 0.8249)
PRIMARIES = {  # XYZ of red, green and blue under WHITE
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    "ProPhoto": ((0.7977, 0.2880, 0), (0.1352, 0.7119, 0), (0.0313, 0.0001, 0.8249)),
}


def _fixed(*values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _curve(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _profile(space, kind, connection, tags):
    white = b"XYZ \0\0\0\0" + _fixed(*WHITE)
    tags = [(b"cprt", b"text\0\0\0\0none\0\0\0\0"), (b"wtpt", white), *tags]
    table, data, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, value in tags:
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value + b"\0" * (-len(value) % 4)
    head = b"\0\0\0\0\x02\x10\0\0" + kind + space + connection + struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp"
    head += b"\0" * 28 + _fixed(*WHITE) + b"\0" * 48
    return struct.pack(">I", 132 + len(table) - 4 + len(data)) + head + table + data


def rgb_profile(name):
    tags = [(key, b"XYZ \0\0\0\0" + _fixed(*xyz)) for key, xyz in zip(KEYS, PRIMARIES[name], strict=True)]
    return _profile(b"RGB ", b"mntr", b"XYZ ", tags + [(key, _curve(2.2)) for key in (b"rTRC", b"gTRC", b"bTRC")])


def grey_profile(gamma):
    return _profile(b"GRAY", b"mntr", b"XYZ ", [(b"kTRC", _curve(gamma))])


def cmyk_profile():
    """A printer whose ink makes colour only by black: (C, M, Y, K) -> L* = 100 (1 - K), whatever the other inks are."""
    inputs = np.tile(np.linspace(0, 255, 256).astype(np.uint8), 4).tobytes()
    corners = np.zeros((2, 2, 2, 2, 3), np.uint8)
    corners[..., 0] = (255, 0)  # L* without and with black
    corners[..., 1:] = 128  # a* = b* = 0
    outputs = np.tile(np.arange(256, dtype=np.uint8), 3).tobytes()
    table = (
        b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + inputs + corners.tobytes() + outputs
    )
    return _profile(b"CMYK", b"prtr", b"Lab ", [(b"A2B0", table)])


def encoded(image, icc):
    """An sRGB image as the profile stores it: what a camera with this colour space would write."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), profile, renderingIntent=1)


def patches():
    """16 colours as an RGB image of 64 x 64."""
    values = np.random.default_rng(0).integers(50, 205, (4, 4, 3), np.uint8)
    return Image.fromarray(values.repeat(16, 0).repeat(16, 1))
