"""Translate images from Python: StarGAN.load("assets/demo").translate("dog.png", "cat"). See docs/python-api.md."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.cli.config import defaults, merge
from core.cli.domains import name_domains
from core.cli.flags import check_values
from core.cli.resolve import loaded_config
from core.images.clips import Frame, open_clip
from core.images.io import as_rgb, read_rgb, to_uint8
from core.sampling import translate
from core.sampling.style_files import Style, fingerprint, read_styles
from core.solver import Solver
from core.system.errors import UserError, value_errors

Picture = str | PathLike | Image.Image | np.ndarray | torch.Tensor
Pictures = Picture | Sequence[Picture]


class StarGAN:
    """A trained model. Images are paths, PIL images, uint8 arrays (H, W, 3), or float tensors (3, S, S) in [-1, 1] of
    the size img_size; several are a list, or an array or tensor with N in front. Mistakes raise ValueError.

    domains: names in label order. img_size: side of the images in pixels. generator: the module G.
    """

    def __init__(self, solver: Solver):
        self.solver, config = solver, solver.config
        self.domains, self.img_size = config.names_by_label, config.img_size
        self.generator = solver.nets_ema.generator
        self._model = fingerprint(solver.nets_ema)

    @classmethod
    @value_errors()
    def load(cls, path: str | PathLike, device: str = "auto", precision: str = "fp32",
             domains: Sequence[str] | None = None, **flags) -> "StarGAN":  # fmt: skip
        """Load a checkpoint: a folder (its newest step) or a file ..._nets_ema.ckpt, also of the original code.
        domains: names in label order, if it stores none. flags: others of `main.py sample`."""
        given = {"mode": "sample", "checkpoint": str(path), "device": device, "precision": precision, **flags}
        given |= {"domain_names": list(domains)} if domains else {}
        if unknown := sorted(flags.keys() - defaults().keys()):
            raise UserError(f"Cannot use {unknown[0]} (there is no such flag). Remove it.")
        check_values(merge(given))
        config = name_domains(loaded_config(given), [])
        solver = Solver(config)
        solver.read(config.resume_iter)
        return cls(solver)

    @value_errors()
    def style(self, domain: str, references: Pictures | None = None, *, seed: int = 0, psi: float = 1.0) -> Style:
        """Return the mean style of references in a domain, or without references that of --seeds seed and --psi psi."""
        nets, label = self.solver.nets_ema, self._label(domain)
        with torch.no_grad(), self.solver.autocast():
            if references is not None:
                items, _ = _as_list(references)
                if not items:
                    raise UserError("Cannot average references (the list is empty). Give at least one image.")
                y_ref = torch.full((len(items),), label, device=self.solver.device)
                translator = self.solver.translator()
                x_ref = torch.cat([translator.square(self._picture(item)) if (x := self._exact(item)) is None else x
                                   for item in items])  # fmt: skip
                code = translate.encoded(nets.style_encoder, x_ref, y_ref).cpu().float().mean(0)
                paths = [str(item) for item in items if isinstance(item, str | PathLike)]
                name = Path(paths[0]).stem if len(items) == len(paths) == 1 else f"mean_of_{len(items)}"
                return Style(name, domain, code, {"mean": paths}, self._model)
            check_values(defaults() | {"psi": psi})
            seed, latent_dim = operator.index(seed), self.solver.config.latent_dim
            styles = translate.seed_styles(nets.mapping_network, [label], [seed], psi, latent_dim)
        return Style(f"seed_{seed}", domain, styles.codes[0].cpu().float(), styles.origins[0], self._model)

    @value_errors()
    def load_styles(self, path: str | PathLike) -> list[Style]:
        """Return the styles of a file of --save_styles or Style.save."""
        return read_styles(path, self.domains, self._model)

    @value_errors()
    def translate(
        self, images: Pictures, target: str | Style, *, reference: Pictures | None = None, style: Style | None = None,
        seed: int | None = None, psi: float = 1.0, strength: float = 1.0, source_domain: str | None = None,
    ) -> Image.Image | list[Image.Image]:  # fmt: skip
        """Return the translated image as a PIL image, or a list of them for several images.

        target: a domain, or a Style. In a domain, the style is `style`, that of `reference`, or that of a random code
        (seed, psi). strength: from 0, the source's own style, to 1. source_domain: of the sources, for their own style;
        None: their folder may name it, else it is the domain that reproduces them best.
        """
        code, label = self._code(target, reference, style, seed, psi), self._label(source_domain)
        translator, (items, is_one), outputs = self._translator(strength), _as_list(images), []
        for item in items:
            image = translator.shape.fit(self._picture(item))
            with torch.no_grad(), self.solver.autocast():
                sources = translator.encode(image, self._label_of(item, label), x_src=self._exact(item))
                outputs += [Image.fromarray(output) for output in translator.render(sources, image, code)]
        return outputs[0] if is_one else outputs

    @value_errors()
    def translate_clip(
        self, clip: str | PathLike | Iterable[Picture], target: str | Style, *, reference: Pictures | None = None,
        style: Style | None = None, seed: int | None = None, psi: float = 1.0, strength: float = 1.0,
        source_domain: str | None = None,
    ) -> Iterator[Image.Image]:  # fmt: skip
        """Return an iterator over the translated frames of a clip, PIL images. Each is computed when it is requested.

        clip: a video or animated image, or an iterable of images, such as those of a camera. Frames of a file have
        their time and duration in seconds in `info`. All frames have the same style; the source's own style, for
        strength, is that of the first frame. Others: see `translate`.
        """
        code, label = self._code(target, reference, style, seed, psi), self._label(source_domain)
        is_file = isinstance(clip, str | PathLike)
        frames = open_clip(clip).frames() if is_file else map(self._frame, clip)
        return self._frames(frames, code, self._label_of(clip, label), self._translator(strength))

    def _frame(self, item):
        return item if isinstance(item, Frame) else Frame(self._picture(item))

    def _frames(self, frames, code, label, translator):
        """Yield the translations of Frames as PIL images. Raises ValueError."""
        outputs = translator.frames(frames, code, label)
        while True:
            with value_errors(), self.solver.autocast():
                found = next(outputs, None)
            if found is None:
                return
            frame, (output,) = found
            image = Image.fromarray(output)
            if frame.time is not None:
                image.info = {"time": float(frame.time), "duration": float(frame.duration)}
            yield image

    def _code(self, target, reference, style, seed, psi):
        """Return the style code (1, style_dim) on the device that the arguments of `translate` choose."""
        given = [target if isinstance(target, Style) else None, style, reference, seed]
        if sum(value is not None for value in given) > 1:
            raise UserError("Cannot use several styles at once (a Style, a reference, a seed). Give one of them.")
        style = style or given[0] or self.style(target, reference, seed=seed or 0, psi=psi)
        if style.model != self._model or target not in (style, style.domain):
            raise UserError(f"Cannot use style {style.name} (it belongs to another model or domain). Use another one.")
        return style.code[None].to(self.solver.device)

    def _translator(self, strength):
        check_values(defaults() | {"strength": strength})
        return self.solver.translator(strength)

    def _label_of(self, item, label):
        """Return `label`; if it is None, that of the domain that the folder of a path names; else None."""
        if label is None and isinstance(item, str | PathLike):
            (label,) = translate.folder_labels([item], self.domains)
        return label

    def _exact(self, item):
        """Return a tensor, which may have more than 8 bit, as (1, 3, H, W) on the device; None for other images."""
        return self._checked(item).float()[None].to(self.solver.device) if isinstance(item, torch.Tensor) else None

    def _picture(self, item):
        """Return an image of any kind as an RGB PIL image."""
        if isinstance(item, torch.Tensor):
            return Image.fromarray(to_uint8(self._checked(item)[None])[0])
        if isinstance(item, np.ndarray):
            return Image.fromarray(self._checked(item))
        return as_rgb(item) if isinstance(item, Image.Image) else read_rgb(item)

    def _checked(self, array):
        size = (3, self.img_size, self.img_size)
        is_tensor = isinstance(array, torch.Tensor) and array.is_floating_point() and array.shape == size
        is_array = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.shape[2:] == (3,)
        if not (is_tensor or is_array):
            found, kinds = f"{tuple(array.shape)} of {array.dtype}", f"uint8 arrays (H, W, 3) or float tensors {size}"
            raise UserError(f"Cannot use an array {found} (images are {kinds}). Convert it.")
        return array

    def _label(self, domain):
        """Return the label of a domain; None for None. Raises UserError."""
        if domain is None:
            return None
        if domain not in self.domains:
            raise UserError(f"Cannot use domain {domain} (there are {', '.join(self.domains)}). Choose one of them.")
        return self.domains.index(domain)


def _as_list(images):
    """Return (a list of single images, whether only one was given)."""
    is_one = isinstance(images, str | PathLike | Image.Image) or getattr(images, "ndim", 4) < 4
    return ([images] if is_one else list(images)), is_one
