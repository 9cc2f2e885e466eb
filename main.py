"""StarGAN v2 on the command line: python main.py --mode {train,sample,eval,align}; --help lists the flags."""

import signal
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from munch import Munch

from core.checkpoint.describe import name_domains, target_labels
from core.cli import args as cli
from core.cli import resolve
from core.cli.args import style_kinds
from core.data_loader import get_sample_loader, get_test_loader, get_train_loader, test_transform
from core.dry_run import report
from core.images.folders import find_references, images_below, same_everywhere, sub_folders
from core.solver import Solver
from core.system import console, distributed
from core.system.device import describe_device, select_device
from core.system.errors import PeerError, PeerLost, Stopped, UserError
from core.system.files import locked
from core.system.memory import explain
from core.system.signals import StopSignals

RESUME = "; --resume_iter latest goes on from the last saved step"


def parse_args(argv=None):
    """Command line -> argparse.Namespace. Exits with status 2 and one sentence where a value is wrong."""
    return cli.parse_args(argv)


def train(args):
    """Train, if anything is left to do. Raises UserError, also where another run writes into its folders."""
    if args.dry_run:
        if resolve.for_training(args):
            report.training(args)
        return
    with ExitStack() as held:
        distributed.on_main_process(lambda: hold(held, args))
        if resolve.for_training(args):
            train_alone(args)


def hold(held, args):
    """Lock the folders that one training alone may write into. Raises UserError."""
    folders = (args.checkpoint_dir, args.sample_dir, args.log_dir or args.sample_dir)
    for folder in {Path(folder).resolve(): folder for folder in folders}.values():
        held.enter_context(locked(folder))


def train_alone(args):
    """Train, while no other run writes into the folder of checkpoints. Raises UserError."""
    given = {"seed": args.seed, "leave_out": args.left_out}
    shape = (args.img_size, args.batch_size, args.randcrop_prob, args.num_workers)
    with distributed.sync_errors():
        on_cuda = select_device(args.device).type == "cuda"
        span = {"start": args.resume_iter, "stop": args.total_iters, "pin_memory": on_cuda, **given}
        loaders = Munch(
            src=get_train_loader(args.train_img_dir, "source", *shape, **span),
            ref=get_train_loader(args.train_img_dir, "reference", *shape, **span),
            val=get_test_loader(args.val_img_dir, args.img_size, args.val_batch_size, num_workers=0, **given),
        )
        solver = start_solver(args)
    same_everywhere([path for path, _ in loaders.src.dataset.dataset.samples], args.train_img_dir)
    console.domain_line("Domains", args.domains, loaders.src.dataset.targets)
    console.domain_line("Validation", args.domains, loaders.val.dataset.targets)
    console.info(f"To watch it, open {Path(args.sample_dir, 'index.html')} in a browser")
    solver.train(loaders)


def sample(args):
    """Write args.outputs. Raises UserError where checkpoint, images and names of domains do not do."""
    resolve.step(args)
    kinds = {kind for output in args.outputs for kind in style_kinds(args, output)}
    origin = name_domains(args, sub_folders(args.ref_dir) if "reference" in kinds or "ref_dir" in args.given else [])
    targets = target_labels(args.target_domains, args.domains)
    samples = {"src": [(path, 0) for path in source_images(args)]}
    if "reference" in kinds:
        samples["ref"] = find_references(args.ref_dir, args.domains, targets)
    for flag in {"seeds", "psi"} & args.given if "seed" not in kinds else ():
        console.warn(f"--{flag} is for latent, video_latent and images: --outputs {','.join(args.outputs)} ignores it")
    console.info(f"Domains: {', '.join(args.domains)} ({origin})")
    console.info("Images: " + ", ".join(f"{len(found)} {name}" for name, found in samples.items()))
    if args.dry_run:
        if "ref" in samples:
            console.domain_line("References", args.domains, [label for _, label in samples["ref"]])
        labels = range(args.num_domains) if targets is None else targets
        styles = {"reference": len(samples.get("ref", ())), "seed": len(args.seeds) * len(labels)}
        report.sampling(args, len(samples["src"]), {kind: styles[kind] for kind in kinds})
        return
    shape = (test_transform(args.img_size, args.resize), args.batch_size, args.num_workers)
    loaders = Munch({name: get_sample_loader(found, *shape) for name, found in samples.items()})
    start_solver(args).sample(loaders)


