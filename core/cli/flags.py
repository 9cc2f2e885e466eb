"""The flags of main.py: names, types, defaults, meanings."""

import argparse

from core.cli.presets import SETTINGS
from core.system.distributed import is_main_process

MOST = 10**18  # what fits everywhere an integer goes
OUTPUTS = ("reference", "latent", "video_ref", "video_latent", "images")
MOST_SEEDS = 10_000


class Parser(argparse.ArgumentParser):
    """Tells a wrong flag in one sentence instead of a page of usage."""

    def _print_message(self, message, file=None):
        if is_main_process():
            super()._print_message(message, file)

    def error(self, message):
        """Print the sentence to stderr, once for all processes, and exit with status 2."""
        self.exit(2, f"error: {message} (python main.py --help lists all flags)\n")


def build_parser():
    """The parser of main.py. Names, types and defaults of the 41 flags of the reference are kept."""
    parser = Parser(
        description="StarGAN v2: translates images between domains, in the style of a reference or of a random code.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--mode", required=True, choices=["train", "sample", "eval", "align"], help="what to do")
    parser.add_argument(
        "--preset", choices=list(SETTINGS), help="other defaults: the published settings, or what learns the demo set"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="tell what would be done, what it would cost and write, and do nothing"
    )
    parser.add_argument(
        "--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="auto: CUDA if there is one"
    )
    _speed_flags(parser.add_argument_group("speed and memory"))
    _network_flags(parser.add_argument_group("networks (else as the checkpoint says, where one is loaded)"))
    _training_flags(parser.add_argument_group("training"))
    _sampling_flags(parser.add_argument_group("sampling"))
    _evaluation_flags(parser.add_argument_group("evaluation"))
    _folder_flags(parser.add_argument_group("folders and files"))
    _step_flags(parser.add_argument_group("how often, in iterations (0: never)"))
    return parser


def _speed_flags(group):
    add = group.add_argument
    add(
        "--micro_batch", type=_micro_batch, default="auto",
        help="images through the networks at once: less memory, same update; auto: all, halved when memory runs out",
    )  # fmt: skip
    add(
        "--precision", default="fp32", choices=["fp32", "tf32", "bf16"],
        help="tf32: CUDA only; bf16: less memory, and faster where the processor multiplies it faster; R1 stays fp32",
    )  # fmt: skip
    add("--channels_last", action="store_true", help="order tensors as NHWC")
    add("--compile", action="store_true", help="compile G, F and E (minutes at the start)")


def _micro_batch(text):
    if text == "auto":
        return text
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is neither auto nor a number from 1 up")
    return int(text)


def _network_flags(group):
    add = group.add_argument
    add("--img_size", type=int, default=256, help="side of the square images, a power of two")
    add("--num_domains", type=int, default=2, help="number of domains; left out, the sub-folders are counted")
    add("--latent_dim", type=int, default=16, help="length of a random code z")
    add("--hidden_dim", type=int, default=512, help="width of the mapping network")
    add("--style_dim", type=int, default=64, help="length of a style code")
    add("--channel_base", type=int, default=2**14, help="width next to the image is this / img_size")
    add("--max_conv_dim", type=int, default=512, help="widest convolution")
    add(
        "--w_hpf", type=float, default=1,
        help="weight of the high-pass skip for aligned faces; 0 for anything else, such as animals",
    )  # fmt: skip


def _training_flags(group):
    add = group.add_argument
    add("--lambda_reg", type=float, default=1, help="weight of R1, the penalty on D's gradient at real images")
    add("--lambda_cyc", type=float, default=1, help="weight of cycle consistency: higher keeps more of the source")
    add("--lambda_sty", type=float, default=1, help="weight of style reconstruction")
    add("--lambda_ds", type=float, default=1, help="weight of diversity at the start (2 for animals)")
    add("--ds_iter", type=int, default=100000, help="iterations over which lambda_ds falls to 0")
    add("--randcrop_prob", type=float, default=0.5, help="probability of a random crop of a training image")
    add("--total_iters", type=int, default=100000, help="iteration to stop at")
    add(
        "--resume_iter", type=_step, default=0,
        help="step to load, or latest: the newest whole one; 0: train starts anew, other modes take the newest",
    )  # fmt: skip
    add("--init_from", type=str, help="start G, F, E from a file of averages, and D from the nets file beside it")
    add("--init_iters", type=int, default=0, help="iterations in which what --init_from gave learns more slowly")
    add("--init_lr_scale", type=float, default=0.1, help="by how much: factor of its learning rate")
    add("--override", action="store_true", help="resume with flags that change what is computed; align anew")
    add("--keep_checkpoints", type=int, default=0, help="newest steps to keep, and the best scored one; 0: all")
    add("--max_bad_updates", type=int, default=20, help="stop after so many updates in a row that are no numbers")
    add("--batch_size", type=int, default=8, help="images per update")
    add("--val_batch_size", type=int, default=32, help="images shown in a snapshot; batch of evaluation")
    add("--lr", type=float, default=1e-4, help="learning rate of G, E and D")
    add("--f_lr", type=float, default=1e-6, help="learning rate of the mapping network F")
    add("--beta1", type=float, default=0.0, help="Adam's beta 1")
    add("--beta2", type=float, default=0.99, help="Adam's beta 2")
    add("--weight_decay", type=float, default=1e-4, help="L2 weight decay")
    add(
        "--ema_decay",
        type=float,
        default=0.999,
        help="decay of the moving averages; 0.99 for runs of some hundred iterations",
    )
    add("--num_outs_per_domain", type=int, default=10, help="outputs per source and domain in snapshots and eval")
    add("--num_workers", type=int, default=4, help="processes that read images; 0: none")
    add("--seed", type=int, default=777, help="what all chance in training depends on")


