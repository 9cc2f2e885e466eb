"""The command line, read and checked; which flags belong together."""

import argparse
from functools import cache

from core.cli.flags import MOST, build_parser
from core.cli.presets import preset_defaults
from core.system.errors import UserError

# What describes the networks; kept in the `config` entry of a checkpoint.
NETWORK_FLAGS = (
    "img_size", "num_domains", "latent_dim", "hidden_dim", "style_dim", "w_hpf", "channel_base", "max_conv_dim",
)  # fmt: skip

# What changes what training computes, and what else a resumed training goes on with.
MATHEMATICS = (
    "lambda_reg", "lambda_cyc", "lambda_sty", "lambda_ds", "ds_iter", "randcrop_prob", "batch_size", "lr", "f_lr",
    "beta1", "beta2", "weight_decay", "ema_decay", "precision", "seed", "init_iters", "init_lr_scale",
)  # fmt: skip
SETTINGS_KEPT = (
    *MATHEMATICS, "total_iters", "train_img_dir", "val_img_dir", "val_batch_size", "num_outs_per_domain", "print_every",
    "sample_every", "save_every", "eval_every", "keep_checkpoints", "max_bad_updates", "micro_batch", "num_workers",
)  # fmt: skip

# What --dry_run tells of each mode.
SETTINGS_THAT_MATTER = {
    "train": (*NETWORK_FLAGS, *SETTINGS_KEPT, "resume_iter", "init_from"),
    "sample": (
        *NETWORK_FLAGS, "resume_iter", "outputs", "target_domains", "seeds", "psi", "labels", "resize", "video_format",
        "batch_size", "micro_batch", "precision", "num_workers", "checkpoint_dir", "src_dir", "ref_dir",
    ),
    "eval": (
        *NETWORK_FLAGS, "resume_iter", "num_outs_per_domain", "val_batch_size", "eval_seeds", "seed",
        "save_eval_images", "micro_batch", "precision", "num_workers", "checkpoint_dir", "train_img_dir", "val_img_dir",
    ),
    "align": ("img_size", "resize", "override", "inp_dir", "wing_path", "lm_path", "contact_sheet"),
}  # fmt: skip

AT_LEAST = {  # least value that makes sense
    "num_domains": 1, "latent_dim": 1, "hidden_dim": 1, "style_dim": 1, "max_conv_dim": 1, "channel_base": 1,
    "lambda_reg": 0, "lambda_cyc": 0, "lambda_sty": 0, "lambda_ds": 0, "ds_iter": 1, "w_hpf": 0,
    "randcrop_prob": 0, "total_iters": 1, "resume_iter": 0, "batch_size": 1, "val_batch_size": 1,
    "lr": 0, "f_lr": 0, "beta1": 0, "beta2": 0, "ema_decay": 0, "weight_decay": 0, "num_outs_per_domain": 1,
    "num_workers": 0, "psi": 0, "print_every": 0, "sample_every": 0, "save_every": 0, "eval_every": 0,
    "keep_checkpoints": 0, "max_bad_updates": 1, "init_iters": 0,
    "init_lr_scale": 0,
}  # fmt: skip

AT_MOST = dict.fromkeys(("latent_dim", "hidden_dim", "style_dim", "max_conv_dim"), 2**16) | {
    "num_domains": 2**16,
    "channel_base": 2**24,
}  # wider networks fit nowhere

UNSET = object()
NO_FLAGS = ("given", "domains", "left_out", "inherited")  # what else a Namespace of `parse_args` holds


def parse_args(argv=None):
    """Parse and check a command line -> Namespace with every flag, and beside them

    given: names of the flags that were on the line; domains: None until folders or a checkpoint name them;
    left_out: paths of images that cannot be read; inherited: what --init_from gave (core.finetune).
    Exits with status 2 and one sentence where a value is wrong.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.preset:
        parser.set_defaults(**preset_defaults(args.preset, args.mode))
        args = parser.parse_args(argv)
    # A second reading, over marks in place of defaults, tells which flags were on the line.
    marked = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(args), UNSET)))
    given = {name for name, value in vars(marked).items() if value is not UNSET}
    args.given, args.domains, args.left_out, args.inherited = frozenset(given), None, set(), None
    try:
        check_values(args)
    except UserError as error:
        parser.error(str(error))
    return args


def parse_value(name, value):
    """The value of a flag, as it would be parsed. Raises UserError where it is none."""
    action = _actions()[name]
    try:
        parsed = (action.type or str)(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(f"--{name} cannot be {value}") from error
    if action.choices and parsed not in action.choices:
        raise UserError(f"--{name} cannot be {value}: choose of {', '.join(action.choices)}")
    return parsed


@cache
def _actions():
    return {action.dest: action for action in build_parser()._actions}


def check_values(args):
    """Raise UserError for the first value that makes no sense."""
    for name, least in AT_LEAST.items():
        value = getattr(args, name)
        if value == "latest":
            continue
        most = AT_MOST.get(name, MOST)
        if not least <= value < most:  # not a number compares false
            below = f" and below {most}" if name in AT_MOST else ""
            raise UserError(f"--{name} is {value}, but must be a number from {least} up{below}")
    if not abs(args.seed) < MOST:
        raise UserError(f"--seed is {args.seed}, but must be a number of at most 18 digits")
    for name, value in vars(args).items():
        if name.endswith(("_dir", "_path")) and value == "":
            raise UserError(f"--{name} is empty: give a path")
    for name in ("beta1", "beta2", "ema_decay"):
        if getattr(args, name) >= 1:
            raise UserError(f"--{name} is {getattr(args, name)}, but must be less than 1")
    for name in ("randcrop_prob", "init_lr_scale"):
        if getattr(args, name) > 1:
            raise UserError(f"--{name} is {getattr(args, name)}, but must be between 0 and 1")
    if not 16 <= args.img_size <= 2**14 or args.img_size.bit_count() != 1:
        raise UserError(f"--img_size is {args.img_size}, but must be a power of two from 16 up, such as 256")
    if args.channel_base < args.img_size:
        raise UserError(f"--channel_base is {args.channel_base}, but must be at least --img_size {args.img_size}")


def style_kinds(args, output):
    """Where an output takes its styles from: "reference", "seed".

    Images are made of references; where --seeds is given, of seeds; where --ref_dir is given too, of both.
    """
    if output != "images":
        return ["seed"] if "latent" in output else ["reference"]
    given = [kind for kind, flag in (("reference", "ref_dir"), ("seed", "seeds")) if flag in args.given]
    return given or ["reference"]


def plain_settings(args):
    """All flags as plain values: {name: value}."""
    return {name: value for name, value in vars(args).items() if name not in NO_FLAGS}


def as_typed(value):
    """A flag's value as on a command line; nothing for None."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def changed_flags(args):
    """Rows (flag, value as typed) of what is not the default; folders last."""
    defaults = {name: action.default for name, action in _actions().items()}
    changed = {name: value for name, value in plain_settings(args).items() if value != defaults.get(name)}
    told = [(f"--{name}", as_typed(value)) for name, value in changed.items()]
    return sorted(told, key=lambda row: row[0].endswith(("_dir", "_path")))
