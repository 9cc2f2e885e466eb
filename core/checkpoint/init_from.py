"""--init_from: start a training from trained networks. Domain names match the heads; new domains get new heads."""

import math
import re
from pathlib import Path

from core.checkpoint.describe import describe
from core.checkpoint.io import CONFIG, NETWORKS, found, read_data, unwrapped
from core.checkpoint.tensors import fit_state, is_dense, kind_flaw, plain_keys
from core.system import console
from core.system.errors import UserError, reason


def describe_source(path, assumed, given, domain_names=None):
    """Return the Description of the --init_from file, and what a run inherits from it.

    The latter is {"file", "domains": names in label order or None, "discriminator", "fan": whether the file has it}.
    assumed, given: see `core.checkpoint.describe`. domain_names: from --domain_names. Raises UserError.
    """
    path, states = _read(path)
    where = f"--init_from {path}"
    description = describe(states, where, assumed, given)
    number, names = description.networks["num_domains"], description.domains or domain_names
    _check_rows(states, number, where)
    if domain_names not in (None, names):
        saved, given = console.as_list(names), console.as_list(domain_names)
        raise UserError(f"--domain_names must be {saved} as in {where}, or omitted, got {given}.")
    if names and len(names) != number:
        raise UserError(f"--domain_names must be {number} names, one per domain of {where}, got {len(names)}.")
    if not names:
        hint = "To use its heads, give their names with --domain_names"
        console.warn(
            f"{where} contains no domain names. All domain-specific layers (heads) start with random weights. {hint}."
        )
    has_parts = {name: name in states for name in ("discriminator", "fan")}
    return description, {"file": str(path), "domains": names} | has_parts


def check_frozen(number, img_size, inherited):
    """Raise UserError if D has fewer than `number` blocks to freeze (--freeze_d), or does not inherit them.

    These blocks are the first convolution and the residual blocks. inherited: see `describe_source`, None without.
    """
    most = int(math.log2(img_size)) - 1
    if number and not inherited:
        raise UserError("--freeze_d only applies with --init_from. Start a training with it or remove --freeze_d.")
    if number > most:
        raise UserError(f"--freeze_d must be <= {most}, the number of blocks of D at {img_size} px, got {number}.")
    if number and not inherited["discriminator"]:
        flaw = f"D starts with random weights, since no nets file with a discriminator is beside {inherited['file']}"
        advice = "Copy the matching file ..._nets.ckpt there or remove --freeze_d"
        raise UserError(f"Cannot use --freeze_d {number} ({flaw}). {advice}.")


def _read(path):
    """Return the Path and the file's content, with the discriminator of the nets file beside it. Raises UserError."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Cannot read --init_from {path} (no such file). Give a file like 100000_nets_ema.ckpt.")
    try:
        beside = path.with_name(path.name.replace("_nets_ema", "_nets"))
        states = unwrapped(read_data(path, mapped=True))
        parts = {"discriminator": {}, "fan": {}, CONFIG: {}} | states if isinstance(states, dict) else {}
        if not all(isinstance(parts.get(name), dict) for name in (*NETWORKS, "discriminator", "fan", CONFIG)):
            entries = found(states) if isinstance(states, dict) else ""
            raise UserError(f"Cannot find {', '.join(NETWORKS)} in the file{entries}. Use another file.")
        if "discriminator" not in states and beside != path and beside.is_file():
            nets = unwrapped(read_data(beside, mapped=True))
            if isinstance(nets, dict) and isinstance(nets.get("discriminator"), dict):
                states["discriminator"] = nets["discriminator"]
    except UserError as error:
        advice = "Give a file like 100000_nets_ema.ckpt"
        raise UserError(f"Cannot use --init_from {path}: {reason(error)}. {advice}.") from error
    return path, states


def _check_rows(states, number, where):
    """Raise UserError if the last layer of D does not have one row per domain of the file."""
    state = plain_keys(states.get("discriminator", {}))
    for key in last_layer(state):
        if not (is_dense(state.get(key)) and state[key].shape[:1] == (number,)):
            flaw = f"it has {number} domains, but {key} of its discriminator has another number of rows"
            raise UserError(f"Cannot use {where} ({flaw}). Replace the _nets.ckpt file next to it.")


def load_source(nets, nets_ema, inherited, domains):
    """Load the --init_from file into networks and averages. domains: names of the run's domains. Raises UserError."""
    path, states = _read(inherited["file"])
    labels = match_heads(inherited, domains)
    names = [*NETWORKS, *(name for name in ("discriminator", "fan") if inherited[name] and name in nets)]
    fitting = {}
    for name in names:
        state = merge_state(plain_keys(states[name]), nets[name].state_dict(), labels)
        fitting[name] = fit_state(state, nets[name], f"{name} from --init_from {path}")
    for name, state in fitting.items():  # Load only after all states fit.
        nets[name].load_state_dict(state)
    for name, network in nets_ema.items():
        network.load_state_dict(nets[name].state_dict())
    print_source(inherited, domains)


def print_source(inherited, domains):
    """Print which networks and heads a training starts with."""
    labels = match_heads(inherited, domains)
    matched = [name for label, name in enumerate(domains) if label in labels]
    new = [name for label, name in enumerate(domains) if label not in labels]
    heads = f"heads of {', '.join(matched)}" if matched else "no heads, since no domain name matches"
    if new:
        heads += f"; new: {', '.join(new)}"
    console.info(f"Starting from the networks of {inherited['file']}: {heads}")
    if not inherited["discriminator"]:
        console.info("D starts with random weights, since no nets file with a discriminator is beside it")


def match_heads(inherited, domains):
    """Return {label of a domain: its label in the file} for the domain names that run and file share."""
    names = inherited["domains"] or []
    return {label: names.index(name) for label, name in enumerate(domains) if name in names}


def merge_state(state, initial, labels):
    """Return a network's state dict: heads of the file's `state` moved by `labels`, new heads from `initial`."""
    merged = {key: value for key, value in initial.items() if head_label(key) not in (None, *labels)}
    label_of = {other: label for label, other in labels.items()}
    for key, value in state.items():
        label = head_label(key)
        if label is None:
            merged[key] = value
        elif label in label_of:
            merged[key.replace(f"unshared.{label}.", f"unshared.{label_of[label]}.", 1)] = value
    for key in last_layer(initial):  # D has one row per domain.
        rows = state.get(key)
        as_in_file = initial[key][:1].expand(rows.shape[:1] + initial[key].shape[1:]) if is_dense(rows) else None
        if as_in_file is not None and not kind_flaw(rows, as_in_file):
            merged[key] = initial[key].clone()
            for label, other in labels.items():
                merged[key][label] = rows[other]
    return merged


def head_label(key):
    """Return the label of the head of F or E that a key belongs to, None for other keys."""
    match = re.match(r"unshared\.(\d+)\.", key)
    return int(match[1]) if match else None


def last_layer(state):
    """Return the keys of D's last layer, an empty list for other networks."""
    numbers = [int(key.split(".")[1]) for key in state if re.fullmatch(r"main\.\d+\..*", key)]
    return [f"main.{max(numbers)}.{kind}" for kind in ("weight", "bias")] if numbers else []
