"""What a checkpoint knows about its networks and domains, and how flags and folders are held against it."""

import math
from contextlib import contextmanager

from core.checkpoint.io import CONFIG, plain_keys, read_checkpoint
from core.cli.args import MATHEMATICS, NETWORK_FLAGS, SETTINGS_KEPT, check_values, parse_value
from core.cli.presets import SETTINGS as PRESETS
from core.system import console
from core.system.errors import UserError


def recall(args, template, step):
    """Set the networks' flags, and args.domains where they are known, to what a step's file says."""
    states = read_checkpoint(args.checkpoint_dir, template, step, mapped=True)
    where = f"step {step} in {args.checkpoint_dir}"
    config = states.get(CONFIG)
    if not config:
        adopt_config(args, identify(states, where, vars(args)), where)
        return
    adopt_config(args, config, where)
    if args.mode == "train":
        adopt_settings(args, config, where)
    check_tensors(args, states, where)


def check_tensors(args, states, where):
    """Raise UserError where the networks' flags, taken from a file's config, are not what its tensors say."""
    for name, value in identify(states, where, vars(args)).items():
        if getattr(args, name) != value:
            raise UserError(
                f"{where} contradicts itself: its config says {name} {getattr(args, name)}, its tensors {value}; "
                "use another file"
            )


def network_config(args, step):
    """The `config` entry of a checkpoint: plain values that say what the networks are and how they are trained."""
    networks = {name: getattr(args, name) for name in (*NETWORK_FLAGS, "preset", "domains")}
    inherited = {"inherited": args.inherited} if args.inherited else {}
    return (
        networks
        | inherited
        | {
            "step": step,
            "settings": {name: parse_value(name, getattr(args, name)) for name in SETTINGS_KEPT},
        }
    )


def adopt_config(args, config, where):
    """Take the networks' flags from a checkpoint's config. A flag that was given and differs is an error."""
    for name in NETWORK_FLAGS:
        own = getattr(args, name)
        value = config.get(name, own)
        if type(value) is not int and not (name == "w_hpf" and type(value) is float):
            raise UserError(f"{where} is not a checkpoint of StarGAN v2: its {name} is no number; use another file")
        if name in args.given and own != value:
            raise UserError(f"--{name} is {own}, but {where} was made with {value}: leave it out")
        setattr(args, name, value)
    names = config.get("domains")
    if names is not None and not (
        isinstance(names, list) and len(names) == args.num_domains and all(isinstance(name, str) for name in names)
    ):
        raise UserError(f"{where} is not a checkpoint of StarGAN v2: its domains are no names; use another file")
    args.domains = names
    with _using(where):
        check_values(args)


