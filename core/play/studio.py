"""What the page computes: images that are encoded once, and styles from a plane, references and sliders."""

import tempfile
from collections import OrderedDict
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import count
from pathlib import Path
from threading import Lock

import torch
from PIL import Image

from core.images.io import image_size, read_rgb
from core.images.shape import Fitted
from core.sampling import style_files, translate
from core.system.errors import UserError

EXAMPLES = 12  # images that the page shows from the beginning
KEPT = 64  # images
MOST_PIXELS = 2**25  # of an image: 33 million, a photograph of a telephone


@dataclass
class Known:
    """An image of the page."""

    name: str
    image: Fitted
    sources: translate.Sources  # one, with its own style
    codes: torch.Tensor  # (domains, style_dim), its styles as a reference


class Studio:
    """Translates the images of the page in the styles that it chooses. Can be used by several threads.

    examples: paths of images that the page shows from the beginning.
    """

    def __init__(self, solver, examples=()):
        self.solver, self.nets, self.domains = solver, solver.nets_ema, solver.config.names_by_label
        self.translator, self.square = solver.translator(0.5), solver.translator(is_square=True)
        self.known, self.numbers, self.lock = OrderedDict(), count(1), Lock()
        labels, latent_dim = range(len(self.domains)), solver.config.latent_dim
        with solver.autocast():
            self.planes = [_plane(self.nets.mapping_network, latent_dim, label) for label in labels]
        self.model = style_files.fingerprint(self.nets)
        self.examples = [self.add(path, path.name) for path in examples]

    def upload(self, name, content):
        """Read and encode an image file, bytes, and return its number. Raises UserError."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "image")
            path.write_bytes(content)
            try:
                return self.add(path, name)
            except UserError as error:
                raise UserError(str(error).replace(str(path), name)) from error

    def add(self, path, name):
        """Read and encode an image file and return its number. Raises UserError."""
        width, height = image_size(path)
        if width * height > MOST_PIXELS:
            raise UserError(f"Cannot use {name} (it has {width} x {height} pixels). Make it smaller.")
        picture = read_rgb(path)
        with self.lock, torch.no_grad(), self.solver.autocast():
            image = self.translator.shape.fit(picture)
            sources = self.translator.encode(self.translator.tensor(image.image), image)
            x_ref = self.square.tensor(self.square.shape.fit(picture).image)  # (1, 3, size, size)
            y_ref = torch.arange(len(self.domains), device=x_ref.device)
            codes = translate.encoded(self.nets.style_encoder, x_ref.expand(len(y_ref), -1, -1, -1), y_ref)
            number = next(self.numbers)
            self.known[number] = Known(name, image, sources, codes)
            while len(self.known) > KEPT:
                self.known.popitem(last=False)
        return number

    def style(self, wish):
        """Return the Style of a wish: {"domain", "pad": [x, y] in standard deviations, "psi", "references": [[number,
        weight from 0 to 1], ...]}. References are mixed by their weights. Their share in the style is the largest
        weight, and the pad has the rest. Raises UserError."""
        label = self.domains.index(wish["domain"])
        mean, axes = self.planes[label]
        x, y = map(float, wish["pad"])
        pad = mean + float(wish["psi"]) * (x * axes[0] + y * axes[1])  # (style_dim,)
        known = [self.known[number] for number, _ in wish["references"]]
        weights = pad.new_tensor([weight for _, weight in wish["references"]])
        code = pad
        if weights.sum() > 0:
            mixed = weights @ torch.stack([one.codes[label] for one in known]).to(pad) / weights.sum()
            code = torch.lerp(pad, mixed, weights.max())
        if not code.isfinite().all():
            raise UserError("Cannot use this style (it has infinite values). Choose smaller numbers.")
        origin = {"pad": wish["pad"], "psi": wish["psi"], "references": [one.name for one in known]}
        return style_files.Style(f"pad_{x:.1f}_{y:.1f}", self.domains[label], code.float().cpu(), origin, self.model)

    def render(self, wish, is_wanted=lambda: True):
        """Return a PNG file, bytes, of image number wish["image"] in the style of the wish, with its "strength".

        is_wanted(): asked when the networks are free; if it returns False, so does this function return None.
        """
        with self.lock, torch.no_grad(), self.solver.autocast():
            if not is_wanted():
                return None
            known, code = self.known[wish["image"]], self.style(wish).code[None].to(self.solver.device)
            sources = replace(known.sources, strength=float(wish["strength"]))
            (output,) = self.translator.render(sources, known.image, code)
        return _png(Image.fromarray(output))

    def shown(self, number):
        """Return an image as the networks see it, a PNG file."""
        return _png(self.known[number].image.image)

    def style_file(self, wish):
        """Return the style of a wish as a file for --styles, bytes."""
        with self.lock:
            return style_files.as_text([self.style(wish)]).encode()


def _png(image):
    file = BytesIO()
    image.save(file, "png", compress_level=1)
    return file.getvalue()


def _plane(mapping_network, latent_dim, label):
    """Return the mean (style_dim,) of the styles of random codes, and their two principal axes (2, style_dim), of
    the length of a standard deviation."""
    codes = translate.latent_styles(mapping_network, translate.many_codes(latent_dim), [label])[0]  # (N, style_dim)
    mean = codes.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((codes - mean).T.double().cpu()))  # ascending
    axes = (vectors[:, -2:] * values[-2:].clamp(min=0).sqrt()).T.flip(0)
    return mean, axes.to(mean)