def source_images(args):
    """The images of --src_dir, without results of an earlier run that lie below it. Raises UserError where none is."""
    results = Path(args.result_dir).resolve()
    found = images_below(args.src_dir, "src_dir")
    sources = [path for path in found if results not in path.resolve().parents]
    if not sources:
        raise UserError(f"all images of --src_dir {args.src_dir} lie in --result_dir: choose another one")
    return sources


def evaluate(args):
    """Score a step in both modes. Raises UserError, also where pretrained networks are missing."""
    resolve.for_evaluation(args)
    if args.dry_run:
        report.evaluation(args)
        return
    with distributed.sync_errors():
        solver = start_solver(args)
    solver.evaluate()


def align(args):
    """Align the faces of args.inp_dir. Raises UserError, also where not one is found."""
    from core import wing  # only faces need them
    from core.sampling.align import align_folder, read_mean_face

    mean_face, fan = read_mean_face(args.lm_path), wing.FAN()
    wing.load_wing(fan, args.wing_path)
    if args.dry_run:
        report.alignment(args)
        return
    device = select_device(args.device)
    console.info(f"Device: {describe_device(device)}")
    place = partial(torch.Tensor.to, device=device)
    folders = (args.inp_dir, args.out_dir, args.img_size, args.resize)
    made, left_out, there = align_folder(fan.to(device), mean_face, *folders, place, args.contact_sheet, args.override)
    console.info(f"Aligned {made} faces into {args.out_dir}, left out {left_out} images")
    if there:
        console.info(f"{there} were there already: --override makes them anew")
    if left_out and not made + there:
        raise UserError(f"no image in {args.inp_dir} shows a face that can be found")


def start_solver(args):
    """A Solver, with what it runs on and its networks told. Raises UserError."""
    device = select_device(args.device)
    console.info(f"Device: {describe_device(device)}, precision: {args.precision}")
    solver = Solver(args)
    console.network_table(solver.nets or solver.nets_ema)
    return solver


def run(args):
    """Do what args.mode says; only train and eval share the work among processes. Raises UserError."""
    if args.mode == "train":
        train(args)
    elif args.mode == "eval":
        evaluate(args)
    elif distributed.release_other_ranks():
        {"sample": sample, "align": align}[args.mode](args)


def main(argv=None):
    """Run a command line -> exit status, see `ending`; 0 if all went well. Raises what is a fault of ours."""
    hint = ""
    try:
        with StopSignals(), distributed.process_group():
            args = parse_args(argv)
            hint = RESUME if args.mode == "train" else ""
            run(args)
    except (Exception, KeyboardInterrupt) as error:
        sentence, status = ending(error)
        if not sentence:
            raise
        stopped = isinstance(error, (PeerLost, Stopped))  # as are all processes: one tells
        if not isinstance(error, PeerError) and (distributed.is_main_process() or not stopped):
            console.error(sentence + hint * stopped)
        if isinstance(error, UserError) and not distributed.has_begun():
            distributed.declare_over(status)
        if isinstance(error, (PeerLost, PeerError)):
            time.sleep(1)  # torchrun names the process it sees end first: let it be the one with the cause
        return status
    return 0


def ending(error):
    """What is said of an error that ends the program, and its exit status; nothing where it is a fault of ours."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, PeerLost):
        return str(error), 1
    if isinstance(error, Stopped):
        return f"stopped by {signal.Signals(error.number).name}", 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return "stopped at once by a second Ctrl-C", 130
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used ({error.strerror}): free the way or go elsewhere", 2
    return explain(error), 2


if __name__ == "__main__":
    sys.exit(main())
