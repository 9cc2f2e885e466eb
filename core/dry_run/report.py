"""--dry_run: what a command line would do, cost and write, told without doing it."""

import math
import shutil
from pathlib import Path

from core.checkpoint import init_from
from core.checkpoint.steps import FILES
from core.cli.args import SETTINGS_THAT_MATTER, as_typed
from core.dry_run import cost as costs
from core.evaluation.evaluator import MODES, check_scorable
from core.images.folders import images_below
from core.report.train_log import LINES, OPTIONS
from core.sampling.snapshots import PSIS, check_grid_side
from core.sampling.video import most_sources
from core.system import console, distributed
from core.system.device import check_precision, describe_device, select_device
from core.system.memory import memory_of, resident
from core.training.loop import times_due
from metrics import fid, lpips
from metrics.weights import weights_path

BYTES_OF_JPEG, BYTES_OF_PNG = 0.4, 2.0  # a pixel of a photograph on the disk, about


def training(args):
    """Tell what training would do. Under torchrun costs are those of each process."""
    share = distributed.local_batch_size(args.batch_size)
    check_grid_side(args.val_batch_size, args.num_outs_per_domain, args.num_domains, args.img_size)
    scored = times_due(args.resume_iter, args.total_iters, args.eval_every)
    if scored:
        check_scorable(args.domains, args.img_size)
    if not distributed.release_other_ranks():
        return
    _settings(args)
    if args.inherited and not args.resume_iter:
        init_from.tell(args)
    device, base = _begin(args)
    cost, pictures = costs.training(args, share), costs.snapshot(args)
    iterations = args.total_iters - args.resume_iter
    _flops(f"an iteration of {share} images", cost.flops, share)
    _flops(f"all {iterations:,} iterations", cost.flops * iterations)
    _memory(device, base, "training", cost.peak)
    if args.sample_every:
        _memory(device, base, "with snapshots", max(cost.peak, cost.held + pictures.peak - pictures.held))
    _files(_training_files(args, scored))
    if scored:
        _weights("; --eval_every 0 trains without evaluation")


def _training_files(args, scored):
    """Rows (where, what, bytes or None) of what a training writes that scores so many steps."""
    iterations = args.total_iters - args.resume_iter
    saves = math.ceil(iterations / args.save_every) if args.save_every else 1
    kept = min(saves, args.keep_checkpoints + 1) if args.keep_checkpoints else saves
    names = ", ".join(template.replace("{:06d}", "{step}") for template in FILES)
    snapshots = times_due(args.resume_iter, args.total_iters, args.sample_every)
    rows = 1 + args.val_batch_size + len(PSIS) * (1 + args.num_outs_per_domain * min(args.num_domains, 5)) + 4
    pixels = snapshots * rows * args.val_batch_size * args.img_size**2
    files = [
        (args.checkpoint_dir, f"{kept:,} times {names}", kept * costs.saved_bytes(args)),
        (args.sample_dir, f"index.html, {snapshots:,} times {2 + len(PSIS)} pictures", pixels * BYTES_OF_JPEG),
        (args.log_dir or args.sample_dir, f"{LINES}, {OPTIONS}", None),
    ]
    return [*files, (args.eval_dir, f"scores of {scored} steps, and pictures", None)] if scored else files


def sampling(args, sources, styles):
    """Tell what sampling would do. sources: how many images. styles: {kind: how many}."""
    _settings(args)
    device, base = _begin(args)
    together = min(sources, most_sources(args.img_size))
    cost = costs.sampling(args, together, max(styles.values()))
    _flops(f"{together} sources in one style", cost.flops, together)
    _memory(device, base, "sampling", cost.peak)
    _files([(args.result_dir, f"index.html, {', '.join(args.outputs)} of {sources} sources", None)])


