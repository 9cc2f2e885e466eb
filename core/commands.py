"""The modes of main.py: train, sample, eval, align, play. Each resolves its flags, builds what it needs and runs it."""

from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from munch import Munch

from core.cli.config import merge
from core.cli.flags import SINGLE_OUTPUTS
from core.cli.resolve import resolve, with_checkpoint
from core.data_loader import get_sample_loader, get_test_loader, get_train_loader, test_transform
from core.dry_run import report
from core.images.advice import warn_about_counts
from core.images.check import readable, readable_clips
from core.images.folders import check_same_on_all_ranks, find_references, find_sources, images_below, mirrored_names
from core.images.inventory import inventory, warn_about_changes
from core.images.shape import Shape
from core.solver import Solver
from core.system import console
from core.system.device import describe_device, select_device
from core.system.distributed import on_main_process, release_other_ranks, sync_errors
from core.system.errors import UserError
from core.system.files import locked


def train(given):
    """Train, unless the last iteration is done. Raises UserError, also where another run uses the same folders."""
    given = with_checkpoint(given)
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
    """Return Munch(src, ref, val) of DataLoaders, and a Solver. Raises UserError where ranks see different images."""
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
    samples = {"train_img_dir": loaders.src.dataset.dataset.samples, "val_img_dir": val.dataset.samples}
    check_same_on_all_ranks([path for path, _ in samples["train_img_dir"]], config.train_img_dir)
    config = replace(config, images=on_main_process(lambda: _look_at_images(config, samples)))
    with sync_errors():
        solver = start_solver(config)
    console.domain_line("Domains", config.domains, loaders.src.dataset.targets)
    console.domain_line("Validation", config.domains, val.dataset.targets)
    console.info(f"To watch the training, open {Path(config.sample_dir, 'index.html')} in a browser")
    return loaders, solver


def _look_at_images(config, samples):
    """Warn about few images and, in a resumed training, about other images; return what to store with a step.

    samples: {flag of a folder: [(path, label), ...]}.
    """
    folders = {flag: config.flags[flag] for flag in samples}
    images = {flag: inventory(samples[flag], folder, config.domains) for flag, folder in folders.items()}
    if config.resume_iter:
        warn_about_changes(config.images, images, folders, config.domains, config.resume_iter)
    else:
        labels = Counter(label for _, label in samples["train_img_dir"])
        counts = {name: labels[label] for label, name in enumerate(config.domains)}
        is_augmented = config.augment != "none"
        warn_about_counts(counts, is_finetuned=config.inherited is not None, is_augmented=is_augmented)
    return images


def sample(given):
    """Write --outputs, on the main process alone. Raises UserError where checkpoint or images do not fit them."""
    if not release_other_ranks():
        return
    config = resolve(given)
    labels = config.target_labels()
    found, clips, shape = {}, [], Shape(config.img_size, config.resize, config.restore_shape)
    if any(output != "video" for output in config.outputs):
        found["src"] = [(path, 0) for path in find_sources(config.src_dir, config.result_dir)]
    if "video" in config.outputs:
        paths = find_sources(config.src_dir, config.result_dir, "clip")
        clips = readable_clips(paths, f"--src_dir {config.src_dir}", shape)
    if "reference" in config.all_style_kinds():
        found["ref"] = find_references(config.ref_dir, config.names_by_label, labels, config.result_dir)
    folders = {name: f"--{name}_dir {config.flags[f'{name}_dir']}" for name in found}
    square = replace(shape, resize=shape.square)
    shapes = {"src": shape if {*SINGLE_OUTPUTS} & {*config.outputs} else square, "ref": square}
    samples = {name: readable(found[name], folders[name], shapes[name], config.num_workers) for name in found}
    console.info(f"Domains: {', '.join(config.names_by_label)} ({config.domains_origin})")
    if samples:
        console.info("Images: " + ", ".join(f"{len(images)} {name}" for name, images in samples.items()))
    if clips:
        console.info(f"Clips: {len(clips)}")
    if config.mirror:
        for paths in ([path for path, _ in samples.get("src", ())], [clip.path for clip in clips]):
            mirrored_names(paths, config.src_dir)  # raises UserError where two are the same
    if config.dry_run:
        report.sampling(config, samples, clips)
        return
    transform = test_transform(config.img_size, shape.square)
    options = {"transform": transform, "batch_size": config.batch_size, "num_workers": config.num_workers}
    loaders = Munch({name: get_sample_loader(images, **options) for name, images in samples.items()})
    start_solver(config).sample(Munch(loaders, clips=clips))
    skipped = sum(len({path for path, _ in found[name]} - {path for path, _ in samples[name]}) for name in found)
    if skipped:
        console.info(f"Skipped {console.counted(skipped, 'unreadable image')}")


def evaluate(given):
    """Score a step with random styles and references. Raises UserError, also where pretrained networks are missing."""
    config = resolve(given)
    if config.dry_run:
        report.evaluation(config)
        return
    with sync_errors():
        solver = start_solver(config)
    solver.evaluate()


def align(given):
    """Align the faces of --inp_dir, on the main process alone. Raises UserError, also where no face is found."""
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
    num_aligned, num_skipped, num_existing = align_folder(
        fan.to(device), mean_face, config.inp_dir, config.out_dir, config.img_size, config.resize,
        partial(torch.Tensor.to, device=device), sheet=config.contact_sheet, override=config.override,
    )  # fmt: skip
    skipped = console.counted(num_skipped, "image")
    console.info(f"Aligned {console.counted(num_aligned, 'face')} into {config.out_dir}, skipped {skipped}")
    if num_existing:
        existing = console.counted(num_existing, "face")
        console.info(f"Skipped {existing} that exist already. To replace them, add --override.")
    if num_skipped and not num_aligned + num_existing:
        raise UserError(f"No face found in any image of {config.inp_dir}. Choose photographs that show a face.")


def play(given):
    """Serve the page of a trained model until Ctrl-C, on the main process alone. Raises UserError."""
    if not release_other_ranks():
        return
    config = resolve(given)
    if config.dry_run:
        report.playing(config)
        return
    from core.play import server, studio  # only this mode needs them

    solver = start_solver(config)
    solver.load(config.resume_iter)
    is_wanted = "src_dir" in config.given or Path(config.src_dir).exists()
    paths = images_below(config.src_dir, "src_dir") if is_wanted else []
    page = server.PlayServer(studio.Studio(solver, studio.some_of_each_folder(paths)), config.port)
    console.info(f"Open {page.address} in a browser. Only this computer can. Ctrl-C ends the program.")
    with suppress(KeyboardInterrupt):
        page.serve_forever()


def start_solver(config):
    """Return a Solver, and print its device and its networks. Raises UserError."""
    console.info(f"Device: {describe_device(select_device(config.device))}, precision: {config.precision}")
    solver = Solver(config)
    if config.compile:
        console.info("Compiling begins with the first images and takes minutes. Ctrl-C may be answered after it.")
    console.network_table(solver.nets or solver.nets_ema)
    return solver


COMMANDS = {"train": train, "sample": sample, "eval": evaluate, "align": align, "play": play}