def _step(text):
    if text == "latest":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is neither a step nor latest") from error


def _sampling_flags(group):
    add = group.add_argument
    add(
        "--outputs", type=_outputs, default="reference,video_ref",
        help="what to make, separated by commas: reference (grid of sources by references), latent (grids of sources "
        "by seeds), video_ref, video_latent, images (a file for each source and style)",
    )  # fmt: skip
    add("--target_domains", type=_names, help="domains to translate into, separated by commas; left out: all")
    add(
        "--domain_names", type=_names,
        help="names of the domains in label order, for a checkpoint (or --init_from) that does not know them",
    )  # fmt: skip
    add("--seeds", type=_seeds, default="0-9", help="random styles, such as 0-9,20; a number is always the same style")
    add("--psi", type=float, default=1, help="truncation of random styles: 1 leaves them, 0 gives the mean style")
    add("--labels", action="store_true", help="write the names of domains and files beside grids")
    add(
        "--resize", default="stretch", choices=["stretch", "crop", "pad"],
        help="how pictures become square (sample, align): without keeping their shape, cut, or with white beside them",
    )  # fmt: skip
    add("--video_format", default="mp4", choices=["mp4", "gif", "webp"], help="videos: H.264, or animated pictures")


def _outputs(text):
    names = _names(text)
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(OUTPUTS)}")
    return names


def _names(text):
    """A comma-separated list, each name once."""
    names = [name.strip() for name in text.split(",")]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise argparse.ArgumentTypeError(f"'{text}' has {twice} twice: name each once")
    if "" in names:
        raise argparse.ArgumentTypeError(f"'{text}' has an empty name: separate names by single commas")
    return names


def _seeds(text):
    """'0-2,20' -> [0, 1, 2, 20]"""
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < MOST):
            raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers and ranges such as 0-9,20")
        if len(seeds) + int(last) - int(first) >= MOST_SEEDS:
            raise argparse.ArgumentTypeError(f"'{text}' is more than {MOST_SEEDS} seeds: ask for fewer at a time")
        seeds += range(int(first), int(last) + 1)
    return list(dict.fromkeys(seeds))


def _evaluation_flags(group):
    add = group.add_argument
    add("--eval_seeds", type=_seeds, help="repeat with these seeds, such as 0-9: mean and deviation; left out: --seed")
    add("--save_eval_images", type=_truth, default=True, help="true or false: keep the pictures that are scored")


def _truth(text):
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text} is neither true nor false")
    return text.lower() == "true"


def _folder_flags(group):
    add = group.add_argument
    faces = "assets/representative"
    add("--train_img_dir", type=str, default="data/celeba_hq/train", help="one sub-folder per domain")
    add("--val_img_dir", type=str, default="data/celeba_hq/val", help="the same sub-folders, other images")
    add("--sample_dir", type=str, default="expr/samples", help="train: snapshot pictures and the page index.html")
    add("--log_dir", type=str, help="train: train.jsonl and options.json; left out: --sample_dir")
    add("--checkpoint_dir", type=str, default="expr/checkpoints", help="checkpoints")
    add("--eval_dir", type=str, default="expr/eval", help="eval: images and scores")
    add("--result_dir", type=str, default="expr/results", help="sample: what --outputs asks for")
    add("--src_dir", type=str, default=f"{faces}/celeba_hq/src", help="sample: images to translate")
    add("--ref_dir", type=str, default=f"{faces}/celeba_hq/ref", help="sample: images whose style to take")
    add("--inp_dir", type=str, default=f"{faces}/custom/female", help="align: photographs")
    add("--out_dir", type=str, default=f"{faces}/celeba_hq/src/female", help="align: aligned faces")
    add("--wing_path", type=str, default="expr/checkpoints/wing.ckpt", help="face network, for w_hpf > 0 and align")
    add("--lm_path", type=str, default="expr/checkpoints/celeba_lm_mean.npz", help="mean face, for align")
    add("--contact_sheet", type=str, help="align: file for a picture of what was found and made, such as sheet.jpg")


def _step_flags(group):
    add = group.add_argument
    add("--print_every", type=int, default=10, help="print the losses")
    add("--sample_every", type=int, default=5000, help="write snapshot pictures")
    add("--save_every", type=int, default=10000, help="save a checkpoint (also at the end)")
    add("--eval_every", type=int, default=50000, help="evaluate; needs pretrained networks, see README")
    group.add_argument("--tensorboard", action="store_true", help="train: write its events into --log_dir too")
