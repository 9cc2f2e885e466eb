"""From the flags on the command line to one resolved configuration: which step, which domains, which images."""

import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from core.checkpoint.describe import describe, saved_source
from core.checkpoint.init_from import check_frozen, describe_source
from core.checkpoint.io import newest_step, read_checkpoint, saved_steps
from core.checkpoint.resume import find_flaw, newest_whole_step
from core.checkpoint.steps import NETS_EMA
from core.cli.config import RunConfig, merge
from core.cli.domains import name_domains, settle_domains
from core.cli.flags import (
    AFFECTS_RESULTS,
    NETWORK_FLAGS,
    ON_ALL_RANKS,
    RESUMED_FLAGS,
    SINGLE_OUTPUTS,
    check_values,
    parse_flag,
)
from core.cli.presets import DATA_SETS, MODELS, SETTINGS, SHIPPED, asset, preset_defaults
from core.cli.values import as_typed
from core.images.check import check_images
from core.images.folders import domain_names, prepared_resize, sub_folders
from core.system import console
from core.system.distributed import check_same, has_begun, local_batch_size, on_main_process
from core.system.errors import UserError
from core.system.files import real_path


def check_same_flags(given):
    """Raise UserError if the processes of a run were started with flags that give different results."""
    flags = merge(given)
    check_same({name: flags[name] for name in ON_ALL_RANKS}, as_typed)


def resolve(given):
    """Return the RunConfig of the flags on a command line, {name: value}; the same in all processes.

    Raises UserError where the checkpoint, the folders or the images do not suit the flags.
    """
    work = {"train": _training, "sample": _sampling, "eval": _evaluation, "align": RunConfig.from_given,
            "play": _playing}[given["mode"]]  # fmt: skip
    fields = on_main_process(lambda: vars(work(given)))  # plain values, which processes can exchange
    return RunConfig(**fields | {"skipped_images": frozenset(map(Path, fields["skipped_images"]))})


def _training(given):
    """Resolve a training. If its last iteration is done, only its flags are resolved."""
    flags = merge(given)
    folder, is_latest = Path(flags["checkpoint_dir"]), flags["resume_iter"] == "latest" or has_begun()
    step = newest_whole_step(folder, mend=not flags["dry_run"]) if is_latest else flags["resume_iter"]
    config = config_of_step(given, step) if step else beginning_config(given)
    if step and not is_latest and (flaw := find_flaw(folder, step)):
        raise UserError(f"Cannot resume from step {step} in {folder}: {flaw}. Use another step or restore its files.")
    if step >= config.total_iters:
        if not is_latest:
            raise UserError(f"--total_iters must be > {step}, the step to resume from, got {config.total_iters}.")
        console.info(f"Training is complete: step {step} in {folder} is the last one.")
        return config
    source = config.inherited and real_path(config.inherited["file"])
    if step and config.init_from is not None and real_path(config.init_from) != source:
        console.warn(f"Ignoring --init_from {config.init_from}: training resumes from step {step}.")
    local_batch_size(config.batch_size)  # raises where the processes cannot share the batch
    check_frozen(config.freeze_d, config.img_size, config.inherited)
    if "augment_prob" in given and config.augment != "fixed":
        raise UserError("--augment_prob only applies with --augment fixed. Use that or remove --augment_prob.")
    config = _with_domains(config)
    config = replace(config, data_resize=prepared_resize(config.train_img_dir))
    if not step:
        _check_faces(config)
    return replace(config, skipped_images=_unreadable_images(config))


def _check_faces(config):
    """Raise UserError where the face network is needed and missing; warn where images are probably not faces."""
    if not config.w_hpf or (config.inherited and config.inherited["fan"]):
        return
    is_default = not {"w_hpf", "preset", "init_from"} & set(config.given)
    if is_default and set(config.domains) != {"female", "male"}:
        console.warn("Using --w_hpf 1, the default, which only suits aligned faces. For other images, add --w_hpf 0.")
    from core.wing import find_wing  # only faces need it

    find_wing(config.wing_path)


def _sampling(given):
    config = loaded_config(given)
    kinds = config.all_style_kinds()
    _warn_about_unused(config, kinds)
    demo = "or add --preset demo for the included images"
    _check_default_folder(config, "src_dir", "images to translate", f"Pass --src_dir, {demo}.")
    if "reference" in kinds:
        _check_default_folder(config, "ref_dir", "references", f"Pass --ref_dir, {demo}.")
    is_named = any(not name.isdecimal() for name in given.get("target_domains") or ())
    needs_names = is_named or "ref_dir" in given or "reference" in kinds
    return name_domains(config, sub_folders(config.ref_dir, config.result_dir) if needs_names else [])


def _playing(given):
    config = name_domains(loaded_config(given), [])
    is_chosen = "resize" in given or config.resize != "stretch"
    return config if is_chosen else config.with_flags(resize="crop")


