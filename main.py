"""StarGAN v2 on the command line: python main.py --mode {train,sample,eval,align}; --help lists the flags."""

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from munch import Munch

from core.cli.args import parse_args, parse_given
from core.cli.config import merge
from core.cli.resolve import resolve
from core.data_loader import get_sample_loader, get_test_loader, get_train_loader, test_transform
from core.dry_run import report
from core.images.folders import check_same_on_all_ranks, find_references, find_sources
from core.solver import Solver
from core.system import console
from core.system.device import describe_device, select_device
from core.system.distributed import on_main_process, process_group, release_other_ranks, sync_errors
from core.system.errors import UserError
from core.system.exit import exit_status
from core.system.files import locked
from core.system.signals import StopSignals

__all__ = ["main", "parse_args"]  # parse_args: for those who build a Solver themselves


def train(given):
    """Train, unless the last iteration is done. Raises UserError, also where another run writes into its folders."""
    flags = merge(given)
    with ExitStack() as locks:
        if not flags["dry_run"]:
            folders = (flags["checkpoint_dir"], flags["sample_dir"], flags["log_dir"] or flags["sample_dir"])
            on_main_process(lambda: locks.enter_context(locked(*folders)))
        config = resolve(given)
        if config.resume_iter >= config.total_iters:
            return
        if config.dry_run:
            report.training(config)
            return
        loaders, solver = start_training(config)
        solver.train(loaders)


def start_training(config):
    """Munch(src, ref, val) of DataLoaders, and a Solver. Raises UserError where processes see different images."""
    with sync_errors():
        is_on_cuda = select_device(config.device).type == "cuda"
        images = {"seed": config.seed, "skipped_images": config.skipped_images}
        train_loader = partial(
            get_train_loader, config.train_img_dir, img_size=config.img_size, batch_size=config.batch_size,
            prob=config.randcrop_prob, num_workers=config.num_workers, start=config.resume_iter,
            stop=config.total_iters, pin_memory=is_on_cuda, **images,
        )  # fmt: skip
        val = get_test_loader(config.val_img_dir, config.img_size, config.val_batch_size, num_workers=0, **images)
        loaders = Munch(src=train_loader(which="source"), ref=train_loader(which="reference"), val=val)
        solver = start_solver(config)
    check_same_on_all_ranks([path for path, _ in loaders.src.dataset.dataset.samples], config.train_img_dir)
    console.domain_line("Domains", config.domains, loaders.src.dataset.targets)
    console.domain_line("Validation", config.domains, val.dataset.targets)
    console.info(f"To watch it, open {Path(config.sample_dir, 'index.html')} in a browser")
    return loaders, solver


def sample(given):
    """Write --outputs, on the main process alone. Raises UserError where checkpoint or images do not suit them."""
    if not release_other_ranks():
        return
    config = resolve(given)
    kinds = config.all_style_kinds()
    labels = config.target_labels()
    samples = {"src": [(path, 0) for path in find_sources(config.src_dir, config.result_dir)]}
    if "reference" in kinds:
        samples["ref"] = find_references(config.ref_dir, config.names_by_label, labels)
    for flag in {"seeds", "psi"} & set(config.given) if "seed" not in kinds else ():
        outputs = ",".join(config.outputs)
        console.warn(f"--{flag} is for latent, video_latent and images: --outputs {outputs} ignores it")
    console.info(f"Domains: {', '.join(config.names_by_label)} ({config.domains_origin})")
    console.info("Images: " + ", ".join(f"{len(images)} {name}" for name, images in samples.items()))
    if config.dry_run:
        report.sampling(config, samples)
        return
    transform = test_transform(config.img_size, config.resize)
    options = {"transform": transform, "batch_size": config.batch_size, "num_workers": config.num_workers}
    loaders = Munch({name: get_sample_loader(images, **options) for name, images in samples.items()})
    start_solver(config).sample(loaders)


def evaluate(given):
    """Score a step in both modes. Raises UserError, also where pretrained networks are missing."""
    config = resolve(given)
    if config.dry_run:
        report.evaluation(config)
        return
    with sync_errors():
        solver = start_solver(config)
    solver.evaluate()


def align(given):
    """Align the faces of --inp_dir, on the main process alone. Raises UserError, also where not one is found."""
    if not release_other_ranks():
        return
    from core import wing  # only faces need them
    from core.sampling.align import align_folder, read_mean_face

    config = resolve(given)
    mean_face, fan = read_mean_face(config.lm_path), wing.FAN()
    wing.load_wing(fan, config.wing_path)
    if config.dry_run:
        report.alignment(config)
        return
    device = select_device(config.device)
    console.info(f"Device: {describe_device(device)}")
    faces = align_folder(
        fan.to(device), mean_face, config.inp_dir, config.out_dir, config.img_size, config.resize,
        partial(torch.Tensor.to, device=device), sheet=config.contact_sheet, override=config.override,
    )  # fmt: skip
    console.info(f"Aligned {faces.num_aligned} faces into {config.out_dir}, left out {faces.num_skipped} images")
    if faces.num_existing:
        console.info(f"{faces.num_existing} were there already: --override makes them anew")
    if faces.num_skipped and not faces.num_aligned + faces.num_existing:
        raise UserError(f"no image in {config.inp_dir} shows a face that can be found")


def start_solver(config):
    """A Solver; prints what it runs on and its networks. Raises UserError."""
    console.info(f"Device: {describe_device(select_device(config.device))}, precision: {config.precision}")
    solver = Solver(config)
    console.network_table(solver.nets or solver.nets_ema)
    return solver


COMMANDS = {"train": train, "sample": sample, "eval": evaluate, "align": align}


def main(argv=None):
    """Run a command line -> exit status: 0 if all went well, see core.system.exit. Raises errors that are bugs."""
    given = {}
    try:
        with StopSignals(), process_group():
            given = parse_given(argv)
            COMMANDS[given["mode"]](given)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (bugs are raised again)
        return exit_status(error, is_training=given.get("mode") == "train")
    return 0


if __name__ == "__main__":
    sys.exit(main())
