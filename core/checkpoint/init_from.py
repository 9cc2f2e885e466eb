"""--init_from: a training starts from trained networks. Heads go by the names of domains; new domains get new ones."""

import re
from pathlib import Path

import torch

from core.checkpoint.describe import describe
from core.checkpoint.io import CONFIG, fit_state, plain_keys, read_data
from core.system import console
from core.system.errors import UserError

AVERAGED = ("generator", "mapping_network", "style_encoder")


def describe_source(path, assumed, given, domain_names=None):
    """What the file of --init_from says of itself -> (Description, what a run inherits from it).

    The latter is {"file", "domains": names in label order or None, "discriminator", "fan": whether it has them}.
    assumed, given: see `core.checkpoint.describe`. domain_names: those of the flag. Raises UserError.
    """
    path, states = _read(path)
    where = f"--init_from {path}"
    description = describe(states, where, assumed, given)
    number, names = description.networks["num_domains"], description.domains or domain_names
    _check_rows(states, number, where)
    if domain_names not in (None, names):
        raise UserError(f"--domain_names is {','.join(domain_names)}, but {where} has {','.join(names)}: leave it out")
    if names and len(names) != number:
        raise UserError(f"--domain_names has {len(names)} names, but {where} has {number} domains: name each")
    if not names:
        hint = "so their heads start anew: --domain_names can name them"
        console.warn(f"{where} does not know its domains' names, {hint}")
    has_parts = {name: name in states for name in ("discriminator", "fan")}
    return description, {"file": str(path), "domains": names} | has_parts


def is_source(path, inherited):
    """Whether a path is the file that a run started from."""
    return inherited is not None and Path(inherited["file"]).resolve() == Path(path).resolve()


def _read(path):
    """The Path and what the file holds, with the discriminator of the nets file beside it. Raises UserError."""
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"{path} does not exist: give a file such as 100000_nets_ema.ckpt")
        beside = path.with_name(path.name.replace("_nets_ema", "_nets"))
        states = read_data(path, mapped=True)
        parts = {"discriminator": {}, "fan": {}, CONFIG: {}} | states if isinstance(states, dict) else {}
        if not all(isinstance(parts.get(name), dict) for name in (*AVERAGED, "discriminator", "fan", CONFIG)):
            raise UserError(f"{path} is not a checkpoint with {', '.join(AVERAGED)}: give one with averages")
        if "discriminator" not in states and beside != path and beside.is_file():
            nets = read_data(beside, mapped=True)
            if isinstance(nets, dict) and isinstance(nets.get("discriminator"), dict):
                states["discriminator"] = nets["discriminator"]
    except UserError as error:
        raise UserError(f"--init_from {error}") from error
    return path, states


def _check_rows(states, number, where):
    """Raise UserError where the last layer of D has not a row for each of the file's domains."""
    state = plain_keys(states.get("discriminator", {}))
    for key in last_layer(state):
        if not (isinstance(state.get(key), torch.Tensor) and state[key].shape[:1] == (number,)):
            flaw = f"its discriminator, perhaps of the nets file beside it, has not as many rows in {key}"
            raise UserError(f"{where} has {number} domains, but {flaw}: put the one beside it that belongs to it")


def load_source(nets, nets_ema, inherited, domains):
    """Load the file of --init_from into the networks and averages. domains: names of the run's. Raises UserError."""
    path, states = _read(inherited["file"])
    labels = match_heads(inherited, domains)
    names = [*AVERAGED, *(name for name in ("discriminator", "fan") if inherited[name] and name in nets)]
    fitting = {}
    for name in names:
        state = merge_state(plain_keys(states[name]), nets[name].state_dict(), labels)
        fitting[name] = fit_state(state, nets[name], f"--init_from {path}, {name}")
    for name, state in fitting.items():  # nothing is loaded before all of it fits
        nets[name].load_state_dict(state)
    for name, network in nets_ema.items():
        network.load_state_dict(nets[name].state_dict())
    print_source(inherited, domains)


def print_source(inherited, domains):
    """Print what a training begins with."""
    labels = match_heads(inherited, domains)
    matched = [name for label, name in enumerate(domains) if label in labels]
    new = [name for label, name in enumerate(domains) if label not in labels]
    heads = f"heads of {', '.join(matched)}" if matched else "no heads, since no domain has a name that it knows"
    if new:
        heads += f"; new: {', '.join(new)}"
    console.info(f"Begins with the networks of {inherited['file']}: {heads}")
    if not inherited["discriminator"]:
        console.info("D starts anew, since there is no file of nets with one beside it")


def match_heads(inherited, domains):
    """{label of a domain: its label in the file} of the domains whose names both have."""
    names = inherited["domains"] or []
    return {label: names.index(name) for label, name in enumerate(domains) if name in names}


def merge_state(state, initial, labels):
    """A network's state dict from that of a file: heads moved by `match_heads`' labels, new ones from `initial`."""
    merged = {key: value for key, value in initial.items() if head_label(key) not in (None, *labels)}
    label_of = {other: label for label, other in labels.items()}
    for key, value in state.items():
        label = head_label(key)
        if label is None:
            merged[key] = value
        elif label in label_of:
            merged[key.replace(f"unshared.{label}.", f"unshared.{label_of[label]}.", 1)] = value
    for key in last_layer(initial):  # of D: a row for each domain
        rows = state.get(key)
        if isinstance(rows, torch.Tensor) and rows.shape[1:] == initial[key].shape[1:]:
            merged[key] = initial[key].clone()
            for label, other in labels.items():
                merged[key][label] = rows[other]
    return merged


def head_label(key):
    """The label of the head of F or E that a key belongs to; None for other keys."""
    match = re.match(r"unshared\.(\d+)\.", key)
    return int(match[1]) if match else None


def last_layer(state):
    """The keys of D's last layer; none for other networks."""
    numbers = [int(key.split(".")[1]) for key in state if re.fullmatch(r"main\.\d+\..*", key)]
    return [f"main.{max(numbers)}.{kind}" for kind in ("weight", "bias")] if numbers else []