def evaluation(args):
    """Tell what an evaluation would do. Raises UserError where a domain has no images."""
    if not distributed.release_other_ranks():
        return
    check_scorable(args.domains, args.img_size)
    _settings(args)
    counts = {}
    for flag in ("train_img_dir", "val_img_dir"):  # those of the second one are translated
        counts = {name: len(images_below(Path(getattr(args, flag), name))) for name in args.domains}
        console.info(f"--{flag}: " + ", ".join(f"{name} ({count:,})" for name, count in counts.items()))
    device, base = _begin(args)
    outputs = args.num_outs_per_domain
    made = sum(counts.values()) * (len(counts) - 1) * outputs
    together = min(args.val_batch_size, max(counts.values()))
    cost = costs.evaluation(args, together, max(counts.values()))
    _flops("an output and its scores", cost.flops / together)
    _flops(f"all {made * len(MODES):,} outputs", cost.flops / together * made * len(MODES))
    _memory(device, base, "evaluation", cost.peak)
    _weights()
    pictures = f" and {made:,} pictures" if args.save_eval_images else ""
    size = made * args.img_size**2 * BYTES_OF_PNG if args.save_eval_images else None
    _files([(args.eval_dir, f"scores{pictures} of {len(counts) * (len(counts) - 1)} tasks", size)])


def alignment(args):
    """Tell what align would do. Raises UserError where there is nothing to align."""
    from core.sampling.align import targets_of  # only faces need it

    _settings(args)
    targets = targets_of(args.inp_dir, args.out_dir)
    total, there = len(targets), sum(target.exists() for target in targets.values())
    console.info(f"--inp_dir: {total:,} images")
    device, base = _begin(args, networks=False)
    cost = costs.alignment(args)
    _flops("a face", cost.flops)
    _memory(device, base, "aligning", cost.peak)
    left = total if args.override else total - there
    size = left * args.img_size**2 * BYTES_OF_JPEG
    _files([(args.out_dir, f"{left:,} faces, fewer where none is found; {total - left:,} are there", size)])


def _settings(args):
    console.info("Settings (* given):")
    names = SETTINGS_THAT_MATTER[args.mode]
    width = max(map(len, names))
    for name in names:
        console.info(f"  {'*' if name in args.given else ' '} {name:<{width}}  {as_typed(getattr(args, name))}")


def _begin(args, networks=True):
    """Say where it would run and which networks; return the device and the bytes that the program holds already."""
    device = select_device(args.device)
    check_precision(args.precision, device)
    base = 0 if device.type == "cuda" else resident()
    console.info(f"Device: {describe_device(device)}, precision: {args.precision}")
    if networks:
        console.network_table(costs.networks(args))
    return device, base


def _flops(what, flops, images=None):
    each = f" ({_number(flops / images)}FLOP an image)" if images and images > 1 else ""
    console.info(f"Arithmetic of {what}: {_number(flops)}FLOP{each}")


def _memory(device, base, what, peak):
    needed, there = base + costs.SCRATCH * peak, memory_of(device)
    of = f" of {there / 1e9:.1f} GB" if there else ""
    console.info(f"Peak memory, {what}: about {needed / 1e9:.2f} GB{of}")
    if there and needed > there:
        console.warn(
            "that does not fit: lower --micro_batch (the same update in less memory), --val_batch_size or widths"
        )


def _weights(hint=""):
    absent = [weights for weights in (fid.WEIGHTS, lpips.WEIGHTS) if not weights_path(weights).is_file()]
    for weights in absent:
        console.warn(
            f"scores need {weights_path(weights)}, which is not there: it will be fetched from {weights.url}{hint}"
        )


def _files(rows):
    console.info("Would write, and this time does not:")
    for where, what, size in rows:
        about = f", about {_number(size)}B" if size else ""
        console.info(f"  {where}: {what}{about}")
        place = Path(where).resolve()
        free = shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free
        if size and size > free:
            console.warn(f"that is more than the {_number(free)}B that are free there")


def _number(value):
    """1234567 -> "1.23 M" """
    value = float(f"{value:.3g}")
    power = min(max(0, int(math.log10(value) // 3)), 6) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {' kMGTPE'[power].strip()}"
