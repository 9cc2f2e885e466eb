"""Draw faces of bears, cats and dogs (the domains) with a style (colours, pattern) and a content (position, gaze).

Face coordinates: the origin is the centre, x points right, y points down, and a head is about two units wide.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

DOMAINS = ("bear", "cat", "dog")
PATTERNS = ("plain", "stripes", "patch", "blaze")
OVERSAMPLING = 4

FURS = ("f4dfc0", "eeb04c", "e07a3f", "9a5b34", "5a4038", "8f98a3", "4a5468", "e58ca0", "7fb8d8", "86c39a", "a78bc9")
EYES = ("3f9b57", "d99a1c", "3d7fc4", "7b4a22", "8a4fb0")
BACKGROUNDS = ("cfe6f5", "fbe3c8", "dcefd0", "e8dcf4", "fdf0b8", "f9d5d7", "c8ecea", "d9dde6")
INK, WHITE, PINK = (0.16, 0.12, 0.14), (1.0, 1.0, 1.0), (0.95, 0.6, 0.62)


@dataclass(frozen=True)
class Face:
    """The factors of an image. Colours are (red, green, blue) in [0, 1]."""

    domain: str
    x: float  # centre, 0 (left edge) to 1
    y: float  # centre, 0 (top edge) to 1
    size: float  # half the width of the head, as a fraction of the side of the image
    tilt: float  # radians, clockwise
    gaze: tuple  # direction of the eyes: right and down, each in [-1, 1]
    fur: tuple
    mark: tuple  # colour of the pattern
    pattern: str
    eyes: tuple
    background: tuple


def random_face(domain, generator):
    """Return a random Face of one of DOMAINS. generator: a numpy Generator."""
    x, y = generator.uniform((0.4, 0.44), (0.6, 0.6))
    size = generator.uniform(0.23, 0.29)
    tilt = generator.uniform(-0.45, 0.45)
    gaze = tuple(generator.uniform(-1, 1, 2).tolist())
    fur = _between(FURS, generator)
    towards = WHITE if sum(fur) < 1.5 else (0.3, 0.17, 0.12)
    mark = mix(fur, towards, generator.uniform(0.45, 0.65))
    pattern = PATTERNS[generator.integers(len(PATTERNS))]
    eyes, background = _between(EYES, generator), _between(BACKGROUNDS, generator)
    return Face(domain, x, y, size, tilt, gaze, fur, mark, pattern, eyes, background)


def mix(colour, other, weight):
    """Interpolate two colours. weight: weight of the other colour, from 0 to 1."""
    return tuple((1 - weight) * a + weight * b for a, b in zip(colour, other, strict=True))


def _between(palette, generator):
    """Return a random colour between two colours of a palette, usually near one of them."""
    codes = [bytes.fromhex(palette[i]) for i in generator.choice(len(palette), 2, replace=False)]
    first, second = ([channel / 255 for channel in code] for code in codes)
    return mix(first, second, generator.beta(0.4, 0.8))


def draw(face, size):
    """Draw a Face and return an RGB image (size x size)."""
    side = size * OVERSAMPLING
    canvas = Canvas(face, side)
    {"bear": _bear, "cat": _cat, "dog": _dog}[face.domain](canvas, face)
    return canvas.image.resize((size, size), Image.Resampling.BOX)


class Canvas:
    """An image of side x side pixels. Polygons use face coordinates, colours are as in Face."""

    def __init__(self, face, side):
        self.image = Image.new("RGB", (side, side), _rgb(face.background))
        cos, sin = math.cos(face.tilt), math.sin(face.tilt)
        self.unit, self.centre = face.size * side, side * np.array([face.x, face.y])  # pixels
        self.turn = self.unit * np.array([[cos, sin], [-sin, cos]])
        self.edge = mix(face.fur, INK, 0.55)  # outline colour

    def fill(self, points, colour, outline=None, within=None):
        """Fill a polygon of points (N, 2). outline: a colour. within: a clipping polygon."""
        if within is None:
            ImageDraw.Draw(self.image).polygon(self._place(points), _rgb(colour))
        else:
            self.image.paste(_rgb(colour), mask=ImageChops.multiply(self._mask(points), self._mask(within)))
        if outline is not None:
            self.line([*points, *points[:2]], outline)

    def pair(self, points, colour, outline=None, within=None):
        """Fill a polygon and its mirror image."""
        for side in mirrored(points):
            self.fill(side, colour, outline, within)

    def line(self, points, colour, width=0.06):
        """Draw a line through points (N, 2). width: in face units, at least one pixel."""
        width = max(1, round(width * self.unit))
        ImageDraw.Draw(self.image).line(self._place(points), _rgb(colour), width, joint="curve")

    def _mask(self, points):
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(self._place(points), fill=255)
        return mask

    def _place(self, points):
        return [tuple(point) for point in np.asarray(points) @ self.turn + self.centre]


def _rgb(colour):
    return tuple(round(255 * channel) for channel in colour)


def ellipse(x, y, width, height, tilt=0.0):
    """Return the points (48, 2) of an ellipse with centre x, y and half axes. tilt: radians, clockwise."""
    angle = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    points = np.stack([width * np.cos(angle), height * np.sin(angle)], axis=1)
    cos, sin = math.cos(tilt), math.sin(tilt)
    return points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def rounded(points, rounds=4):
    """Round a closed polygon (N, 2) by repeated corner cutting (Chaikin 1974) to (N * 2^rounds, 2)."""
    points = np.asarray(points, float)
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    return points


def mirrored(points):
    """Return points (..., 2) and their mirror image."""
    return points, points * (-1, 1)


def _head(canvas, face, outline):
    """Draw the head with its pattern."""
    canvas.fill(outline, face.fur, canvas.edge)
    if face.pattern == "stripes":
        canvas.fill(ellipse(0, -0.72, 0.09, 0.36), face.mark, within=outline)
        canvas.pair(ellipse(-0.3, -0.78, 0.07, 0.3, -0.15), face.mark, within=outline)
        canvas.pair(ellipse(-0.92, 0.18, 0.3, 0.055, 0.12), face.mark, within=outline)
        canvas.pair(ellipse(-0.9, 0.42, 0.3, 0.055, -0.12), face.mark, within=outline)
    elif face.pattern == "patch":
        canvas.fill(ellipse(0.48, -0.2, 0.46, 0.5, 0.4), face.mark, within=outline)
    elif face.pattern == "blaze":
        blaze = rounded([(-0.1, -1.2), (0.1, -1.2), (0.28, 0.6), (-0.28, 0.6)], 2)
        canvas.fill(blaze, face.mark, within=outline)


def _eyes(canvas, face, x, y, radius):
    look = radius * 0.3 * np.array(face.gaze)
    for centre in mirrored(np.array([-x, y])):
        canvas.fill(ellipse(*centre, radius, radius * 1.1), WHITE, canvas.edge)
        canvas.fill(ellipse(*(centre + look), radius * 0.72, radius * 0.76), face.eyes)
        canvas.fill(ellipse(*(centre + look), radius * 0.38, radius * 0.42), INK)
        canvas.fill(ellipse(*(centre + look + radius * np.array([0.22, -0.28])), radius * 0.2, radius * 0.2), WHITE)


def _cat(canvas, face):
    canvas.pair(rounded([(-0.98, -0.2), (-1.05, -1.5), (-0.9, -1.5), (-0.1, -0.75)], 3), face.fur, canvas.edge)
    canvas.pair(rounded([(-0.85, -0.45), (-0.92, -1.25), (-0.38, -0.75)], 3), mix(face.fur, PINK, 0.7))
    left = [(-0.5, 1.02), (-1.05, 0.5), (-1.3, 0.1), (-0.9, -0.85)]
    _head(canvas, face, rounded([*left, *((-x, y) for x, y in reversed(left))]))
    canvas.pair(ellipse(-0.17, 0.47, 0.24, 0.2), mix(face.fur, WHITE, 0.75))
    for y, rise in ((0.4, -0.12), (0.5, 0.02), (0.6, 0.16)):
        for whisker in mirrored(np.array([(-0.4, y), (-1.25, y + rise)])):
            canvas.line(whisker, mix(face.fur, WHITE, 0.85), 0.035)
    canvas.fill(rounded([(-0.17, 0.24), (0.17, 0.24), (0, 0.46)], 2), PINK, canvas.edge)
    _eyes(canvas, face, 0.46, -0.08, 0.25)


def _dog(canvas, face):
    left = [(-0.6, 1.15), (-0.98, 0.4), (-0.95, -0.75)]
    _head(canvas, face, rounded([*left, *((-x, y) for x, y in reversed(left))]))
    ear = [(-0.45, -0.95), (-1.1, -1.0), (-1.5, 0.1), (-1.25, 0.85), (-0.8, 0.75), (-0.85, -0.2)]
    canvas.pair(rounded(ear), mix(face.fur, INK, 0.3), canvas.edge)
    canvas.fill(rounded([(-0.17, 0.75), (0.17, 0.75), (0.18, 1.25), (-0.18, 1.25)]), PINK, canvas.edge)
    canvas.fill(rounded([(-0.4, 0.1), (0.4, 0.1), (0.66, 0.85), (0, 0.98), (-0.66, 0.85)]), mix(face.fur, WHITE, 0.75))
    canvas.line([(0, 0.4), (0, 0.66)], INK, 0.07)
    canvas.fill(ellipse(0, 0.3, 0.26, 0.18), INK)
    _eyes(canvas, face, 0.4, -0.2, 0.21)


def _bear(canvas, face):
    canvas.pair(ellipse(-0.78, -0.74, 0.42, 0.42), face.fur, canvas.edge)
    canvas.pair(ellipse(-0.76, -0.72, 0.24, 0.24), mix(face.fur, WHITE, 0.6))
    _head(canvas, face, ellipse(0, 0.03, 1.1, 0.98))
    canvas.fill(ellipse(0, 0.44, 0.48, 0.38), mix(face.fur, WHITE, 0.75))
    canvas.line([(0, 0.4), (0, 0.6)], INK, 0.07)
    canvas.line([(-0.2, 0.62), (0, 0.58), (0.2, 0.62)], INK, 0.07)
    canvas.fill(ellipse(0, 0.3, 0.2, 0.14), INK)
    _eyes(canvas, face, 0.46, -0.14, 0.18)
