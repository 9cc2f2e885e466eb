"""The flags of main.py, one entry each: name, values, default, meaning, the modes that read it, and its use."""

from dataclasses import dataclass

from core.cli.presets import SETTINGS
from core.cli.values import (
    AUTO_SWITCH,
    COUNT,
    DECAY,
    DEVICE,
    FRACTION,
    HOURS,
    INTEGER,
    NAMES,
    NUMBER,
    PATH,
    POSITIVE,
    SEEDS,
    SIDE,
    SWITCH,
    TRUTH,
    Kind,
    as_typed,
    each_of,
    integers,
    numbers,
    one_of,
    parse_value,
    word_or,
)
from core.system.errors import UserError

MODES = {  # mode -> what it does
    "train": "train the networks on images in one folder per domain",
    "sample": "translate images with a trained model: grids, videos or single images",
    "eval": "score a trained model: quality, diversity, similarity to the source",
    "align": "align photographs of faces, for models trained on CelebA-HQ",
    "play": "open a page on this computer to try styles with the mouse",
}
OUTPUTS = {  # --outputs of sampling -> what it creates
    "reference": "a grid of the sources (top) in the styles of the references (left)",
    "latent": "for each domain, a grid of the sources in random styles, one row per seed",
    "video_ref": "a video of the sources whose style moves from reference to reference",
    "video_latent": "a video of the sources whose style moves from seed to seed",
    "images": "one file per source and reference of --ref_dir; without --ref_dir, as images_latent",
    "images_latent": "one file per source, domain and seed",
    "video": "one video per clip in --src_dir, a video or an animated image; styles as for images",
}
SINGLE_OUTPUTS = ("images", "images_latent", "video")  # those with a file for each source and style
WIDTH = integers(1, 2**16 - 1)  # wider networks fit nowhere

# What a run does with a flag.
NETWORK = "network"  # it describes the networks: stored with them, never overridden
RESULTS = "results"  # a resumed training takes it from the checkpoint; another value changes what is computed
RESUMED = "resumed"  # a resumed training takes it from the checkpoint

# The modes that read a flag.
ALL, MODEL, BATCHES = "train sample eval align play", "train sample eval play", "train sample eval"
SCORES = "train eval"


@dataclass(frozen=True)
class Flag:
    """A flag of main.py."""

    name: str
    kind: Kind
    default: object
    help: str
    modes: str = "train"  # those that read it
    use: str = ""  # NETWORK, RESULTS, RESUMED or nothing


