"""StarGAN v2 on the command line: python main.py --mode {train,sample,eval,align}; --help lists the flags."""

import signal
import sys
from pathlib import Path

from munch import Munch

from core import log, options, runtime
from core.archive import NETS_EMA, find_flaw, newest_whole_step
from core.checkpoint import newest_step
from core.data_loader import get_sample_loader, get_test_loader, get_train_loader, test_transform
from core.errors import Stopped, UserError
from core.files import locked
from core.folders import domain_names, find_references, images_below, sub_folders
from core.memory import explain
from core.options import style_kinds
from core.recall import name_domains, recall, settle_domains, target_labels
from core.scan import check_images
from core.signals import Stopping
from core.solver import Solver

RESUME = "; --resume_iter latest goes on from the last saved step"


def parse_args(argv=None):
    """Command line -> argparse.Namespace. Exits with status 2 and one sentence where a value is wrong."""
    return options.parse_args(argv)


def train(args):
    with locked(args.checkpoint_dir):
        if settle_start(args):
            train_alone(args)


def settle_start(args):
    """Choose the step to go on from, and take its settings. Returns whether anything is left to do."""
    folder, latest = Path(args.checkpoint_dir), args.resume_iter == "latest"
    if latest:
        args.resume_iter = newest_whole_step(folder) or 0
        if not args.resume_iter:
            log.say(f"No step in {folder} yet: training begins")
    if args.resume_iter:
        recall(args, NETS_EMA, args.resume_iter)
        flaw = "" if latest else find_flaw(folder, args.resume_iter)
        if flaw:
            raise UserError(f"step {args.resume_iter} in {folder} cannot be gone on from: {flaw}")
    over = args.resume_iter >= args.total_iters
    if over and not latest:
        raise UserError(f"step {args.resume_iter} has reached --total_iters {args.total_iters}: raise --total_iters")
    if over:
        log.say(f"Step {args.resume_iter} in {folder} is the last one: nothing is left to do")
    return not over


def train_alone(args):
    """Train, while no other run writes into the folder of checkpoints."""
    settle_folders(args)
    on_cuda = runtime.select_device(args.device).type == "cuda"
    for flag in ("train_img_dir", "val_img_dir"):
        cache = Path(args.checkpoint_dir, f".{flag}.json")
        args.left_out |= check_images(getattr(args, flag), flag, args.img_size, cache, args.num_workers)
    given = {"seed": args.seed, "leave_out": args.left_out}
    span = {"start": args.resume_iter, "stop": args.total_iters, "pin_memory": on_cuda, **given}
    shape = (args.img_size, args.batch_size, args.randcrop_prob, args.num_workers)
    loaders = Munch(
        src=get_train_loader(args.train_img_dir, "source", *shape, **span),
        ref=get_train_loader(args.train_img_dir, "reference", *shape, **span),
        val=get_test_loader(args.val_img_dir, args.img_size, args.val_batch_size, num_workers=0, **given),
    )
    solver = start_solver(args)
    log.domain_line("Domains", args.domains, loaders.src.dataset.targets)
    log.domain_line("Validation", args.domains, loaders.val.dataset.targets)
    solver.train(loaders)


def sample(args):
    settle_step(args)
    kinds = {kind for output in args.outputs for kind in style_kinds(args, output)}
    origin = name_domains(args, sub_folders(args.ref_dir) if "reference" in kinds or "ref_dir" in args.given else [])
    targets = target_labels(args.target_domains, args.domains)
    samples = {"src": [(path, 0) for path in source_images(args)]}
    if "reference" in kinds:
        samples["ref"] = find_references(args.ref_dir, args.domains, targets)
    for flag in {"seeds", "psi"} & args.given if "seed" not in kinds else ():
        log.warn(f"--{flag} is for latent, video_latent and images: --outputs {','.join(args.outputs)} ignores it")
    log.say(f"Domains: {', '.join(args.domains)} ({origin})")
    log.say("Images: " + ", ".join(f"{len(found)} {name}" for name, found in samples.items()))
    shape = (test_transform(args.img_size, args.resize), args.batch_size, args.num_workers)
    loaders = Munch({name: get_sample_loader(found, *shape) for name, found in samples.items()})
    start_solver(args).sample(loaders)


def source_images(args):
    """The images of --src_dir, without results of an earlier run that lie below it."""
    results = Path(args.result_dir).resolve()
    found = images_below(args.src_dir, "src_dir")
    sources = [path for path in found if results not in path.resolve().parents]
    if not sources:
        raise UserError(f"all images of --src_dir {args.src_dir} lie in --result_dir: choose another one")
    return sources


def evaluate(args):
    settle_step(args)
    settle_folders(args)
    start_solver(args).evaluate()


def settle_step(args):
    """Choose the newest step where none is asked for, and take from it what the networks are."""
    if args.resume_iter in (0, "latest"):
        args.resume_iter = newest_step(args.checkpoint_dir, NETS_EMA)
    recall(args, NETS_EMA, args.resume_iter)


def settle_folders(args):
    """Hold the sub-folders of the training and validation set against what is known of the domains."""
    for flag in ("train_img_dir", "val_img_dir"):
        folder = getattr(args, flag)
        settle_domains(args, domain_names(folder, flag), folder)


def not_yet(args):
    raise UserError(f"--mode {args.mode} is not part of this version yet: use --mode train, sample or eval")


def start_solver(args):
    device = runtime.select_device(args.device)
    log.say(f"Device: {runtime.describe_device(device)}, precision: {args.precision}")
    solver = Solver(args)
    log.network_table(solver.nets or solver.nets_ema)
    return solver


def main(argv=None):
    args = parse_args(argv)
    modes = {"train": train, "sample": sample, "eval": evaluate, "align": not_yet}
    try:
        with Stopping():
            modes[args.mode](args)
    except UserError as error:
        log.error(error)
        return 2
    except Stopped as stop:
        log.error(f"stopped by {signal.Signals(stop.number).name}{RESUME * (args.mode == 'train')}")
        return 128 + stop.number
    except KeyboardInterrupt:
        log.error("stopped at once by a second Ctrl-C")
        return 130
    except (RuntimeError, MemoryError, OSError) as error:
        sentence = explain(error)
        if isinstance(error, OSError) and error.filename:
            sentence = f"{error.filename} cannot be used ({error.strerror}): free the way or go elsewhere"
        if not sentence:
            raise
        log.error(sentence)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
