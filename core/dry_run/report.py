"""--dry_run: print settings, cost and output files of a command line without running it."""

import math
import shutil
from pathlib import Path

from core.checkpoint.init_from import print_source
from core.checkpoint.steps import FILES
from core.cli.flags import flags_of
from core.cli.values import as_typed
from core.dry_run import cost
from core.evaluation.evaluator import check_scorable, images_by_domain
from core.evaluation.score_page import PAGE
from core.evaluation.scores import MODES
from core.report.page import check_page
from core.report.train_log import LINES, OPTIONS
from core.sampling.snapshots import PSIS, check_grid_side
from core.sampling.style_files import chosen_styles
from core.sampling.video import most_sources
from core.system import console, distributed
from core.system.device import check_cuda_graph, describe_device, select_device, set_precision
from core.system.files import real_path
from core.system.memory import memory_of, resident
from core.training.loop import times_due
from metrics import fid, lpips
from metrics.weights import weights_path

BYTES_OF_JPEG, BYTES_OF_PNG = 0.4, 2.0  # approximate size of one pixel of a photo


def training(config):
    """Print the plan of a training; under torchrun the cost per process. Raises UserError if training would."""
    batch_size = distributed.local_batch_size(config.batch_size)
    check_grid_side(config.val_batch_size, config.num_outs_per_domain, config.num_domains, config.img_size)
    num_scored = times_due(config.resume_iter, config.total_iters, config.eval_every)
    if num_scored:
        check_scorable(config.domains, config.img_size)
    if not distributed.release_other_ranks():
        return
    _settings(config)
    if config.inherited and not config.resume_iter:
        print_source(config.inherited, config.domains)
    device, base = _begin(config)
    iterations = config.total_iters - config.resume_iter
    iteration, snapshot = cost.training(config, batch_size), cost.snapshot(config)
    _flops(f"one iteration of {console.counted(batch_size, 'image')}", iteration.flops, batch_size)
    _flops(f"all {console.counted(iterations, 'iteration')}", iteration.flops * iterations)
    _memory(device, base, "training", iteration.peak)
    if config.sample_every:
        # A recorded iteration keeps its memory during a snapshot.
        with_snapshots = (iteration.peak if config.cuda_graph else iteration.held) + snapshot.peak - snapshot.held
        _memory(device, base, "training with snapshots", max(iteration.peak, with_snapshots))
    _files(_training_files(config, iterations, num_scored))
    if num_scored:
        _weights(" Pass --eval_every 0 to train without evaluation.")


def _training_files(config, iterations, num_scored):
    """Yield (folder, content, bytes or None) of the outputs of a training that scores so many steps."""
    num_saved = math.ceil(iterations / config.save_every) if config.save_every else 1
    if config.keep_checkpoints:
        num_saved = min(num_saved, config.keep_checkpoints + 1)
    names = ", ".join(template.replace("{:06d}", "{step}") for template in FILES)
    snapshots = times_due(config.resume_iter, config.total_iters, config.sample_every)
    latent_rows = 1 + config.num_outs_per_domain * min(config.num_domains, 5)
    rows = 1 + config.val_batch_size + len(PSIS) * latent_rows + 4
    pixels = snapshots * rows * config.val_batch_size * config.img_size**2
    checkpoints = f"{console.counted(num_saved, 'checkpoint')} ({names})"
    yield config.checkpoint_dir, checkpoints, num_saved * cost.saved_bytes(config)
    grids = f"{console.counted(snapshots, 'snapshot')} of {2 + len(PSIS)} grids"
    yield config.sample_dir, f"index.html, {grids}", pixels * BYTES_OF_JPEG
    yield config.log_dir or config.sample_dir, f"{LINES}, {OPTIONS}", None
    if num_scored:
        yield config.eval_dir, f"index.html, scores of {console.counted(num_scored, 'step')}, and images", None


def sampling(config, samples, clips=()):
    """Print the plan of sampling. samples: {"src": [(path, label), ...]}, with "ref" if needed. clips: Clips."""
    num_styles = len(config.seeds) * len(config.target_labels() or range(config.num_domains))
    if "ref" in samples:
        labels = [label for _, label in samples["ref"]]
        console.domain_line("References", config.names_by_label, labels)
        num_styles = max(num_styles, len(labels)) if "seed" in config.all_style_kinds() else len(labels)
    if config.styles:
        num_styles = max(num_styles, len(list(chosen_styles(config.styles, config.names_by_label))))
    _settings(config)
    device, base = _begin(config)
    num_sources = len(samples.get("src", ()))
    group = max(1, min(num_sources, most_sources(config.img_size)))
    translation = cost.sampling(config, group, num_styles)
    each = f"at {config.img_size} px in one style"  # with --resize keep, the cost grows with the pixels
    _flops(f"{console.counted(group, 'source')} {each}", translation.flops, group)
    _memory(device, base, "sampling", translation.peak)
    frames = sum(clip.count or 0 for clip in clips)
    if clips:
        _flops(f"about {console.counted(frames, 'frame')} {each}", translation.flops / group * frames)
    sources = console.counted(num_sources + len(clips), "source")
    outputs = f"{', '.join(config.outputs)} of {sources} in {console.counted(num_styles, 'style')}"
    styles = [(config.save_styles, "styles as JSON", None)] if config.save_styles else []
    _files([(config.result_dir, f"index.html, {outputs}", None), *styles])


