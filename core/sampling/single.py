"""Translation of single images of any shape, one at a time: no output depends on other images, even by rounding."""

from dataclasses import replace

from core.data_loader import in_range
from core.images.io import squared
from core.sampling.translate import read_sources, translate_rows, with_own_styles
from core.system.memory import MicroBatch

ONE = MicroBatch(1, 1)


class Translator:
    """Translates images one at a time.

    nets: Munch of G, E and, for faces, the face network. shape: a Shape. to_device: moves a tensor to their device.
    strength: of a style, from 0 (the source's own) to 1.
    """

    def __init__(self, nets, shape, to_device, strength=1):
        self.nets, self.shape, self.to_device, self.strength = nets, shape, to_device, strength

    def encode(self, image, label=None, own_codes=None, x_src=None):
        """Return the Sources of one Fitted image.

        label: its domain; None: unknown. own_codes: its own style, if it is known. x_src: the image as a tensor
        (1, 3, H, W) in [-1, 1], if that has more than 8 bit.
        """
        x_src = self.tensor(image.image) if x_src is None else x_src
        sources = read_sources(self.nets, [x_src], ONE)
        if self.strength == 1 or own_codes is not None:
            return replace(sources, own_codes=own_codes, strength=self.strength)
        x_own = self.square(image.image) if self.shape.resize == "keep" else x_src
        return with_own_styles(self.nets, sources, x_src, [label], self.strength, ONE, x_own)

    def render(self, sources, image, codes):
        """Yield the translation into each of the style codes (R, style_dim), uint8, see `Shape.restored`.

        sources: of the Fitted image, from `encode`.
        """
        for (output,) in translate_rows(self.nets.generator, sources, codes, ONE):
            yield self.shape.restored(output, image)

    def frames(self, frames, codes, label=None):
        """Yield (frame, its translations into style codes (R, style_dim)) for each Frame of a clip.

        The source's own style is that of the first frame.
        """
        own_codes = None
        for frame in frames:
            image = self.shape.fit(frame.image)
            sources = self.encode(image, label, own_codes)
            own_codes = sources.own_codes
            yield frame, list(self.render(sources, image, codes))

    def tensor(self, image):
        """Return a PIL image as a tensor (1, 3, H, W) in [-1, 1] on the device."""
        return self.to_device(in_range(image)[None])

    def square(self, image):
        """Return an RGB PIL image as the square (1, 3, size, size) that the style encoder needs."""
        return self.tensor(squared(image, self.shape.size, self.shape.square))
