"""What --help prints, and docs/flags.md: python -m core.cli.help > docs/flags.md"""

import sys

from core.cli.flags import GROUPS, MODES, NETWORK, OUTPUTS, Flag
from core.cli.values import SWITCH, as_typed
from core.system import console

EXAMPLES = {
    "train": (
        "train --preset demo                                 (first: python -m data.demo)",
        "train --img_size 256 --w_hpf 0 --lambda_ds 2 --train_img_dir data/mine/train --val_img_dir data/mine/val",
        "train --preset afhq --resume_iter latest            (starts, or resumes from the newest step)",
    ),
    "sample": (
        "sample --preset demo                                (the demo model and its images)",
        "sample --checkpoint expr/checkpoints/mine --src_dir photos --ref_dir data/mine/val",
        "sample --preset demo --outputs images_latent --target_domains cat --seeds 0-4",
    ),
    "eval": (
        "eval --preset afhq",
        "eval --checkpoint expr/checkpoints/afhq/100000_nets_ema.ckpt --preset afhq",
        "eval --preset afhq --eval_seeds 0-9                 (mean and standard deviation)",
    ),
    "play": (
        "play --preset demo",
        "play --checkpoint expr/checkpoints/mine --src_dir photos",
        "play --checkpoint expr/checkpoints/mine --port 8000",
    ),
    "align": (
        "align --inp_dir photographs --out_dir aligned",
        "align --inp_dir photographs --out_dir aligned --contact_sheet sheet.jpg",
        "align --inp_dir photographs --out_dir aligned --resize crop --override",
    ),
}
FIRST = (
    ("make demo", "translate images with the demo model, then train one for two minutes"),
    ("python main.py sample --preset demo", "translate images with the demo model"),
    ("python -m data.prepare --in photos --out data/mine --size 64", "create a data set from your own images"),
    ("python main.py sample --preset demo --dry_run", "print what a command would do, cost and write"),
)
WITH_CHECKPOINT = ("sample", "eval", "play")  # modes that load trained networks
WIDTH = 30  # of the column of flags


def overview():
    """Return the lines of `main.py --help`: the modes, and commands to begin with."""
    modes = [f"  {mode:<10}{meaning}" for mode, meaning in MODES.items()]
    first = [line for command, meaning in FIRST for line in (f"  {command}", f"      {meaning}")]
    return [
        "StarGAN v2: translate images into any of several domains, in the style of a reference or a random code.", "",
        "usage: python main.py MODE [--flag value ...]", "", "modes:", *modes, "",
        "commands to begin with:", *first, "",
        "python main.py MODE --help lists the flags of a mode, --help-all all flags; --version prints the version.",
        "--mode MODE is the same as MODE, and --some-flag the same as --some_flag.",
    ]  # fmt: skip


def of_mode(mode):
    """Return the lines of `main.py MODE --help`: examples, and the flags that the mode reads."""
    examples = [f"  python main.py {example}" for example in EXAMPLES[mode]]
    hidden = NETWORK if mode in WITH_CHECKPOINT else None
    wanted = _groups(lambda flag: mode in flag.modes.split() and flag.use != hidden)
    lines = [f"{mode}: {MODES[mode]}", "", *examples, *wanted]
    if hidden:
        lines += ["", "The checkpoint describes its networks. --help-all lists the flags that check their sizes."]
    if mode == "sample":
        lines += ["", "outputs:", *(f"  {name:<{WIDTH}}{meaning}" for name, meaning in OUTPUTS.items())]
    return lines


def everything():
    """Return the lines of `main.py --help-all`: all flags."""
    return [*overview(), *_groups(lambda flag: True)]


def _groups(is_wanted):
    lines = []
    for title, flags in GROUPS.items():
        wanted = [line(flag) for flag in flags if is_wanted(flag) and flag.name != "mode"]
        lines += ["", f"{title}:" if title else "general:", *wanted] if wanted else []
    return lines


def line(flag: Flag):
    """Return the line of a flag: name, values, meaning and default."""
    value = "" if flag.kind is SWITCH else f" {flag.kind.metavar}"
    default = f" (default: {default_text(flag)})" if default_text(flag) else ""
    return f"  {f'--{flag.name}{value}':<{WIDTH - 1}} {flag.help}{default}"


def default_text(flag):
    """Return the default of a flag as typed; an empty text where there is none."""
    if isinstance(flag.default, bool):
        return "yes" if flag.default else ""
    return as_typed(flag.default)


def markdown():
    """Return the lines of docs/flags.md."""
    lines = [
        "# Flags of main.py", "",
        "`python -m core.cli.help > docs/flags.md` creates it. `main.py MODE --help` lists the flags of a mode.",
        "Dashes can replace underscores (`--batch-size`). A flag in a mode that does not read it causes a warning.",
    ]  # fmt: skip
    for title, flags in GROUPS.items():
        lines += ["", f"## {(title or 'general').capitalize()}", "", "| flag | values | default | meaning | modes |",
                  "|---|---|---|---|---|"]  # fmt: skip
        for flag in flags:
            values = "" if flag.kind is SWITCH else flag.kind.rule
            modes = flag.modes.replace(" ", ", ")
            lines.append(f"| `--{flag.name}` | {values} | {default_text(flag)} | {flag.help} | {modes} |")
    outputs = [f"| `{name}` | {meaning} |" for name, meaning in OUTPUTS.items()]
    return [*lines, "", "## Values of --outputs", "", "| output | creates |", "|---|---|", *outputs]


if __name__ == "__main__":
    console.text("\n".join(markdown()), sys.stdout)
