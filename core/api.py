"""Translate images from Python: StarGAN.load("assets/demo").translate("dog.png", "cat"). See docs/python-api.md."""

from collections.abc import Sequence
from contextlib import contextmanager
from os import PathLike

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from core.cli.config import merge
from core.cli.flags import check_values
from core.cli.resolve import loaded_config, name_domains
from core.images.io import as_rgb, read_rgb, squared
from core.sampling import translate
from core.sampling.style_files import Style, fingerprint, read_styles
from core.solver import Solver
from core.system.errors import UserError
from core.system.memory import chunks

Picture = str | PathLike | Image.Image | np.ndarray | torch.Tensor
GROUP = 64  # images in memory at once


@contextmanager
def _value_errors():
    """Raise errors that the user can correct as ValueError."""
    try:
        yield
    except UserError as error:
        raise ValueError(str(error)) from error


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
    def load(cls, path: str | PathLike, device="auto", precision="fp32", domains: Sequence[str] | None = None, **flags):
        """Load a checkpoint: a folder (its newest step) or a file ..._nets_ema.ckpt, also of the original code.
        domains: names in label order, if it stores none. flags: others of `main.py sample`."""
        with _value_errors():
            given = {"mode": "sample", "checkpoint": str(path), "device": device, "precision": precision, **flags}
            given |= {"domain_names": list(domains)} if domains else {}
            check_values(merge(given))
            config = name_domains(loaded_config(given), [])
            solver = Solver(config)
            solver.read(config.resume_iter)
            return cls(solver)

    def style(self, domain: str, references: Sequence[Picture] = (), *, seed: int = 0, psi: float = 1.0) -> Style:
        """Return the mean style of references in a domain, or without references that of --seeds seed and --psi psi."""
        nets, items = self.solver.nets_ema, _as_list(references)[0]
        with _value_errors(), torch.no_grad(), self.solver.autocast():
            label = self._label(domain)
            if items:
                y_ref = torch.full((len(items),), label, device=self.solver.device)
                code = translate.encoded(nets.style_encoder, self._read(items), y_ref).mean(0)
                name, origin = "references", {"mean": [str(item) for item in items if isinstance(item, str | PathLike)]}
            else:
                latent_dim = self.solver.config.latent_dim
                styles = translate.seed_styles(nets.mapping_network, [label], [seed], psi, latent_dim)
                name, code, origin = f"seed_{seed}", styles.codes[0], styles.origins[0]
        return Style(name, domain, code.float().cpu(), origin, self._model)

    def load_styles(self, path: str | PathLike) -> list[Style]:
        """Return the styles of a file of --save_styles or Style.save."""
        with _value_errors():
            return read_styles(path, self._model, self.domains, self.solver.config.style_dim)

    def translate(
        self, images, target: str | Style, *, reference: Picture | None = None, style: Style | None = None,
        seed: int = 0, psi: float = 1.0, strength: float = 1.0, source_domain: str | None = None,
    ) -> Image.Image | list[Image.Image]:  # fmt: skip
        """Return the translated image as a PIL image, or a list of them for several images.

        target: a domain, or a Style. In a domain, the style is `style`, that of `reference`, or that of a random code
        (seed, psi). strength: from 0, the source's own style, to 1. source_domain: of the sources, for their own style;
        None: their folder may name it, else it is the domain that reproduces them best.
        """
        with _value_errors():
            if not isinstance(target, Style):
                references = [] if reference is None else [reference]
                target = style or self.style(target, references, seed=seed, psi=psi)
            if target.model != self._model:
                raise UserError(f"Cannot use style {target.name} (it belongs to another model). Use one of this model.")
            items, is_one = _as_list(images)
            known = None if source_domain is None else self._label(source_domain)
            outputs = [image for part in chunks(len(items), GROUP)
                       for image in self._translated(items[part], target.code, strength, known)]  # fmt: skip
            return outputs[0] if is_one else outputs

    def _translated(self, items, code, strength, label):
        """Return the translations of some images into one style, as the command line computes them."""
        nets, size = self.solver.nets_ema, self.solver.inference_batch
        with torch.no_grad(), self.solver.autocast():
            x_src = self._read(items)
            sources = translate.read_sources(nets, x_src.split(size.size), size)
            if strength != 1:
                paths = [item if isinstance(item, str | PathLike) else "" for item in items]
                labels = translate.folder_labels(paths, self.domains) if label is None else [label] * len(items)
                sources = translate.with_own_styles(nets, sources, x_src, labels, strength, size)
            row = next(translate.translate_rows(nets.generator, sources, code[None].to(x_src.device), size))
        return [Image.fromarray(image) for image in row]

    def _read(self, items):
        """Return images as a tensor (N, 3, H, W) on the device."""
        if all(isinstance(item, torch.Tensor) for item in items):
            return torch.stack([self._checked(item) for item in items]).float().to(self.solver.device)
        size, resize = self.img_size, self.solver.config.resize
        arrays = np.stack([squared(self._picture(item), size, resize) for item in items])  # (N, H, W, 3)
        x = torch.from_numpy(arrays).to(self.solver.device).permute(0, 3, 1, 2).contiguous()
        return v2.functional.normalize(v2.functional.to_dtype(x, torch.float32, scale=True), [0.5] * 3, [0.5] * 3)

    def _checked(self, array):
        size = (3, self.img_size, self.img_size)
        is_tensor = isinstance(array, torch.Tensor) and array.is_floating_point() and array.shape == size
        is_array = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.shape[2:] == (3,)
        if not (is_tensor or is_array):
            found, kinds = f"{tuple(array.shape)} of {array.dtype}", f"uint8 arrays (H, W, 3) or float tensors {size}"
            raise UserError(f"Cannot use an array {found} (images are {kinds}). Convert it.")
        return array

    def _picture(self, item):
        if isinstance(item, np.ndarray | torch.Tensor):
            return Image.fromarray(self._checked(item))
        return as_rgb(item) if isinstance(item, Image.Image) else read_rgb(item)

    def _label(self, domain):
        if domain not in self.domains:
            known = ", ".join(self.domains)
            raise UserError(f"Cannot use domain {domain} (the model has {known}). Choose one of them.")
        return self.domains.index(domain)


def _as_list(images):
    """Return (a list of single images, whether only one was given)."""
    is_one = isinstance(images, str | PathLike | Image.Image) or getattr(images, "ndim", 4) == 3
    return ([images] if is_one else list(images)), is_one
