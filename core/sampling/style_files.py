"""Styles in JSON files, so that a style can be kept, named, mixed and used again."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import cache
from operator import itemgetter
from pathlib import Path

import torch

from core.sampling.translate import Styles, mean_styles
from core.system.errors import UserError, reason, value_errors
from core.system.files import safe_name, write_text
from core.system.notes import parse_json, read_text


@dataclass(frozen=True, eq=False)
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
        """Return the style between this one (weight 0) and another one (weight 1), in the domain of the nearer one.
        Raises ValueError if they belong to different models."""
        if other.model != self.model:
            raise ValueError(f"Cannot mix {self.name} and {other.name} (styles of different models). Choose others.")
        code, origin = torch.lerp(self.code, other.code, weight), {"mix": [self.name, other.name], "weight": weight}
        nearer = self if weight <= 0.5 else other
        return replace(nearer, name=f"{self.name}+{other.name}", code=code, origin=origin)

    @value_errors()
    def save(self, path):
        """Write the style as a JSON file. Raises ValueError."""
        write_text(Path(path), as_text([self]))


def fingerprint(nets):
    """Return a hash of the weights of F and E. Styles of models with equal fingerprints are the same."""
    digest = hashlib.sha256()
    for name in ("mapping_network", "style_encoder"):
        for key, tensor in sorted(nets[name].state_dict().items()):
            digest.update(f"{name}.{key}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def as_text(styles):
    """Return styles as JSON, numbers without loss."""
    rows = [{**vars(style), "code": style.code.tolist()} for style in styles]
    return json.dumps({"styles": rows}, indent=1) + "\n"


def read_styles(path, domains, model=None):
    """Return the styles of a JSON file. Raises UserError.

    domains: names in label order. model: fingerprint of the model that they must belong to; None: any.
    """
    try:
        styles = [_style(row) for row in parse_json(read_text(path))["styles"]]
    except OSError as error:
        raise UserError(f"Cannot read {path} ({reason(error)}). Check the path.") from error
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(f"Cannot read {path} (not a file of --save_styles). Choose another file.") from error
    if not styles:
        raise UserError(f"Cannot use {path} (it has no styles). Choose another file.")
    if model is not None and any(style.model != model for style in styles):
        raise UserError(f"Cannot use {path} (its styles belong to another model). Use styles of this checkpoint.")
    unknown = [style.domain for style in styles if style.domain not in domains]
    if unknown:
        advice = f"Name the domains with --domain_names, or choose styles in {', '.join(domains)}"
        raise UserError(f"Cannot use {path} (the model has no domain {unknown[0]}). {advice}.")
    return styles


def _style(row):
    """Return a Style of plain values. Raises ValueError, TypeError or LookupError."""
    style = Style(**{**row, "code": torch.tensor(row["code"], dtype=torch.float32)})
    texts = all(isinstance(text, str) for text in (style.name, style.domain, style.model))
    if not (texts and isinstance(style.origin, dict) and style.code.ndim == 1 and style.code.isfinite().all()):
        raise ValueError
    return style


def chosen_styles(items, domains, model=None):
    """Yield (weight or None, Style) for each style of --styles. Raises UserError.

    items: paths, also with a weight in front ("0.5*path") or a name of a style behind ("path:mean_of_2").
    """
    for item in items:
        weight, path = re.fullmatch(r"(?:(\d*\.?\d+)\*)?(.+)", item).groups()
        weight, path = (None, item) if Path(item).exists() else (weight, path)
        path, name = (path, "") if Path(path).exists() or ":" not in path else path.rsplit(":", 1)
        found = [style for style in read_styles(path, domains, model) if name in ("", style.name)]
        if not found:
            raise UserError(f"Cannot use {path} (it has no style{name and f' {name}'}). Choose another one.")
        yield from ((weight and float(weight), style) for style in found)


def named_styles(items, nets, config):
    """Return the Styles of --styles, by domain. With a weight, a style moves from the mean of its domain to the style.

    Raises UserError.
    """
    domains, wanted, rows = config.names_by_label, config.target_labels(), []
    mean_of = cache(lambda label: mean_styles(nets.mapping_network, config.latent_dim, [label])[0].cpu())
    for weight, style in chosen_styles(items, domains, fingerprint(nets)):
        label, code, name = domains.index(style.domain), style.code, safe_name(style.name)
        if weight is not None:
            code, name = torch.lerp(mean_of(label), code, weight), f"{weight:g}_{name}"
        if wanted is None or label in wanted:
            rows.append((label, code, name, {"style": name, "made_of": style.origin}))
    if not rows:
        raise UserError("No style of --styles is in --target_domains. Omit --target_domains or choose other styles.")
    rows.sort(key=itemgetter(0))  # Grids and videos need the styles of a domain together.
    labels, codes, names, origins = map(list, zip(*rows, strict=True))
    codes = torch.stack(codes).to(next(nets.mapping_network.parameters()))
    return Styles(codes, labels, names=names, origins=origins)


def save(path, all_styles, nets, domains):
    """Write Styles to a file, and the mean style of each domain with several references. Return how many."""
    model, found = fingerprint(nets), []
    for styles in all_styles:
        rows = zip(styles.names, styles.labels, styles.codes.float().cpu(), styles.origins, strict=True)
        for name, label, code, origin in rows:
            name = f"seed_{origin['seed']}" if "seed" in origin else name  # noqa: PLW2901
            found.append(Style(name, domains[label], code, origin, model))
    for domain in domains:
        chosen = [style for style in found if style.domain == domain and "reference" in style.origin]
        if len(chosen) > 1:
            code = torch.stack([style.code for style in chosen]).mean(0)
            origin = {"mean": [style.origin["reference"] for style in chosen]}
            found.append(Style(f"mean_of_{len(chosen)}", domain, code, origin, model))
    write_text(Path(path), as_text(found))
    return len(found)
