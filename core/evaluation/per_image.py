"""What outputs kept of their sources: numbers for each image, and pictures of the outputs with extreme numbers.

source_LPIPS and source_SSIM compare an output with its source. cycle_LPIPS compares the source with its translation
there and back, in its own style (cycle consistency; paper, section 2). Only the first output of a source is translated
back, since this takes the encoder and the decoder of G once more.
"""

import heapq
import json
import math
from collections import defaultdict

import numpy as np
import torch
from PIL import Image

from core.images.io import write_image
from core.system.files import atomic_write

NUMBERS = {"source_LPIPS": -1, "source_SSIM": 1, "cycle_LPIPS": -1}  # 1: more is better
EXTREMES = 24  # best and worst outputs of a number
SIDE = 128  # largest side of an image in a picture, in pixels


class PerImage:
    """The numbers of all outputs of a mode, and pictures of those with extreme numbers, so far.

    count: outputs of all tasks so far, on all processes. Each process adds the pictures of its shard.
    """

    def __init__(self):
        self.tasks, self.count = [], 0
        self.pictures = defaultdict(list)  # (number, sign) -> [(sign * value, -index of the output, picture)]

    def add_pictures(self, indices, numbers, images):
        """Keep pictures of the N outputs with these future indices that have extreme numbers.

        numbers: (N, 3). images: N lists of images (H, W, 3) to show beside each other.
        """
        small = [_beside(parts) for parts in images]
        for column, name in enumerate(NUMBERS):
            values = list(zip(numbers[:, column].tolist(), indices, small, strict=True))
            for sign in (1, -1):  # 1: the highest values
                new = [(sign * value, -index, picture) for value, index, picture in values if math.isfinite(value)]
                self.pictures[name, sign] = heapq.nlargest(EXTREMES, self.pictures[name, sign] + new)

    def add_task(self, about, sources, styles, numbers):
        """Add the numbers (N, K, 3) of a task. about: entries of its rows. sources: N names. styles: N lists of K."""
        self.tasks.append((about, sources, styles, numbers))
        self.count += numbers[..., 0].numel()

    def rows(self):
        """Yield a dict for each output."""
        for about, sources, styles, numbers in self.tasks:
            for source, names, outputs in zip(sources, styles, numbers.tolist(), strict=True):
                for output, (style, values) in enumerate(zip(names, outputs, strict=True), start=1):
                    measured = {name: v if math.isfinite(v) else None for name, v in zip(NUMBERS, values, strict=True)}
                    yield about | {"source": source, "output": output, "style": style} | measured

    def extremes(self, name, sign):
        """Return the indices of the outputs with the highest (sign 1) or lowest (-1) values of a number, in order."""
        column = list(NUMBERS).index(name)
        values = sign * torch.cat([numbers[..., column].flatten() for *_, numbers in self.tasks])
        order = torch.where(values.isfinite(), values, -torch.inf).argsort(descending=True, stable=True)
        return order[: min(EXTREMES, values.isfinite().sum())].tolist()

    def write_pictures(self, folder):
        """Write the pictures of this process's outputs: {folder}/{index}.jpg. Raises UserError."""
        for (name, sign), pictures in self.pictures.items():
            chosen = set(self.extremes(name, sign))
            for _, index, picture in pictures:
                if -index in chosen:
                    write_image(folder / f"{-index}.jpg", picture)


def write_rows(path, rows):
    """Write dicts to a file of JSON lines."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _beside(images):
    side = min(SIDE, images[0].shape[0])
    return np.concatenate([np.asarray(Image.fromarray(image).resize((side, side))) for image in images], axis=1)