@contextmanager
def _using(where):
    """Say of a wrong value where it came from."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where} cannot be used: {error}") from error


def adopt_settings(args, config, where):
    """Go on training with the settings that a checkpoint was made with, but for flags that are given.

    Flags that differ are listed; where they change what is computed, that takes --override. Raises UserError.
    """
    saved = config.get("settings")
    if not isinstance(saved, dict):
        return  # of another program or an earlier version: the flags count
    preset = config.get("preset") if config.get("preset") in list(PRESETS) else None
    if args.preset not in (None, preset):
        raise UserError(f"--preset is {args.preset}, but {where} was made with {preset or 'none'}: leave it out")
    args.preset = preset  # its settings are among those saved
    args.inherited = _inherited(config.get("inherited"), where)
    changed = {}
    for name in SETTINGS_KEPT:
        if name not in saved:
            continue  # unknown then
        with _using(where):
            own, value = getattr(args, name), parse_value(name, saved[name])
        if name not in args.given:
            setattr(args, name, value)
        elif own != value:
            changed[name] = f"--{name} {own} in place of {value}"
    refused = [text for name, text in changed.items() if name in MATHEMATICS]
    if refused and not args.override:
        raise UserError(
            f"{where} was made with other settings ({', '.join(refused)}): leave them out to go on with it, or add "
            "--override"
        )
    with _using(where):
        check_values(args)
    if changed:
        console.info(f"Changed since {where}: {', '.join(changed.values())}")


def _inherited(found, where):
    """What a config says of a run that began with --init_from; None of another one."""
    kinds = {"file": str, "domains": (list, type(None)), "discriminator": bool, "fan": bool}
    if found is not None and not (
        isinstance(found, dict)
        and found.keys() == kinds.keys()
        and all(isinstance(found[name], kind) for name, kind in kinds.items())
    ):
        raise UserError(f"{where} is not a checkpoint of StarGAN v2: what it began from is not told; use another file")
    return found


def identify(states, where, assumed):
    """Return the networks' flags, read off the shapes of their tensors, as a `config` entry would hold them.

    states: name -> state dict of generator, mapping_network and style_encoder. assumed: flags to take where
    shapes leave a choice, which changes nothing but for w_hpf in a file without hpf.filter, the constant
    that tells it, such as the official CelebA-HQ one. Raises UserError where it is not StarGAN v2.
    """
    try:
        G, F, E = (plain_keys(states[name]) for name in ("generator", "mapping_network", "style_encoder"))
        dim, widest = len(G["from_rgb.weight"]), E["unshared.0.weight"].shape[1]
        trunk = _count(E, "shared.{}.conv2.weight", start=1)
        img_size = 4 * 2**trunk  # halved down to 4 px
        high_pass = _count(G, "encode.{}.conv1.weight") - 2 == trunk - 1  # one more halving than without
        w_hpf = float(high_pass) * (assumed["w_hpf"] or 1)
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
    """How many blocks in a row there are, by a key with a place for the number."""
    number = start
    while key.format(number) in state:
        number += 1
    return number - start


def settle_domains(args, found, where):
    """Hold the sub-folders found in `where` against --num_domains and the checkpoint's domains.

    Sets args.num_domains (counted where nothing says it) and args.domains. Raises UserError.
    """
    if args.domains is not None:
        if found != args.domains:
            raise UserError(
                f"{where} has the sub-folders {', '.join(found)}, but the domains are {', '.join(args.domains)}: "
                "make them the same, or give another folder"
            )
        return
    if ("num_domains" in args.given or args.resume_iter) and args.num_domains != len(found):
        said = "--num_domains is" if "num_domains" in args.given else "the checkpoint's number of domains is"
        raise UserError(
            f"{said} {args.num_domains}, but {where} has {len(found)} sub-folders "
            f"({', '.join(found)}): make the two agree"
        )
    args.num_domains, args.domains = len(found), found


def name_domains(args, found):
    """Set args.domains, for sampling: as the checkpoint names them, else --domain_names, else the sub-folders
    `found` with the references where there are as many, else numbers. Returns which, as a text."""
    given, number = args.domain_names, args.num_domains
    if given and len(given) != number:
        raise UserError(f"--domain_names has {len(given)} names, but the checkpoint has {number} domains: name each")
    if given and args.domains and given != args.domains:
        raise UserError(
            f"--domain_names is {','.join(given)}, but the checkpoint has {','.join(args.domains)}: leave it out"
        )
    numbers = [str(label) for label in range(number)]
    choices = {
        "as the checkpoint names them": args.domains,
        "named by --domain_names": given,
        "named as the sub-folders of --ref_dir, since the checkpoint knows no names": found * (len(found) == number),
        "numbered, since the checkpoint knows no names": numbers,
    }
    origin = next(origin for origin, names in choices.items() if names)
    args.domains = choices[origin]
    return origin


def target_labels(targets, domains):
    """Labels of --target_domains, in their order; None where it was left out. Raises UserError."""
    if targets is None:
        return None
    unknown = [name for name in targets if name not in domains]
    if unknown:
        unnamed = domains == [str(label) for label in range(len(domains))]
        hint = "; to choose by name, name them in label order by --domain_names" if unnamed else ""
        raise UserError(f"--target_domains {','.join(unknown)}: choose of the domains {', '.join(domains)}{hint}")
    return [domains.index(name) for name in targets]