_FACES = "assets/representative"
GROUPS = {
    "": [
        Flag("mode", one_of(*MODES), None, "what to do", ALL),
        Flag("preset", one_of(*SETTINGS), None, "defaults for a data set: published settings, or the demo's", ALL),
        Flag("dry_run", SWITCH, False, "print what would be done, its cost and its files, and stop", ALL),
        Flag("device", DEVICE, "auto", "auto (CUDA if available), cpu, cuda, mps, or a GPU such as cuda:1", ALL),
    ],
    "speed and memory": [
        Flag("micro_batch", word_or("auto", POSITIVE), "auto", "images in memory at once; auto: all, then half as "
             "many if memory runs out", BATCHES, RESUMED),
        Flag("batch_size", POSITIVE, 8, "train: images per update; other modes: images per batch", BATCHES, RESULTS),
        Flag("num_workers", COUNT, 4, "processes that load images; 0: load in the main process", BATCHES, RESUMED),
        Flag("precision", one_of("fp32", "tf32", "bf16"), "fp32", "arithmetic; tf32: CUDA only; bf16: not for R1",
             MODEL, RESULTS),
        Flag("channels_last", AUTO_SWITCH, "auto", "store tensors in NHWC order; auto: no, it was never faster", MODEL),
        Flag("compile", SWITCH, False, "compile the losses (train) or G (sample, eval); takes minutes", MODEL),
        Flag("cuda_graph", SWITCH, False, "record an iteration once and replay it (CUDA, one process)"),
    ],
    "networks (read from the checkpoint when one is loaded)": [
        Flag("img_size", SIDE, 256, "side of the square images in pixels", ALL, NETWORK),
        Flag("num_domains", WIDTH, 2, "number of domains; training counts the sub-folders", MODEL, NETWORK),
        Flag("latent_dim", WIDTH, 16, "length of a random code z", MODEL, NETWORK),
        Flag("hidden_dim", WIDTH, 512, "width of the mapping network F", MODEL, NETWORK),
        Flag("style_dim", WIDTH, 64, "length of a style code", MODEL, NETWORK),
        Flag("channel_base", integers(1, 2**24 - 1), 2**14, "channels of the first layers, multiplied by img_size",
             MODEL, NETWORK),
        Flag("max_conv_dim", WIDTH, 512, "maximum number of channels", MODEL, NETWORK),
        Flag("w_hpf", NUMBER, 1, "weight of the high-pass filter; set 0 unless the images are aligned faces", MODEL,
             NETWORK),
    ],
    "objective": [
        Flag("lambda_reg", NUMBER, 1, "weight of R1 regularization", use=RESULTS),
        Flag("lambda_cyc", NUMBER, 1, "weight of cycle consistency; higher preserves more of the source", use=RESULTS),
        Flag("lambda_sty", NUMBER, 1, "weight of style reconstruction", use=RESULTS),
        Flag("lambda_ds", NUMBER, 1, "initial weight of diversity; 2 for animals", use=RESULTS),
        Flag("ds_iter", POSITIVE, 100000, "iterations over which lambda_ds decreases to 0", use=RESULTS),
    ],
    "training": [
        Flag("total_iters", POSITIVE, 100000, "iteration at which training ends", use=RESUMED),
        Flag("max_hours", HOURS, None, "hours from the start of the program after which training saves and ends"),
        Flag("val_batch_size", POSITIVE, 32, "images in a snapshot; batch size of evaluation", SCORES, RESUMED),
        Flag("lr", NUMBER, 1e-4, "learning rate of G, E and D", use=RESULTS),
        Flag("f_lr", NUMBER, 1e-6, "learning rate of the mapping network F", use=RESULTS),
        Flag("beta1", DECAY, 0.0, "beta 1 of Adam", use=RESULTS),
        Flag("beta2", DECAY, 0.99, "beta 2 of Adam", use=RESULTS),
        Flag("weight_decay", NUMBER, 1e-4, "L2 weight decay", use=RESULTS),
        Flag("ema_decay", DECAY, 0.999, "decay of the moving averages; 0.99 for very short runs", use=RESULTS),
        Flag("randcrop_prob", FRACTION, 0.5, "probability of a random crop of a training image", use=RESULTS),
        Flag("augment", one_of("none", "ada", "fixed"), "none", "random transforms of the images that D sees, for "
             "small data sets", use=RESULTS),
        Flag("augment_prob", numbers(0, 0.8, is_open=False), 0.3, "probability of each kind of transform, for "
             "--augment fixed", use=RESULTS),
        Flag("num_outs_per_domain", POSITIVE, 10, "outputs per source and domain in snapshots and evaluation",
             SCORES, RESUMED),
        Flag("seed", INTEGER, 777, "random seed", SCORES, RESULTS),
        Flag("max_bad_updates", POSITIVE, 20, "stop after this many NaN or infinite updates in a row", use=RESUMED),
    ],
    "checkpoints": [
        Flag("checkpoint_dir", PATH, "expr/checkpoints", "folder of checkpoints", MODEL),
        Flag("resume_iter", word_or("latest", COUNT), 0, "step to load, or latest; 0: train starts anew, others "
             "load the newest", MODEL),
        Flag("checkpoint", PATH, None, "checkpoint to load or resume: a folder (its newest step) or a file", MODEL),
        Flag("override", SWITCH, False, "train: resume with changed settings; align: replace files", "train align"),
        Flag("keep_checkpoints", COUNT, 0, "newest steps to keep besides the best one; 0: all", use=RESUMED),
        Flag("init_from", PATH, None, "trained networks to start from: a ..._nets_ema.ckpt file"),
        Flag("freeze_d", COUNT, 0, "number of first blocks of D that keep the weights of --init_from", use=RESULTS),
        Flag("init_iters", COUNT, 0, "number of first iterations with a lower learning rate for --init_from weights",
             use=RESULTS),
        Flag("init_lr_scale", FRACTION, 0.1, "learning-rate factor during the first --init_iters iterations",
             use=RESULTS),
    ],
    "sampling": [
        Flag("outputs", each_of(*OUTPUTS), "reference,video_ref", "what to create: a comma-separated list", "sample"),
        Flag("target_domains", NAMES, None, "domains to translate into, by default all; '\"a, b\",c' if a name "
             "has a comma", "sample"),
        Flag("seeds", SEEDS, "0-9", "seeds of random styles, such as 0-9,20", "sample"),
        Flag("psi", NUMBER, 1, "truncation of random styles: 0 is the mean style, 1 no truncation", "sample"),
        Flag("styles", NAMES, None, "files of --save_styles, beside or instead of references and seeds", "sample"),
        Flag("save_styles", PATH, None, "JSON file for the styles that are used", "sample"),
        Flag("strength", NUMBER, 1, "0: the style of the source itself, 1: the wanted style", "sample"),
        Flag("labels", SWITCH, False, "write domain and file names next to the images of a grid", "sample"),
        Flag("resize", one_of("stretch", "crop", "pad", "keep"), "stretch", "how to make images square, or keep; by "
             "default as in training", "sample align play"),
        Flag("restore_shape", SWITCH, False, "bring results of stretch, crop and pad to the source's shape",
             "sample play"),
        Flag("mirror", SWITCH, False, "for each style, a folder with the sub-folders and names of --src_dir", "sample"),
        Flag("format", one_of("png", "jpg", "webp"), "png", "format of single images", "sample"),
        Flag("video_format", one_of("mp4", "gif", "webp"), "mp4", "format of videos", "sample"),
        Flag("domain_names", NAMES, None, "domain names in label order, for checkpoints that store none",
             "train sample play"),
        Flag("port", integers(0, 2**16 - 1), 0, "port of the page on 127.0.0.1; 0: any free one", "play"),
    ],
    "evaluation": [
        Flag("eval_seeds", SEEDS, None, "random seeds, one evaluation each, such as 0-9; by default --seed", SCORES),
        Flag("save_eval_images", TRUTH, True, "keep the images that are scored", SCORES),
    ],
    "folders and files": [
        Flag("train_img_dir", PATH, "data/celeba_hq/train", "training images, one sub-folder per domain",
             SCORES, RESUMED),
        Flag("val_img_dir", PATH, "data/celeba_hq/val", "validation images in the same sub-folders", SCORES, RESUMED),
        Flag("sample_dir", PATH, "expr/samples", "snapshot images and the page index.html"),
        Flag("log_dir", PATH, None, "folder of train.jsonl and options.json; by default --sample_dir"),
        Flag("eval_dir", PATH, "expr/eval", "folder of images and scores of evaluation", SCORES),
        Flag("result_dir", PATH, "expr/results", "folder of the results", "sample"),
        Flag("src_dir", PATH, f"{_FACES}/celeba_hq/src", "images to translate: a folder or a file", "sample play"),
        Flag("ref_dir", PATH, f"{_FACES}/celeba_hq/ref", "reference images: a folder or a file", "sample"),
        Flag("inp_dir", PATH, f"{_FACES}/custom/female", "photographs to align", "align"),
        Flag("out_dir", PATH, f"{_FACES}/celeba_hq/src/female", "aligned faces", "align"),
        Flag("wing_path", PATH, "expr/checkpoints/wing.ckpt", "face network, for align and w_hpf > 0", ALL),
        Flag("lm_path", PATH, "expr/checkpoints/celeba_lm_mean.npz", "mean positions of facial landmarks", "align"),
        Flag("contact_sheet", PATH, None, "file for an image of all results, such as sheet.jpg", "align"),
    ],
    "intervals in iterations (0: never)": [
        Flag("print_every", COUNT, 10, "print and log the losses", use=RESUMED),
        Flag("sample_every", COUNT, 5000, "write snapshot images", use=RESUMED),
        Flag("save_every", COUNT, 10000, "save a checkpoint; the last iteration is always saved", use=RESUMED),
        Flag("eval_every", COUNT, 50000, "evaluate; needs pretrained networks", use=RESUMED),
        Flag("tensorboard", SWITCH, False, "also write TensorBoard events to --log_dir"),
    ],
}  # fmt: skip

