"""The settings of a checkpoint's networks, domains and training."""

import math
from itertools import count
from typing import NamedTuple

from core.checkpoint.io import CONFIG, NETWORKS, found
from core.checkpoint.tensors import plain_keys
from core.system.errors import UserError


class Description(NamedTuple):
    """The settings stored in a checkpoint."""

    networks: dict  # the flags that define its networks: {name: value}
    domains: list | None  # names in label order, None if unknown
    settings: dict | None = None  # saved flags of its training, not validated; None: file of another program
    preset: object = None
    inherited: object = None  # not validated, see `saved_source`
    images: object = None  # not validated, see `core.images.inventory`
    resize: str | None = None  # how the training images were made square: crop, pad or, unknown, None


def describe(states, where, assumed, given):
    """Return the Description of a checkpoint, from its `config` entry or else from the shapes of its tensors.

    states: name -> state dict. where: the file's name in messages. assumed: {flag of the networks: value}, see
    `identify`. given: {name: value} of the flags that must agree with the checkpoint. Raises UserError if they do not
    agree, if the content is not a StarGAN v2 checkpoint, or if its config contradicts its tensors.
    """
    config = states.get(CONFIG)
    networks = {k: config.get(k, v) for k, v in assumed.items()} if config else identify(states, where, assumed)
    for name, value in networks.items():
        if type(value) is not int and not (name == "w_hpf" and type(value) is float):
            raise _foreign(where, f"its {name} is invalid")
        if given.get(name, value) != value:
            raise UserError(f"--{name} must be {value} as in {where}, or omitted, got {given[name]}.")
    if not config:
        return Description(networks, domains=None)
    domains = config.get("domains")
    are_names = isinstance(domains, list) and all(isinstance(name, str) for name in domains)
    if domains is not None and not (are_names and len(domains) == networks["num_domains"]):
        raise _foreign(where, "its domain names are invalid")
    for name, value in identify(states, where, networks).items():
        if networks[name] != value:
            difference = f"{name} is {networks[name]} in its config, but {value} in its tensors"
            raise UserError(f"Cannot use {where} ({difference}). Use another file.")
    resize = config.get("resize") if config.get("resize") in ("crop", "pad") else None
    if not _is_plain(config.get("settings")):
        raise _foreign(where, "its settings are invalid")
    if not isinstance(config.get("settings"), dict):
        return Description(networks, domains, resize=resize)
    others = {name: config.get(name) for name in ("preset", "inherited", "images")}
    return Description(networks, domains, config["settings"], resize=resize, **others)


def _is_plain(value, depth=3):
    """Whether a value consists of texts, numbers and None, in lists and dicts of limited depth."""
    if isinstance(value, (dict, list, tuple)):
        values = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_plain(inner, depth - 1) for inner in values)
    return value is None or type(value) in (str, int, float, bool)


def saved_source(description, where):
    """Return what a training inherited from --init_from, None if nothing. Raises UserError."""
    inherited = description.inherited
    kinds = {"file": str, "domains": (list, type(None)), "discriminator": bool, "fan": bool}
    has_keys = isinstance(inherited, dict) and inherited.keys() == kinds.keys()
    if inherited is not None and not (has_keys and all(isinstance(inherited[k], kind) for k, kind in kinds.items())):
        raise _foreign(where, "its entry 'inherited' is invalid")
    return inherited


def identify(states, where, assumed):
    """Return the networks' flags {name: value}, derived from the shapes of their tensors.

    states: name -> state dict. assumed: values to use where several fit the shapes. They all give the same networks,
    except for w_hpf in a file without the constant hpf.filter (the official CelebA-HQ file). Raises UserError.
    """
    missing = [name for name in NETWORKS if name not in states]
    if missing:
        raise _foreign(where, f"no entry {', '.join(missing)}{found(states)}")
    try:
        G, F, E = (plain_keys(states[name]) for name in NETWORKS)
        dim, widest = len(G["from_rgb.weight"]), E["unshared.0.weight"].shape[1]
        trunk = _count(E, "shared.{}.conv2.weight", start=1)
        img_size = 4 * 2**trunk  # The style encoder halves the image down to 4 px.
        high_pass = _count(G, "encode.{}.conv1.weight") - 2 == trunk - 1  # one halving more than without the filter
        w_hpf = float(assumed["w_hpf"] or 1) if high_pass else 0.0
        if "hpf.filter" in G:
            weight = 8 / G["hpf.filter"][1, 1].detach().item()  # in fp32
            w_hpf = w_hpf if math.isclose(w_hpf, weight, rel_tol=1e-5) else float(f"{weight:.6g}")
        base, most = assumed["channel_base"], assumed["max_conv_dim"]
        hidden_dim, latent_dim = F["shared.0.weight"].shape
        return {
            "img_size": img_size,
            "num_domains": _count(F, "unshared.{}.0.weight"),
            "latent_dim": latent_dim,
            "hidden_dim": hidden_dim,
            "style_dim": len(F["unshared.0.6.weight"]),
            "w_hpf": w_hpf,
            "channel_base": base if base // img_size == dim else dim * img_size,
            "max_conv_dim": most if widest == min(dim * 2**trunk, most) else widest,
        }
    except KeyError as error:
        raise _foreign(where, f"no {error.args[0]}") from error
    except (IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        raise _foreign(where, "its tensors have unexpected names or shapes") from error


def _foreign(where, flaw):
    return UserError(f"Cannot use {where} (not a StarGAN v2 checkpoint: {flaw}). Use another file.")


def _count(state, key, start=0):
    """Return the number of consecutive blocks. key: template of a tensor's name, with {} for the block's number."""
    return next(number for number in count(start) if key.format(number) not in state) - start