def _check_default_folder(config, name, what, advice):
    """Raise UserError if a folder is missing that no flag on the command line names."""
    folder = config.flags[name]
    if name not in config.given and not Path(folder).exists():
        raise UserError(f"No {what} in {folder} (there is no such folder). {advice}")


def _warn_about_unused(config, kinds):
    """Warn about flags that no output of sampling uses. kinds: the kinds of styles that outputs use."""
    random = "For random styles, add latent, video_latent or images_latent."
    random = "For random styles beside --styles, add --seeds." if config.styles else random
    references = "For the styles of references, add reference, video_ref or images."
    files = f"Only {', '.join(SINGLE_OUTPUTS)} do."
    for name, uses, advice in (
        ("seeds", {"seed"}, random),
        ("psi", {"seed"}, random),
        ("ref_dir", {"reference"}, references),
        ("mirror", set(SINGLE_OUTPUTS), files),
        ("restore_shape", set(SINGLE_OUTPUTS), files),
        ("format", {"images", "images_latent"}, "Only images and images_latent do."),
    ):
        if name in config.given and not uses & {*kinds, *config.outputs}:
            console.warn(f"Ignoring --{name}: --outputs {','.join(config.outputs)} does not use it. {advice}")
    squares = [output for output in config.outputs if output not in SINGLE_OUTPUTS]
    if config.resize == "keep" and squares:
        console.warn(f"Cropping images to squares for --outputs {','.join(squares)}, in spite of --resize keep.")


def _evaluation(given):
    config = _with_domains(loaded_config(given))
    return replace(config, skipped_images=_unreadable_images(config))


def loaded_config(given):
    """Resolve a run that loads a step and trains nothing; without --resume_iter, the newest step."""
    given = _with_own_demo(with_checkpoint(given))
    flags = merge(given)
    if flags["resume_iter"] in (0, "latest"):
        if "checkpoint_dir" not in given and not saved_steps(Path(flags["checkpoint_dir"]), NETS_EMA):
            remedy = MODELS.get(flags["preset"], "add --preset demo for the included model")
            raise UserError(f"No checkpoint in {flags['checkpoint_dir']}. Train first, pass --checkpoint, or {remedy}.")
        return config_of_step(given, newest_step(flags["checkpoint_dir"], NETS_EMA))
    return config_of_step(given, flags["resume_iter"])


def with_checkpoint(given):
    """Return the flags with --checkpoint split into --checkpoint_dir and --resume_iter. Raises UserError."""
    if "checkpoint" not in given:
        return given
    others = ", ".join(f"--{name}" for name in ("checkpoint_dir", "resume_iter") if name in given)
    if others:
        raise UserError(f"Cannot use --checkpoint and {others} at once. Remove --checkpoint or {others}.")
    path = Path(asset(given["checkpoint"]))
    name = re.fullmatch(r"(\d{6,})_(nets|nets_ema|optims)\.ckpt", path.name)
    if not path.exists():
        raise UserError(f"Cannot read --checkpoint {path} (no such file or folder). Check the path.")
    if not name and not path.is_dir():
        raise UserError(f"--checkpoint must be a folder, or a file named like 015000_nets_ema.ckpt, got {path}.")
    if path.is_dir() and not saved_steps(path, NETS_EMA):
        raise UserError(f"No checkpoint in --checkpoint {path}. Check the path.")
    folder, step = (path, "latest") if path.is_dir() else (path.parent, int(name[1]))
    return {k: v for k, v in given.items() if k != "checkpoint"} | {"checkpoint_dir": str(folder), "resume_iter": step}


def _with_own_demo(given):
    """Return the flags of --preset demo with the user's own training as checkpoint, where there is one."""
    if given.get("preset") != "demo" or {"checkpoint_dir", "resume_iter"} & given.keys():
        return given
    own = preset_defaults("demo", "train")["checkpoint_dir"]
    if saved_steps(Path(own), NETS_EMA):
        console.info(f"Model: the one you trained, in {own}. For the included one, add --checkpoint {asset(SHIPPED)}")
        return given | {"checkpoint_dir": own}
    console.info(f"Model: the included demo model in {merge(given)['checkpoint_dir']}")
    return given


def config_of_step(given, step):
    """Resolve a run that loads a step. A training continues with the settings that the step was saved with."""
    flags = merge(given)
    where = f"step {step} in {flags['checkpoint_dir']}"
    states = read_checkpoint(flags["checkpoint_dir"], NETS_EMA, step, mapped=True)
    description = describe(states, where, {name: flags[name] for name in NETWORK_FLAGS}, given)
    saved, inherited, images = {}, None, None
    if given["mode"] in ("sample", "play") and description.resize:
        saved = {"resize": description.resize}
    elif given["mode"] == "train" and description.settings is not None:  # None: another program, or an earlier version
        saved, inherited = saved_settings(given, description, where), saved_source(description, where)
        images = description.images
    config = RunConfig.from_given(given, saved, domains=description.domains, inherited=inherited, images=images)
    config = config.with_flags(resume_iter=step, **description.networks)
    if given["mode"] in ("sample", "play") and config.resize == "keep" and config.w_hpf:
        raise UserError("--resize must be stretch, crop or pad for models of faces (w_hpf > 0), got keep.")
    return _checked(config, where)