FLAGS = {flag.name: flag for flags in GROUPS.values() for flag in flags}
NETWORK_FLAGS = tuple(flag.name for flag in FLAGS.values() if flag.use == NETWORK)
AFFECTS_RESULTS = tuple(flag.name for flag in FLAGS.values() if flag.use == RESULTS)
RESUMED_FLAGS = tuple(flag.name for flag in FLAGS.values() if flag.use in (RESULTS, RESUMED))
ON_ALL_RANKS = (  # flags that must be the same in all processes of a run
    *NETWORK_FLAGS, *AFFECTS_RESULTS, "mode", "preset", "dry_run", "resume_iter", "total_iters", "num_outs_per_domain",
    "eval_seeds", "init_from",
)  # fmt: skip


def flags_of(mode):
    """Return the names of the flags that a mode reads, but for --mode itself."""
    return [flag.name for flag in FLAGS.values() if mode in flag.modes.split() and flag.name != "mode"]


def parse_flag(name, value):
    """Return the value of a flag, as it would be parsed. Raises UserError where it breaks the flag's rule."""
    kind = FLAGS[name].kind
    return parse_value(name, kind, as_typed(value) if kind.metavar == "LIST" else str(value))


def check_values(values):
    """Raise UserError for the first value that breaks the rule of its flag. values: {name: value} of every flag."""
    for name, value in values.items():
        if value is not None:
            parse_flag(name, value)
    base, size = values["channel_base"], values["img_size"]
    if base < size:
        raise UserError(f"--channel_base must be >= --img_size {size}, got {base}.")
    outputs = set(values["outputs"])
    both = values["mirror"] and "video" in outputs and outputs & {"images", "images_latent"}
    if both and values["format"] == values["video_format"]:
        raise UserError(f"--format must differ from --video_format with --mirror, got {values['format']}.")
    if values["mode"] == "align" and values["resize"] == "keep":
        raise UserError("--resize must be stretch, crop or pad in align mode, got keep.")
    if "video_latent" in values["outputs"] and len(values["seeds"]) == 1:
        raise UserError(f"--seeds must have at least two seeds for --outputs video_latent, got {values['seeds'][0]}.")
