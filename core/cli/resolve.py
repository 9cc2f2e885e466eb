"""From the flags on the command line to one resolved configuration: which step, which domains, which images."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from core.checkpoint.describe import describe, saved_source
from core.checkpoint.init_from import describe_source, is_source
from core.checkpoint.io import newest_step, read_checkpoint
from core.checkpoint.resume import check_whole, step_to_resume
from core.checkpoint.steps import NETS_EMA
from core.cli.config import RunConfig, merge
from core.cli.flags import AFFECTS_RESULTS, NETWORK_FLAGS, RESUMED_FLAGS, check_values, parse_value
from core.cli.presets import SETTINGS
from core.images.check import check_images
from core.images.folders import domain_names, sub_folders
from core.system import console
from core.system.distributed import has_begun, local_batch_size, on_main_process
from core.system.errors import UserError


def resolve(given):
    """The RunConfig of the flags on a command line, {name: value}; the same in all processes. Raises UserError where
    checkpoint, folders or images do not suit the flags."""
    work = {"train": _training, "sample": _sampling, "eval": _evaluation, "align": RunConfig.from_given}[given["mode"]]
    fields = on_main_process(lambda: vars(work(given)))  # plain values, which processes can exchange
    return RunConfig(**fields | {"skipped_images": frozenset(map(Path, fields["skipped_images"]))})


def _training(given):
    """A training. If its last iteration is done, nothing but its flags is resolved."""
    flags = merge(given)
    folder, is_latest = Path(flags["checkpoint_dir"]), flags["resume_iter"] == "latest" or has_begun()
    step = step_to_resume(folder, "latest" if is_latest else flags["resume_iter"], mend=not flags["dry_run"])
    config = config_of_step(given, step) if step else beginning_config(given)
    if step and not is_latest:
        check_whole(folder, step)
    if step >= config.total_iters:
        if not is_latest:
            raise UserError(f"step {step} has reached --total_iters {config.total_iters}: raise --total_iters")
        console.info(f"Step {step} in {folder} is the last one: nothing is left to do")
        return config
    if step and config.init_from is not None and not is_source(config.init_from, config.inherited):
        console.warn(f"--init_from {config.init_from} is ignored, since training goes on from step {step}")
    if config.w_hpf > 0 and not step and not (config.inherited and config.inherited["fan"]):
        from core.wing import find_wing  # only faces need it

        find_wing(config.wing_path)
    local_batch_size(config.batch_size)  # raises where the processes cannot share the batch
    config = _with_domains(config)
    return replace(config, skipped_images=_unreadable_images(config))


def _sampling(given):
    config = loaded_config(given)
    needs_names = "ref_dir" in given or "reference" in config.all_style_kinds()
    return name_domains(config, sub_folders(config.ref_dir) if needs_names else [])


def _evaluation(given):
    return _with_domains(loaded_config(given))


def loaded_config(given):
    """A run that loads a step and trains nothing: the newest step where none is asked for."""
    flags = merge(given)
    if flags["resume_iter"] in (0, "latest"):
        return config_of_step(given, newest_step(flags["checkpoint_dir"], NETS_EMA))
    return config_of_step(given, flags["resume_iter"])


def config_of_step(given, step):
    """A run that loads a step. A training continues with the settings that the step was made with."""
    flags = merge(given)
    where = f"step {step} in {flags['checkpoint_dir']}"
    states = read_checkpoint(flags["checkpoint_dir"], NETS_EMA, step, mapped=True)
    description = describe(states, where, {name: flags[name] for name in NETWORK_FLAGS}, given)
    settings, inherited = {}, None
    if given["mode"] == "train" and description.settings is not None:  # None: another program's or an earlier file
        settings, inherited = saved_settings(given, description, where), saved_source(description, where)
    config = RunConfig.from_given(given, settings, domains=description.domains, inherited=inherited)
    return _checked(config.with_flags(resume_iter=step, **description.networks), where)


def beginning_config(given):
    """A training that begins: with networks of its own, or with those of --init_from."""
    config = RunConfig.from_given(given).with_flags(resume_iter=0)
    if config.init_from is None:
        unused = ", ".join(f"--{name}" for name in sorted({"init_iters", "init_lr_scale"} & given.keys()))
        if unused:
            raise UserError(f"{unused} says how what --init_from gives is to learn: give that, too, or leave it out")
        return config
    if "init_lr_scale" in given and not config.init_iters:
        raise UserError(
            "--init_lr_scale counts for the first --init_iters iterations, of which there are none: give both"
        )
    if Path(config.init_from).resolve().parent == Path(config.checkpoint_dir).resolve():
        raise UserError(
            f"--init_from {config.init_from} lies in --checkpoint_dir, whose steps a training that begins sets aside: "
            "give it another --checkpoint_dir, or go on from that step with --resume_iter"
        )
    assumed = {name: config.flags[name] for name in NETWORK_FLAGS}
    must_agree = {name: value for name, value in given.items() if name != "num_domains"}  # heads are matched by name
    description, inherited = describe_source(config.init_from, assumed, must_agree, config.domain_names)
    networks = {name: value for name, value in description.networks.items() if name != "num_domains"}
    config = RunConfig.from_given(given, inherited=inherited).with_flags(resume_iter=0, **networks)
    return _checked(config, f"--init_from {inherited['file']}")


def saved_settings(given, description, where):
    """A checkpoint's flags of the training. Raises UserError where one was given that changes results, but for
    --override; other flags that differ are listed."""
    preset = description.preset if description.preset in list(SETTINGS) else None
    if given.get("preset") not in (None, preset):
        raise UserError(f"--preset is {given['preset']}, but {where} was made with {preset or 'none'}: leave it out")
    with _naming(where):
        saved = {name: parse_value(name, description.settings[name])
                 for name in RESUMED_FLAGS if name in description.settings}  # fmt: skip
    differing = [name for name, value in saved.items() if given.get(name, value) != value]
    changed = {name: f"--{name} {given[name]} in place of {saved[name]}" for name in differing}
    refused = [text for name, text in changed.items() if name in AFFECTS_RESULTS]
    if refused and not given.get("override"):
        raise UserError(
            f"{where} was made with other settings ({', '.join(refused)}): leave them out to go on with it, or add "
            "--override"
        )
    if changed:
        console.info(f"Changed since {where}: {', '.join(changed.values())}")
    return saved | {"preset": preset}  # the preset's own settings are among those saved


def _checked(config, where):
    with _naming(where):
        check_values(config.flags)
    return config


@contextmanager
def _naming(where):
    """Say of a wrong value which checkpoint it comes from."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where} cannot be used: {error}") from error