def beginning_config(given):
    """Resolve a new training, with new networks or those of --init_from."""
    config = RunConfig.from_given(given).with_flags(resume_iter=0)
    if config.init_from is None:
        unused = " and ".join(f"--{name}" for name in sorted({"init_iters", "init_lr_scale"} & given.keys()))
        if unused:
            verb = "apply" if " and " in unused else "applies"
            raise UserError(f"{unused} only {verb} with --init_from. Add --init_from or remove {unused}.")
        if "domain_names" in given:
            console.warn("Ignoring --domain_names: in training, the sub-folders of --train_img_dir name the domains.")
        return config
    if "init_lr_scale" in given and not config.init_iters:
        raise UserError("--init_lr_scale only applies with --init_iters. Add --init_iters or remove --init_lr_scale.")
    config = config.with_flags(init_from=asset(config.init_from))
    if real_path(config.init_from).parent == real_path(config.checkpoint_dir):
        raise UserError(
            f"Cannot start from --init_from {config.init_from} (it is in --checkpoint_dir, and a new training "
            "moves its steps to a sub-folder). Choose another --checkpoint_dir, or use --resume_iter to continue."
        )
    assumed = {name: config.flags[name] for name in NETWORK_FLAGS}
    must_agree = {name: value for name, value in given.items() if name != "num_domains"}  # heads are matched by name
    description, inherited = describe_source(config.init_from, assumed, must_agree, config.domain_names)
    networks = {name: value for name, value in description.networks.items() if name != "num_domains"}
    config = RunConfig.from_given(given, inherited=inherited).with_flags(resume_iter=0, **networks)
    return _checked(config, f"--init_from {inherited['file']}")


def saved_settings(given, description, where):
    """Return a checkpoint's flags of the training, and print those that change.

    Raises UserError where a flag on the command line changes results, unless --override is given.
    """
    preset = description.preset if description.preset in list(SETTINGS) else None
    if given.get("preset") not in (None, preset):
        made = f"with --preset {preset}" if preset else "without --preset"
        raise UserError(f"Cannot resume with --preset {given['preset']} ({where} was saved {made}). Remove --preset.")
    with _naming(where):
        saved = {name: parse_flag(name, description.settings[name])
                 for name in RESUMED_FLAGS if name in description.settings}  # fmt: skip
    differing = [name for name, value in saved.items() if given.get(name, value) != value]
    changed = {name: f"--{name} {given[name]} instead of {saved[name]}" for name in differing}
    refused = [text for name, text in changed.items() if name in AFFECTS_RESULTS]
    if refused and not given.get("override"):
        reason = f"{where} was saved with other settings: {', '.join(refused)}"
        raise UserError(f"Cannot resume ({reason}). Remove these flags, or add --override to change them.")
    if changed:
        console.info(f"Settings that differ from {where}: {', '.join(changed.values())}")
    return saved | {"preset": preset}  # the preset's own settings are among those saved


def _checked(config, where):
    with _naming(where):
        check_values(config.flags)
    return config


@contextmanager
def _naming(where):
    """Name the checkpoint that a wrong value comes from."""
    try:
        yield
    except UserError as error:
        raise UserError(f"Cannot use {where}: {error} Use another checkpoint.") from error


def _with_domains(config):
    """Return the config with the domains of training and validation folders. Raises UserError where they differ."""
    advice = f"Pass your own folders with --train_img_dir and --val_img_dir, or {DATA_SETS[config.preset]}."
    for flag in ("train_img_dir", "val_img_dir"):
        _check_default_folder(config, flag, "images", advice)
        folder = config.flags[flag]
        config = settle_domains(config, domain_names(folder, flag), f"--{flag} {folder}")
    if real_path(config.train_img_dir) == real_path(config.val_img_dir):
        console.warn(
            "--train_img_dir and --val_img_dir are the same folder. Snapshots and scores then show training images."
        )
    return config


def _unreadable_images(config):
    """Return the unreadable training and validation images, as texts. Raises UserError where they are too many."""
    unreadable = []
    for flag in ("train_img_dir", "val_img_dir"):
        is_training, folder = config.mode == "train", config.flags[flag]
        cache = Path(config.checkpoint_dir if is_training else config.eval_dir, f".{flag}.json")
        options = {"num_workers": config.num_workers, "dry_run": config.dry_run, "is_training": is_training}
        unreadable += check_images(folder, flag, config.img_size, cache, **options)
    return list(map(str, unreadable))
