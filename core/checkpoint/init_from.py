"""Training that starts from trained networks, --init_from: what they give, and how slowly that may change at first.

Trunks are taken as they are. Heads belong to domains, so those of domains of the same name are taken, wherever they
stand, and the others stay as they are initialised.
"""

import argparse
import re
from pathlib import Path

import torch

from core.checkpoint.describe import adopt_config, check_tensors, identify
from core.checkpoint.io import CONFIG, check_finite, fit_state, plain_keys, read_data
from core.cli.args import NETWORK_FLAGS
from core.system import console
from core.system.errors import UserError

AVERAGED = ("generator", "mapping_network", "style_encoder")


def adopt(args):
    """Take the networks' flags from the file args.init_from; return what is known of it.

    That is {"file", "domains": names in label order, or None, "discriminator", "fan": whether it has them}. Raises
    UserError where there is no such file, it contradicts itself, or flags that were given differ from it.
    """
    path, states = read(args)
    where = f"--init_from {path}"
    of_file = argparse.Namespace(**vars(args) | {"given": args.given - {"num_domains"}})
    adopt_config(of_file, states.get(CONFIG) or identify(states, where, vars(args)), where)
    check_tensors(of_file, states, where)
    _check_rows(states, of_file.num_domains, where)
    for name in NETWORK_FLAGS:
        if name != "num_domains":
            setattr(args, name, getattr(of_file, name))
    names, number = of_file.domains or args.domain_names, of_file.num_domains
    if args.domain_names not in (None, names):
        raise UserError(
            f"--domain_names is {','.join(args.domain_names)}, but {where} has {','.join(names)}: leave it out"
        )
    if names and len(names) != number:
        raise UserError(f"--domain_names has {len(names)} names, but {where} has {number} domains: name each")
    if not names:
        console.warn(
            f"{where} does not know its domains' names, so their heads start anew: --domain_names can name them"
        )
    return {"file": str(path), "domains": names, "discriminator": "discriminator" in states, "fan": "fan" in states}


def read(args):
    """The path args.init_from and what the file holds, with the discriminator of the nets file beside it.

    Raises UserError where it is no file of StarGAN v2.
    """
    path = Path(args.init_from)
    if not path.is_file():
        raise UserError(f"--init_from {path} does not exist: give a file such as 100000_nets_ema.ckpt")
    states = _data(path)
    parts = {"discriminator": {}, "fan": {}, CONFIG: {}} | states if isinstance(states, dict) else {}
    if not all(isinstance(parts.get(name), dict) for name in (*AVERAGED, "discriminator", "fan", CONFIG)):
        raise UserError(f"--init_from {path} is not a checkpoint with {', '.join(AVERAGED)}: give one with averages")
    beside = path.with_name(path.name.replace("_nets_ema", "_nets"))
    if "discriminator" not in states and beside != path and beside.is_file():
        found = _data(beside)
        if isinstance(found, dict) and isinstance(found.get("discriminator"), dict):
            states["discriminator"] = found["discriminator"]
    return path, states


def _data(path):
    try:
        return read_data(path, mapped=True)
    except UserError as error:
        raise UserError(f"--init_from {error}") from error


def _check_rows(states, number, where):
    """Raise UserError where the last layer of D has not a row for each of the file's domains."""
    state = plain_keys(states.get("discriminator", {}))
    for key in _last(state):
        if not (isinstance(state.get(key), torch.Tensor) and state[key].shape[:1] == (number,)):
            raise UserError(
                f"{where} has {number} domains, but its discriminator, perhaps of the nets file beside it, has not as "
                f"many rows in {key}: put the one beside it that belongs to it"
            )


def load(nets, nets_ema, args):
    """Load what args.init_from has into the networks, and make the averages equal to them. Raises UserError.

    args.inherited: as from `adopt`. The face network is loaded where the file has one.
    """
    path, states = read(args)
    labels, known = heads(args), args.inherited
    names = [name for name in (*AVERAGED, "discriminator") if known["discriminator"] or name in AVERAGED]
    fitting = {}
    for name in [*names, "fan"] if known["fan"] and "fan" in nets else names:
        where = f"--init_from {path}, {name}"
        fitting[name] = fit_state(merged(plain_keys(states[name]), nets[name].state_dict(), labels), nets[name], where)
        check_finite(fitting[name], where)
    for name, state in fitting.items():  # nothing is loaded before all of it fits
        nets[name].load_state_dict(state)
    for name, network in nets_ema.items():
        network.load_state_dict(nets[name].state_dict())
    tell(args)


def tell(args):
    """Say what training begins with."""
    file, labels = args.inherited["file"], heads(args)
    kept = [name for label, name in enumerate(args.domains) if label in labels]
    new = [name for name in args.domains if name not in kept]
    heads_of = f"heads of {', '.join(kept)}" if kept else "no heads, since no domain has a name that it knows"
    console.info(f"Begins with the networks of {file}: {heads_of}{'; new: ' * bool(new)}{', '.join(new)}")
    if not args.inherited["discriminator"]:
        console.info("D starts anew, since there is no file of nets with one beside it")


def heads(args):
    """{label of a domain: its label in the file} of the domains that both have."""
    known = args.inherited["domains"] or []
    return {label: known.index(name) for label, name in enumerate(args.domains) if name in known}


def merged(state, own, labels):
    """A network's state dict from a file's, with heads in this run's places, new ones from its `own` state dict."""
    out = {key: value for key, value in own.items() if _head(key)[0] not in (None, *labels)}
    places = {other: label for label, other in labels.items()}
    for key, value in state.items():
        label, rest = _head(key)
        if label is None:
            out[key] = value
        elif label in places:
            out[f"unshared.{places[label]}.{rest}"] = value
    for key in _last(own):  # of D: a row for each domain
        there = state.get(key)
        if isinstance(there, torch.Tensor) and there.shape[1:] == own[key].shape[1:]:
            out[key] = own[key].clone()
            for label, other in labels.items():
                out[key][label] = there[other]
    return out


def _head(key):
    """(label, rest) of a key of a head of F or E; (None, "") of another one."""
    found = re.fullmatch(r"unshared\.(\d+)\.(.+)", key)
    return (int(found[1]), found[2]) if found else (None, "")


def _last(state):
    """The keys of D's last layer; none for other networks."""
    numbers = [int(key.split(".")[1]) for key in state if re.fullmatch(r"main\.\d+\..*", key)]
    return [f"main.{max(numbers)}.{kind}" for kind in ("weight", "bias")] if numbers else []