def _with_domains(config):
    """The config with the domains that the training and validation folders have. Raises UserError where they differ."""
    for flag in ("train_img_dir", "val_img_dir"):
        folder = config.flags[flag]
        config = settle_domains(config, domain_names(folder, flag), f"--{flag} {folder}")
    if Path(config.train_img_dir).resolve() == Path(config.val_img_dir).resolve():
        console.warn(
            "--train_img_dir and --val_img_dir are the same: pictures of a run then show what it has learned from"
        )
    return config


def settle_domains(config, names, where):
    """The config with the sub-folders of a folder, `where` in messages, as its domains. Raises UserError where they
    contradict --num_domains or domains that are known."""
    if config.domains is not None:
        if names != list(config.domains):
            raise UserError(
                f"{where} has the sub-folders {', '.join(names)}, but the domains are {', '.join(config.domains)}: "
                "make them the same, or give another folder"
            )
        return config
    is_given = "num_domains" in config.given
    if (is_given or config.resume_iter) and config.num_domains != len(names):
        source = "--num_domains is" if is_given else "the checkpoint's number of domains is"
        raise UserError(
            f"{source} {config.num_domains}, but {where} has {len(names)} sub-folders "
            f"({', '.join(names)}): make the two agree"
        )
    return replace(config.with_flags(num_domains=len(names)), domains=tuple(names))


def name_domains(config, folders):
    """The config of sampling with names for its domains: those of the checkpoint, else --domain_names, else those of
    the references' sub-folders where there are as many, else numbers. Raises UserError where names contradict."""
    names, number, saved = config.domain_names, config.num_domains, config.domains
    if names and len(names) != number:
        raise UserError(f"--domain_names has {len(names)} names, but the checkpoint has {number} domains: name each")
    if names and saved and names != list(saved):
        raise UserError(f"--domain_names is {','.join(names)}, but the checkpoint has {','.join(saved)}: leave it out")
    if saved:
        return replace(config, domains_origin="as the checkpoint names them")
    if names:
        return replace(config, domains=tuple(names), domains_origin="named by --domain_names")
    if len(folders) == number:
        origin = "named as the sub-folders of --ref_dir, since the checkpoint knows no names"
        return replace(config, domains=tuple(folders), domains_origin=origin)
    return replace(config, domains_origin="numbered, since the checkpoint knows no names")


def _unreadable_images(config):
    """Training and validation images that cannot be read, as texts. Raises UserError where they are too many."""
    unreadable = []
    for flag in ("train_img_dir", "val_img_dir"):
        cache = Path(config.checkpoint_dir, f".{flag}.json")
        folder = config.flags[flag]
        unreadable += check_images(folder, flag, config.img_size, cache, config.num_workers, config.dry_run)
    return list(map(str, unreadable))
