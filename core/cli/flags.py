"""The flags of main.py, a line each: name, values, default, meaning, and what a run does with them."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from core.cli.presets import SETTINGS
from core.system.errors import UserError

MAX_INT = 10**18  # fits everywhere an integer goes
MAX_SEEDS = 10_000
OUTPUTS = ("reference", "latent", "video_ref", "video_latent", "images")

# What a run does with a flag.
NETWORK = "network"  # it describes the networks: kept with them, never overridden
RESULTS = "results"  # a resumed training takes it from the checkpoint; another value changes what is computed
RESUMED = "resumed"  # a resumed training takes it from the checkpoint


class Kind(NamedTuple):
    """The values that a flag can have."""

    parse: Callable  # text -> value; raises ValueError or ArgumentTypeError
    rules: tuple = ()  # (whether a value keeps the rule, the rest of a sentence that begins with the flag)


def at_least(low, parse=int, below=MAX_INT):
    """Numbers from `low` up; NaN and infinity are none."""
    tail = "" if below == MAX_INT else f" and below {below}"
    return Kind(parse, ((lambda value: low <= value < below, f"is {{}}, but must be a number from {low} up{tail}"),))


def _number_or(word, low, neither):
    """A parser of numbers from `low` up, or one word. neither: what its message says that a text is not."""

    def parse(text):
        if text != word and not (text.removeprefix("-").isdecimal() and int(text) >= low):
            raise argparse.ArgumentTypeError(f"{text} is neither {neither}")
        return text if text == word else int(text)

    return parse


def _truth(text):
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text} is neither true nor false")
    return text.lower() == "true"


def _names(text):
    """A comma-separated list, each name once."""
    names = [name.strip() for name in text.split(",")]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise argparse.ArgumentTypeError(f"'{text}' has {twice} twice: name each once")
    if "" in names:
        raise argparse.ArgumentTypeError(f"'{text}' has an empty name: separate names by single commas")
    return names


def _outputs(text):
    names = _names(text)
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(OUTPUTS)}")
    return names


def _seeds(text):
    """'0-2,20' -> [0, 1, 2, 20]"""
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < MAX_INT):
            raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers and ranges such as 0-9,20")
        if len(seeds) + int(last) - int(first) >= MAX_SEEDS:
            raise argparse.ArgumentTypeError(f"'{text}' is more than {MAX_SEEDS} seeds: ask for fewer at a time")
        seeds += range(int(first), int(last) + 1)
    return list(dict.fromkeys(seeds))


TEXT, SWITCH = Kind(str), Kind(bool)
PATH = Kind(str, ((bool, "is empty: give a path"),))
COUNT, POSITIVE, NUMBER = at_least(0), at_least(1), at_least(0, float)
WIDTH = at_least(1, below=2**16)  # wider networks fit nowhere
DECAY = Kind(float, (*NUMBER.rules, (lambda value: value < 1, "is {}, but must be less than 1")))
FRACTION = Kind(float, (*NUMBER.rules, (lambda value: value <= 1, "is {}, but must be between 0 and 1")))
SIDE = Kind(int, ((lambda value: 16 <= value <= 2**14 and value.bit_count() == 1,
                   "is {}, but must be a power of two from 16 up, such as 256"),))  # fmt: skip
SEED = Kind(int, ((lambda value: abs(value) < MAX_INT, "is {}, but must be a number of at most 18 digits"),))
MICRO_BATCH = Kind(_number_or("auto", 1, "auto nor a number from 1 up"))
STEP = Kind(_number_or("latest", -MAX_INT, "a step nor latest"),
            ((lambda value: value == "latest" or COUNT.rules[0][0](value), COUNT.rules[0][1]),))  # fmt: skip


@dataclass(frozen=True)
class Flag:
    """A flag of main.py."""

    name: str
    kind: Kind
    default: object
    help: str
    use: str = ""  # NETWORK, RESULTS, RESUMED or nothing
    choices: tuple | None = None
    listed: str = ""  # modes whose dry run lists it beside those of its use (see `dry_run_flags`), between blanks

    @property
    def default_value(self):
        """The default as parsed."""
        return self.kind.parse(self.default) if isinstance(self.default, str) else self.default


_FACES = "assets/representative"
GROUPS = {
    "": [
        Flag("mode", TEXT, None, "what to do", choices=("train", "sample", "eval", "align")),
        Flag("preset", TEXT, None, "other defaults: the published settings, or what learns the demo set",
             choices=tuple(SETTINGS)),
        Flag("dry_run", SWITCH, False, "tell what would be done, what it would cost and write, and do nothing"),
        Flag("device", TEXT, "auto", "auto: CUDA if there is one", choices=("auto", "cpu", "cuda", "mps")),
    ],
    "speed and memory": [
        Flag("micro_batch", MICRO_BATCH, "auto", "images through the networks at once: less memory, same "
             "update; auto: all, halved when memory runs out", RESUMED, listed="sample eval"),
        Flag("precision", TEXT, "fp32", "tf32: CUDA only; bf16: less memory, and faster where the processor multiplies "
             "it faster; R1 stays fp32", RESULTS, ("fp32", "tf32", "bf16"), listed="sample eval"),
        Flag("channels_last", SWITCH, False, "order tensors as NHWC"),
        Flag("compile", SWITCH, False, "compile G, F and E (minutes at the start)"),
    ],
    "networks (else as the checkpoint says, where one is loaded)": [
        Flag("img_size", SIDE, 256, "side of the square images, a power of two", NETWORK, listed="align"),
        Flag("num_domains", WIDTH, 2, "number of domains; left out, the sub-folders are counted", NETWORK),
        Flag("latent_dim", WIDTH, 16, "length of a random code z", NETWORK),
        Flag("hidden_dim", WIDTH, 512, "width of the mapping network", NETWORK),
        Flag("style_dim", WIDTH, 64, "length of a style code", NETWORK),
        Flag("channel_base", at_least(1, below=2**24), 2**14, "width next to the image is this / img_size", NETWORK),
        Flag("max_conv_dim", WIDTH, 512, "widest convolution", NETWORK),
        Flag("w_hpf", NUMBER, 1, "weight of the high-pass skip for aligned faces; 0 for anything else, such as animals",
             NETWORK),
    ],
    "training": [
        Flag("lambda_reg", NUMBER, 1, "weight of R1, the penalty on D's gradient at real images", RESULTS),
        Flag("lambda_cyc", NUMBER, 1, "weight of cycle consistency: higher keeps more of the source", RESULTS),
        Flag("lambda_sty", NUMBER, 1, "weight of style reconstruction", RESULTS),
        Flag("lambda_ds", NUMBER, 1, "weight of diversity at the start (2 for animals)", RESULTS),
        Flag("ds_iter", POSITIVE, 100000, "iterations over which lambda_ds falls to 0", RESULTS),
        Flag("randcrop_prob", FRACTION, 0.5, "probability of a random crop of a training image", RESULTS),
        Flag("total_iters", POSITIVE, 100000, "iteration to stop at", RESUMED),
        Flag("resume_iter", STEP, 0, "step to load, or latest: the newest whole one; 0: train starts anew, other modes "
             "take the newest", listed="train sample eval"),
        Flag("init_from", TEXT, None, "start G, F, E from a file of averages, and D from the nets file beside it",
             listed="train"),
        Flag("init_iters", COUNT, 0, "iterations in which what --init_from gave learns more slowly", RESULTS),
        Flag("init_lr_scale", FRACTION, 0.1, "by how much: factor of its learning rate", RESULTS),
        Flag("override", SWITCH, False, "resume with flags that change what is computed; align anew", listed="align"),
        Flag("keep_checkpoints", COUNT, 0, "newest steps to keep, and the best scored one; 0: all", RESUMED),
        Flag("max_bad_updates", POSITIVE, 20, "stop after so many updates in a row that are no numbers", RESUMED),
        Flag("batch_size", POSITIVE, 8, "images per update", RESULTS, listed="sample"),
        Flag("val_batch_size", POSITIVE, 32, "images shown in a snapshot; batch of evaluation", RESUMED, listed="eval"),
        Flag("lr", NUMBER, 1e-4, "learning rate of G, E and D", RESULTS),
        Flag("f_lr", NUMBER, 1e-6, "learning rate of the mapping network F", RESULTS),
        Flag("beta1", DECAY, 0.0, "Adam's beta 1", RESULTS),
        Flag("beta2", DECAY, 0.99, "Adam's beta 2", RESULTS),
        Flag("weight_decay", NUMBER, 1e-4, "L2 weight decay", RESULTS),
        Flag("ema_decay", DECAY, 0.999, "decay of the moving averages; 0.99 for runs of some hundred iterations",
             RESULTS),
        Flag("num_outs_per_domain", POSITIVE, 10, "outputs per source and domain in snapshots and eval", RESUMED,
             listed="eval"),
        Flag("num_workers", COUNT, 4, "processes that read images; 0: none", RESUMED, listed="sample eval"),
        Flag("seed", SEED, 777, "what all chance in training depends on", RESULTS, listed="eval"),
    ],
    "sampling": [
        Flag("outputs", Kind(_outputs), "reference,video_ref", "what to make, separated by commas: reference (grid of "
             "sources by references), latent (grids of sources by seeds), video_ref, video_latent, images (a file for "
             "each source and style)", listed="sample"),
        Flag("target_domains", Kind(_names), None, "domains to translate into, separated by commas; left out: all",
             listed="sample"),
        Flag("domain_names", Kind(_names), None, "names of the domains in label order, for a checkpoint (or "
             "--init_from) that does not know them"),
        Flag("seeds", Kind(_seeds), "0-9", "random styles, such as 0-9,20; a number is always the same style",
             listed="sample"),
        Flag("psi", NUMBER, 1, "truncation of random styles: 1 leaves them, 0 gives the mean style", listed="sample"),
        Flag("labels", SWITCH, False, "write the names of domains and files beside grids", listed="sample"),
        Flag("resize", TEXT, "stretch", "how pictures become square (sample, align): without keeping their shape, cut, "
             "or with white beside them", choices=("stretch", "crop", "pad"), listed="sample align"),
        Flag("video_format", TEXT, "mp4", "videos: H.264, or animated pictures", choices=("mp4", "gif", "webp"),
             listed="sample"),
    ],
    "evaluation": [
        Flag("eval_seeds", Kind(_seeds), None, "repeat with these seeds, such as 0-9: mean and deviation; left out: "
             "--seed", listed="eval"),
        Flag("save_eval_images", Kind(_truth), True, "true or false: keep the pictures that are scored", listed="eval"),
    ],
    "folders and files": [
        Flag("train_img_dir", PATH, "data/celeba_hq/train", "one sub-folder per domain", RESUMED, listed="eval"),
        Flag("val_img_dir", PATH, "data/celeba_hq/val", "the same sub-folders, other images", RESUMED, listed="eval"),
        Flag("sample_dir", PATH, "expr/samples", "train: snapshot pictures and the page index.html"),
        Flag("log_dir", PATH, None, "train: train.jsonl and options.json; left out: --sample_dir"),
        Flag("checkpoint_dir", PATH, "expr/checkpoints", "checkpoints", listed="sample eval"),
        Flag("eval_dir", PATH, "expr/eval", "eval: images and scores"),
        Flag("result_dir", PATH, "expr/results", "sample: what --outputs asks for"),
        Flag("src_dir", PATH, f"{_FACES}/celeba_hq/src", "sample: images to translate", listed="sample"),
        Flag("ref_dir", PATH, f"{_FACES}/celeba_hq/ref", "sample: images whose style to take", listed="sample"),
        Flag("inp_dir", PATH, f"{_FACES}/custom/female", "align: photographs", listed="align"),
        Flag("out_dir", PATH, f"{_FACES}/celeba_hq/src/female", "align: aligned faces"),
        Flag("wing_path", PATH, "expr/checkpoints/wing.ckpt", "face network, for w_hpf > 0 and align", listed="align"),
        Flag("lm_path", PATH, "expr/checkpoints/celeba_lm_mean.npz", "mean face, for align", listed="align"),
        Flag("contact_sheet", TEXT, None, "align: file for a picture of what was found and made, such as sheet.jpg",
             listed="align"),
    ],
    "how often, in iterations (0: never)": [
        Flag("print_every", COUNT, 10, "print the losses", RESUMED),
        Flag("sample_every", COUNT, 5000, "write snapshot pictures", RESUMED),
        Flag("save_every", COUNT, 10000, "save a checkpoint (also at the end)", RESUMED),
        Flag("eval_every", COUNT, 50000, "evaluate; needs pretrained networks, see README", RESUMED),
        Flag("tensorboard", SWITCH, False, "train: write its events into --log_dir too"),
    ],
}  # fmt: skip

FLAGS = {flag.name: flag for flags in GROUPS.values() for flag in flags}
NETWORK_FLAGS = tuple(flag.name for flag in FLAGS.values() if flag.use == NETWORK)
AFFECTS_RESULTS = tuple(flag.name for flag in FLAGS.values() if flag.use == RESULTS)
RESUMED_FLAGS = tuple(flag.name for flag in FLAGS.values() if flag.use in (RESULTS, RESUMED))


def dry_run_flags(mode):
    """Names of the flags that --dry_run lists in a mode: those of the networks, in training what a resumed run takes
    from its checkpoint, and those that name the mode."""
    uses = {"train": (NETWORK, RESULTS, RESUMED), "sample": (NETWORK,), "eval": (NETWORK,), "align": ()}[mode]
    return [flag.name for flag in FLAGS.values() if flag.use in uses or mode in flag.listed.split()]


def parse_value(name, value):
    """The value of a flag, as it would be parsed. Raises UserError where it is none."""
    flag = FLAGS[name]
    try:
        parsed = flag.kind.parse(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(f"--{name} cannot be {value}") from error
    if flag.choices and parsed not in flag.choices:
        raise UserError(f"--{name} cannot be {value}: choose of {', '.join(flag.choices)}")
    return parsed


def check_values(values):
    """Raise UserError for the first value that breaks a rule of its flag. values: {name: value} of every flag."""
    for name, flag in FLAGS.items():
        for keeps, sentence in flag.kind.rules:
            if values[name] is not None and not keeps(values[name]):
                raise UserError(f"--{name} {sentence.format(values[name])}")
    base, size = values["channel_base"], values["img_size"]
    if base < size:
        raise UserError(f"--channel_base is {base}, but must be at least --img_size {size}")


def as_typed(value):
    """A flag's value as on a command line; nothing for None."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return "" if value is None else str(value)
