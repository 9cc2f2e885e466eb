"""The shape of images: fit them to the networks, and bring outputs back to the shape of their source."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from core.images.io import ALPHA, padded_box, squared


@dataclass(frozen=True)
class Fitted:
    """An image as the networks process it, and what `Shape.restored` needs of its source."""

    image: Image.Image  # RGB
    size: tuple  # (width, height) of the source
    alpha: Image.Image | None = None  # of the source, where outputs keep its shape
    around: Image.Image | None = None  # the source, where outputs only replace its middle


@dataclass(frozen=True)
class Shape:
    """How images fit the networks.

    size: side of the training images. resize: see `core.images.io.squared`, or "keep": the image keeps its shape, and
    reflections at its borders extend it to multiples of size / 16, which the generator without masks needs.
    restore: bring outputs of stretch, crop and pad back to the shape of the source. With crop, the output replaces the
    middle of the source.
    """

    size: int
    resize: str = "stretch"
    restore: bool = False

    @property
    def square(self):
        """How references become squares, which the style encoder needs."""
        return "crop" if self.resize == "keep" else self.resize

    @property
    def is_kept(self):
        """Whether outputs have the shape of their source."""
        return self.restore or self.resize == "keep"

    def fit(self, image):
        """Return an RGB PIL image as Fitted."""
        alpha = image.info.get(ALPHA) if self.is_kept else None
        around = image if self.restore and self.resize == "crop" else None
        if self.resize != "keep":
            return Fitted(squared(image, self.size, self.resize), image.size, alpha, around)
        left, top, right, bottom = self._margins(image.size)
        extended = np.pad(np.asarray(image), ((top, bottom), (left, right), (0, 0)), "reflect")
        return Fitted(Image.fromarray(extended), image.size, alpha)

    def restored(self, output, source):
        """Return an output (h, w, 3) of the networks in its final shape: (H, W, 3), or (H, W, 4) with transparency.

        output: uint8. source: the Fitted image that it is made of.
        """
        if not self.is_kept:
            return output
        (width, height), image = source.size, Image.fromarray(output)
        if self.resize == "keep":
            left, top, _, _ = self._margins(source.size)
            image = image.crop((left, top, left + width, top + height))
        elif self.resize == "crop":
            side, middle, image = min(width, height), image, source.around.copy()
            image.paste(middle.resize((side, side)), ((width - side) // 2, (height - side) // 2))  # bicubic
        else:
            image = image.crop(padded_box(source.size, self.size)) if self.resize == "pad" else image
            image = image.resize(source.size)  # bicubic
        if source.alpha is not None:
            image.putalpha(source.alpha)
        return np.asarray(image)

    def _margins(self, size):
        """Return (left, top, right, bottom), the pixels that extend an image of this (width, height)."""
        step = max(1, self.size // 16)  # the factor of the generator's downsampling
        missing = [max(2 * step, -(-side // step) * step) - side for side in size]  # 1 x 1 features have no variance
        left, top = (pixels // 2 for pixels in missing)
        return left, top, missing[0] - left, missing[1] - top
