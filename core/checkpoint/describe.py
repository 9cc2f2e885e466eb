"""What a checkpoint says of its networks, its domains and its training."""

import math
from itertools import count
from typing import NamedTuple

from core.checkpoint.io import CONFIG, plain_keys
from core.system.errors import UserError


class Description(NamedTuple):
    """What a checkpoint says of itself."""

    networks: dict  # the flags that describe its networks: {name: value}
    domains: list | None  # names in label order, where it knows them
    settings: dict | None = None  # flags of its training as they were saved, not checked; None: another program's file
    preset: object = None
    inherited: object = None  # not checked, see `saved_source`


def describe(states, where, assumed, given):
    """Read a Description off a checkpoint's content: from its `config` entry, else from the shapes of its tensors.

    states: name -> state dict. where: names the file in messages. assumed: {flag of the networks: value}, see
    `identify`. given: {name: value} of the flags that must agree with it. Raises UserError where they do not, or where
    the content is not a StarGAN v2 checkpoint or contradicts itself.
    """
    config = states.get(CONFIG)
    networks = {k: config.get(k, v) for k, v in assumed.items()} if config else identify(states, where, assumed)
    for name, value in networks.items():
        if type(value) is not int and not (name == "w_hpf" and type(value) is float):
            raise UserError(f"{where} is not a checkpoint of StarGAN v2: its {name} is no number; use another file")
        if given.get(name, value) != value:
            raise UserError(f"--{name} is {given[name]}, but {where} was made with {value}: leave it out")
    if not config:
        return Description(networks, domains=None)
    domains = config.get("domains")
    are_names = isinstance(domains, list) and all(isinstance(name, str) for name in domains)
    if domains is not None and not (are_names and len(domains) == networks["num_domains"]):
        raise UserError(f"{where} is not a checkpoint of StarGAN v2: its domains are no names; use another file")
    for name, value in identify(states, where, networks).items():
        if networks[name] != value:
            difference = f"its config says {name} {networks[name]}, its tensors {value}"
            raise UserError(f"{where} contradicts itself: {difference}; use another file")
    if not isinstance(config.get("settings"), dict):
        return Description(networks, domains)
    return Description(networks, domains, config["settings"], config.get("preset"), config.get("inherited"))


def saved_source(description, where):
    """What a training inherited from --init_from; None where it began by itself. Raises UserError."""
    inherited = description.inherited
    kinds = {"file": str, "domains": (list, type(None)), "discriminator": bool, "fan": bool}
    has_keys = isinstance(inherited, dict) and inherited.keys() == kinds.keys()
    if inherited is not None and not (has_keys and all(isinstance(inherited[k], kind) for k, kind in kinds.items())):
        raise UserError(f"{where} is not a checkpoint of StarGAN v2: what it began from is not told; use another file")
    return inherited


def identify(states, where, assumed):
    """Read the networks' flags off the shapes of their tensors: {name: value}.

    states: name -> state dict. assumed: values to take where shapes leave a choice. The choice changes nothing, except
    for w_hpf in a file without the constant hpf.filter, such as the official CelebA-HQ file. Raises UserError.
    """
    try:
        G, F, E = (plain_keys(states[name]) for name in ("generator", "mapping_network", "style_encoder"))
        dim, widest = len(G["from_rgb.weight"]), E["unshared.0.weight"].shape[1]
        trunk = _count(E, "shared.{}.conv2.weight", start=1)
        img_size = 4 * 2**trunk  # halved down to 4 px
        high_pass = _count(G, "encode.{}.conv1.weight") - 2 == trunk - 1  # one more halving than without
        w_hpf = float(assumed["w_hpf"] or 1) if high_pass else 0.0
        if "hpf.filter" in G:
            weight = 8 / G["hpf.filter"][1, 1].item()  # in fp32
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
        raise UserError(f"{where} is not a checkpoint of StarGAN v2: it has no {error.args[0]}; use another") from error
    except (IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        raise UserError(f"{where} is not a checkpoint of StarGAN v2: its tensors are others'; use another") from error


def _count(state, key, start=0):
    """How many blocks follow each other. key: of one of their tensors, with a place for the number."""
    return next(number for number in count(start) if key.format(number) not in state) - start
