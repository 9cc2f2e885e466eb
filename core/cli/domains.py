"""The domains of a run: the sub-folders of its images, and their names."""

from dataclasses import replace
from pathlib import Path

from core.checkpoint.steps import NETS_EMA
from core.system import console
from core.system.errors import UserError


def settle_domains(config, names, where):
    """Return the config with the sub-folders of a folder as its domains. where: the folder, in messages.

    Raises UserError where they contradict --num_domains or the domains of the checkpoint.
    """
    if config.domains is not None:
        if names != list(config.domains):
            reason = f"its sub-folders are {', '.join(names)}, but the domains are {', '.join(config.domains)}"
            raise UserError(
                f"Cannot use {where} ({reason}). Rename the sub-folders{_way_to_new_domains(config, where)}."
            )
        return config
    is_given = "num_domains" in config.given
    if (is_given or config.resume_iter) and config.num_domains != len(names):
        source = "--num_domains is" if is_given else "the checkpoint's number of domains is"
        reason = f"it has {len(names)} sub-folders ({', '.join(names)}), but {source} {config.num_domains}"
        advice = f"Change --num_domains or the folder{_way_to_new_domains(config, where, '')}"
        raise UserError(f"Cannot use {where}: {reason}. {advice}.")
    return replace(config.with_flags(num_domains=len(names)), domains=tuple(names))


def _way_to_new_domains(config, where, otherwise=" or choose another folder"):
    """Return the end of an advice: a resumed training cannot change its domains, but another one can start from it."""
    if config.mode != "train" or not config.resume_iter or not where.startswith("--train_img_dir "):
        return otherwise
    file = Path(config.checkpoint_dir, NETS_EMA.format(config.resume_iter))
    return f", or start a new training of these domains with --init_from {file} and another --checkpoint_dir"


def name_domains(config, folders):
    """Return the config of sampling with names for its domains.

    They come from the checkpoint, else from --domain_names, else from the sub-folders of the references where their
    number fits; else they are numbers. Raises UserError where names contradict each other.
    """
    names, number, saved = config.domain_names, config.num_domains, config.domains
    if names and len(names) != number:
        raise UserError(f"--domain_names must be {number} names, one per domain of the checkpoint, got {len(names)}.")
    if names and saved and names != list(saved):
        raise UserError(
            f"--domain_names must be {console.as_list(saved)}, as in the checkpoint, got {console.as_list(names)}."
        )
    if saved:
        return replace(config, domains_origin="names from the checkpoint")
    if names:
        return replace(config, domains=tuple(names), domains_origin="names from --domain_names")
    if len(folders) == number:
        origin = "names from the sub-folders of --ref_dir; the checkpoint has no names"
        return replace(config, domains=tuple(folders), domains_origin=origin)
    return replace(config, domains_origin="numbered; the checkpoint has no names")
