"""Styles in JSON files, so that a style can be kept, named, mixed and used again."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from core.sampling.translate import Styles, mean_styles
from core.system.errors import UserError
from core.system.files import safe_name, write_text
from core.system.notes import parse_json, read_text


@dataclass(frozen=True)
class Style:
    """A style of a domain.

    code: tensor (style_dim,) on the CPU. origin: what it was made of, plain values. model: fingerprint of the F and E
    that it belongs to.
    """

    name: str
    domain: str
    code: torch.Tensor
    origin: dict
    model: str

    def mix(self, other, weight):
        """Return the style between this one (weight 0) and another one (weight 1). Raises ValueError."""
        if other.model != self.model:
            raise ValueError(f"Cannot mix {self.name} and {other.name} (styles of different models). Choose others.")
        code, origin = torch.lerp(self.code, other.code, weight), {"mix": [self.name, other.name], "weight": weight}
        return replace(self, name=f"{self.name}+{other.name}", code=code, origin=origin)

    def save(self, path):
        """Write the style as a JSON file. Raises ValueError."""
        try:
            write_styles(path, [self])
        except UserError as error:
            raise ValueError(str(error)) from error


def fingerprint(nets):
    """Return a hash of the weights of F and E. Styles of models with equal fingerprints are the same."""
    digest = hashlib.sha256()
    for name in ("mapping_network", "style_encoder"):
        for key, tensor in sorted(nets[name].state_dict().items()):
            digest.update(f"{name}.{key}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_styles(path, styles):
    """Write styles as a JSON file, numbers without loss. Raises UserError."""
    rows = [{**vars(style), "code": style.code.tolist()} for style in styles]
    write_text(Path(path), json.dumps({"styles": rows}, indent=1) + "\n")


def read_styles(path, model, domains, style_dim):
    """Return the styles of a JSON file. Raises UserError if they are not of the model with this fingerprint."""
    try:
        content = parse_json(read_text(path))
        styles = [_style(row, domains, style_dim) for row in content["styles"]]
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"Cannot read {path} (not a file of --save_styles). Choose another file.") from error
    if not styles or any(style.model != model for style in styles):
        raise UserError(f"Cannot use {path} (its styles belong to another model). Use styles of this checkpoint.")
    return styles


def named_styles(items, nets, config):
    """Return the Styles of --styles. items: paths, or "0.5*path" for a style halfway from the mean of its domain.

    Raises UserError.
    """
    model, domains, chosen = fingerprint(nets), config.names_by_label, []
    for item in items:
        weighted = None if Path(item).exists() else re.fullmatch(r"(\d*\.?\d+)\*(.+)", item)
        for style in read_styles(weighted[2] if weighted else item, model, domains, config.style_dim):
            if weighted:
                mean = mean_styles(nets.mapping_network, config.latent_dim, [domains.index(style.domain)])[0].cpu()
                code = torch.lerp(mean, style.code, float(weighted[1]))
                style = replace(style, code=code, name=f"{weighted[1]}_{style.name}")  # noqa: PLW2901
            chosen.append(style)
    codes = torch.stack([style.code for style in chosen]).to(next(nets.mapping_network.parameters()))
    return Styles(
        codes, [domains.index(style.domain) for style in chosen], names=[safe_name(style.name) for style in chosen],
        origins=[{"style": style.name, "made_of": style.origin} for style in chosen],
    )  # fmt: skip


def to_save(styles, domains, model):
    """Return Styles as a list of Style, and the mean style of each domain with several references."""
    names = [f"seed_{origin['seed']}" if "seed" in origin else name
             for name, origin in zip(styles.names, styles.origins, strict=True)]  # fmt: skip
    rows = zip(names, styles.labels, styles.codes.float().cpu(), styles.origins, strict=True)
    found = [Style(name, domains[label], code, origin, model) for name, label, code, origin in rows]
    for domain in domains:
        chosen = [style for style in found if style.domain == domain and "reference" in style.origin]
        if len(chosen) > 1:
            code, origin = (
                torch.stack([s.code for s in chosen]).mean(0),
                {"mean": [s.origin["reference"] for s in chosen]},
            )
            found.append(Style(f"mean_of_{len(chosen)}", domain, code, origin, model))
    return found


def _style(row, domains, style_dim):
    """Return a Style of plain values. Raises ValueError, TypeError or LookupError."""
    style = Style(**{**row, "code": torch.tensor(row["code"], dtype=torch.float32)})
    has_values = isinstance(style.name, str) and isinstance(style.origin, dict) and style.domain in domains
    if not has_values or style.code.shape != (style_dim,) or not style.code.isfinite().all():
        raise ValueError
    return style
