"""What the page computes: images that are encoded once, and styles from a plane, references and sliders."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import count, zip_longest
from threading import Lock

import torch
from PIL import Image

from core.images.io import image_size, read_rgb
from core.images.shape import Fitted
from core.sampling import style_files, translate
from core.system import console
from core.system.errors import UserError

EXAMPLES = 12  # images that the page shows from the beginning
KEPT = 64  # images
MOST_PIXELS = 2**25  # of an image: 33 million, a photograph of a telephone
MOST_SIDES = 4  # with --resize keep, an image has at most the pixels of a square of this many trained sides
MOST_STRENGTH = 100


@dataclass
class Known:
    """An image of the page."""

    name: str
    image: Fitted
    sources: translate.Sources  # one, with its own style
    codes: torch.Tensor  # (domains, style_dim), its styles as a reference


def some_of_each_folder(paths):
    """Return at most EXAMPLES of the paths, in turn from their folders."""
    folders = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    return [path for row in zip_longest(*folders.values()) for path in row if path][:EXAMPLES]


class Studio:
    """Translates the images of the page in the styles that it requests. Can be used by several threads.

    examples: paths of images that the page shows from the beginning; unusable ones are skipped with a warning.
    """

    def __init__(self, solver, examples=()):
        self.solver, self.nets, self.domains = solver, solver.nets_ema, solver.config.names_by_label
        # With any strength but 1, the sources get their own styles. Each request sets its strength.
        self.translator = solver.translator(0.5)
        self.known, self.numbers, self.lock = OrderedDict(), count(1), Lock()
        labels, latent_dim = range(len(self.domains)), solver.config.latent_dim
        with solver.autocast():
            self.planes = [_plane(self.nets.mapping_network, latent_dim, label) for label in labels]
        self.model, self.examples = style_files.fingerprint(self.nets), []
        for path in examples:
            try:
                self.examples.append(self.add(path))
            except UserError as error:
                console.warn(f"Skipping an image. {error}")

    def add(self, file):
        """Read and encode an image file, a path or an Upload, and return its number. Raises UserError."""
        (width, height), shape = image_size(file), self.translator.shape
        most = MOST_PIXELS if shape.resize != "keep" else (MOST_SIDES * shape.size) ** 2
        if width * height > most:
            raise UserError(f"Cannot use {file.name} ({width} x {height} pixels; at most {most:,}). Make it smaller.")
        original = read_rgb(file)
        with self.lock, torch.no_grad(), self.solver.autocast():
            image, x_ref = shape.fit(original), self.translator.square(original)  # (1, 3, size, size)
            y_ref = torch.arange(len(self.domains), device=x_ref.device)
            codes = translate.encoded(self.nets.style_encoder, x_ref.expand(len(y_ref), -1, -1, -1), y_ref)
            number = next(self.numbers)
            self.known[number] = Known(file.name, image, self.translator.encode(image), codes)
            if len(self.known) > KEPT:
                self.known.pop(next(other for other in self.known if other not in self.examples))
        return number

    def image(self, number):
        """Return a Known image. Raises UserError if it is not kept any more."""
        if number not in self.known:
            raise UserError(f"Cannot use this image (the page keeps the last {KEPT}). Add it again.")
        self.known.move_to_end(number)
        return self.known[number]

    def style(self, request):
        """Return the Style of a request: {"domain", "pad": [x, y] in standard deviations, "psi", "strength",
        "references": [[number, weight from 0 to 1], ...]}.

        References are mixed by their weights. Their share in the style is the largest weight, and the pad has the rest.
        Raises UserError.
        """
        label = self.domains.index(request["domain"])
        mean, axes = self.planes[label]
        (x, y), psi = map(float, request["pad"]), float(request["psi"])
        code = mean + psi * (x * axes[0] + y * axes[1])  # (style_dim,)
        known = [self.image(number) for number, _ in request["references"]]
        weights = code.new_tensor([weight for _, weight in request["references"]])
        if weights.sum() > 0:
            mixed = weights @ torch.stack([one.codes[label] for one in known]).to(code) / weights.sum()
            code = torch.lerp(code, mixed, weights.max())
        if not code.isfinite().all() or not abs(float(request["strength"])) <= MOST_STRENGTH:
            raise UserError("Cannot use this style (its numbers are too large). Choose smaller ones.")
        origin = {"pad": [x, y], "psi": psi, "references": [one.name for one in known]}
        return style_files.Style(f"pad_{x:.1f}_{y:.1f}", self.domains[label], code.float().cpu(), origin, self.model)

    def render(self, request, is_wanted=lambda: True):
        """Return a PNG file, bytes, of image number request["image"] in the requested style with its "strength".

        is_wanted(): called when the networks are free. If it returns False, the result is None. Raises UserError.
        """
        with self.lock, torch.no_grad(), self.solver.autocast():
            if not is_wanted():
                return None
            known, code = self.image(int(request["image"])), self.style(request).code[None].to(self.solver.device)
            sources = replace(known.sources, strength=float(request["strength"]))
            (output,) = self.translator.render(sources, known.image, code)
        return _png(Image.fromarray(output))

    def shown(self, number):
        """Return an image as the networks see it, a PNG file."""
        with self.lock:
            return _png(self.image(number).image.image)

    def style_file(self, request):
        """Return the requested style as a file for --styles, bytes. Raises UserError."""
        with self.lock:
            return style_files.as_text([self.style(request)]).encode()


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