def evaluation(config):
    """Print the plan of an evaluation. Raises UserError if a domain has no images."""
    if not distributed.release_other_ranks():
        return
    check_scorable(config.domains, config.img_size)
    _settings(config)
    numbers = {}
    for flag in ("train_img_dir", "val_img_dir"):
        images = images_by_domain(config.flags[flag], config.domains, config.skipped_images)
        numbers[flag] = counts = {name: len(paths) for name, paths in images.items()}
        console.info(f"--{flag}: " + ", ".join(f"{name} ({count:,})" for name, count in counts.items()))
    device, base = _begin(config)
    num_outputs = sum(counts.values()) * (len(counts) - 1) * config.num_outs_per_domain
    num_scored = num_outputs * len(MODES)
    batch_size = min(config.val_batch_size, max(counts.values()))
    batch = cost.evaluation(config, batch_size, numbers["train_img_dir"].values(), max(counts.values()))
    _flops("one output and its scores", batch.flops / batch_size)
    _flops(f"all {console.counted(num_scored, 'output')}", batch.flops / batch_size * num_scored)
    _memory(device, base, "evaluation", batch.peak)
    _weights()
    images = f" and {console.counted(num_outputs, 'image')}" if config.save_eval_images else ""
    size = num_outputs * config.img_size**2 * BYTES_OF_PNG if config.save_eval_images else None
    tasks = console.counted(len(counts) * (len(counts) - 1), "task")
    check_page(Path(config.eval_dir, PAGE))
    features = sum(count + fid.FEATURES * 2 for part in numbers.values() for count in part.values()) * fid.FEATURES * 4
    scores = (config.eval_dir, f"index.html, scores{images} of {tasks}", size)
    _files([scores, (config.eval_dir, "features of real images", features)])


def playing(config):
    """Print settings and networks of the page."""
    _settings(config)
    _begin(config)


def alignment(config):
    """Print the plan of an alignment. Raises UserError if there is nothing to align."""
    from core.sampling.align import targets_of  # only needed for faces

    _settings(config)
    targets = targets_of(config.inp_dir, config.out_dir)
    total, num_existing = len(targets), sum(target.exists() for target in targets.values())
    console.info(f"--inp_dir: {console.counted(total, 'image')}")
    device, base = _begin(config, has_networks=False)
    face = cost.alignment(config)
    _flops("one face", face.flops)
    _memory(device, base, "alignment", face.peak)
    num_left = total if config.override else total - num_existing
    files = f"up to {console.counted(num_left, 'face')} ({total - num_left:,} exist already)"
    _files([(config.out_dir, files, num_left * config.img_size**2 * BYTES_OF_JPEG)])


def _settings(config):
    console.info("Settings (* = given on the command line):")
    names = [name for name in flags_of(config.mode) if name != "dry_run"]
    width = max(map(len, names))
    for name in names:
        console.info(f"  {'*' if name in config.given else ' '} {name:<{width}}  {as_typed(config.flags[name])}")


def _begin(config, has_networks=True):
    """Print device and networks; return the device and the memory that the program already uses, in bytes."""
    device = select_device(config.device)
    set_precision(config.precision, device)
    check_cuda_graph(config.mode == "train" and config.cuda_graph, device)
    base = 0 if device.type == "cuda" else resident()
    console.info(f"Device: {describe_device(device)}, precision: {config.precision}")
    if has_networks:
        console.network_table(cost.networks(config))
    return device, base


def _flops(what, flops, images=None):
    each = f" ({_number(flops / images)}FLOP per image)" if images and images > 1 else ""
    console.info(f"Compute, {what}: {_number(flops)}FLOP{each}")


def _memory(device, base, what, peak):
    needed, available = base + cost.SCRATCH * peak, memory_of(device)
    of = f" of {available / 1e9:.1f} GB" if available else ""
    console.info(f"Peak memory, {what}: about {needed / 1e9:.2f} GB{of}")
    if available and needed > available:
        console.warn(
            f"The estimate for {what} exceeds the available memory, so the run may fail. "
            "Reduce --micro_batch, which does not change the results, else --val_batch_size or --channel_base."
        )


def _weights(hint=""):
    for weights in (fid.WEIGHTS, lpips.WEIGHTS):
        path = weights_path(weights)
        if not path.is_file():
            console.warn(f"Evaluation needs {path}. The run will download it from {weights.url}.{hint}")


def _files(rows):
    console.info("Would write (dry run, nothing is written):")
    for where, what, size in rows:
        about = f", about {_number(size)}B" if size else ""
        console.info(f"  {where}: {what}{about}")
        folder = real_path(where)
        free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
        if size and size > free:
            console.warn(
                f"The run writes about {_number(size)}B to {where}, but only {_number(free)}B are free. "
                "Free some space or choose another folder."
            )


def _number(value):
    """1234567 -> "1.23 M" """
    value = float(f"{value:.3g}")
    power = min(max(0, int(math.log10(value) // 3)), 6) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {' kMGTPE'[power].strip()}"
