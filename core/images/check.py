"""Check all images before training: find unreadable images and warn about unusual ones."""

import json
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from core.images.clips import BadClip, open_clip
from core.images.folders import ANIMATED, domain_names, images_below
from core.images.io import DAMAGED_PROFILE, read_with_size
from core.system import console
from core.system.device import usable_cores
from core.system.errors import UserError
from core.system.files import write_text
from core.system.notes import parse_json, read_text
from core.system.workers import Loader

MOST_BROKEN = 0.01  # share of all images; training does not start with more
NAMED = 10  # file names in a message
MOST_STRETCHED = 1.2  # longer side by shorter side
FAR = 2  # times the trained side; InstanceNorm takes its statistics from the whole image
RULES = 2  # change it whenever other files become readable: older findings are then ignored
FEW = 500  # files; up to this number starting worker processes takes longer than reading


def look(path):
    """Read an image file and return its finding: {"broken": reason}, or its width, height, whether it looks grey, and
    whether its colour profile is damaged."""
    try:
        image, (width, height) = read_with_size(path, 32)
    except UserError as error:
        return {"broken": str(error)}
    some = np.asarray(image.resize((32, 32), Image.Resampling.NEAREST), np.int16)
    grey = np.abs(np.diff(some, axis=2)).max() <= 8  # tolerance for rounding in JPEG
    return {"width": width, "height": height, "grey": bool(grey), "profile": DAMAGED_PROFILE in image.info}


def scan(paths, num_workers, cache=None, remember=False):
    """Return {path: finding} of all files. cache: file with findings, used for unchanged files. remember: update it."""
    cached = _read_cache(cache) if cache else {}
    stamps = {path: _stamp(path) for path in map(str, paths)}
    fresh = [path for path, stamp in stamps.items() if stamp is None or cached.get(path, [None])[0] != stamp]
    if fresh:
        workers = min(num_workers, usable_cores()) if len(fresh) > FEW else 0
        loader = Loader(fresh, batch_size=64, num_workers=workers, collate_fn=_look_at)
        with console.progress(total=len(fresh), desc="checking images", unit="img", leave=False) as bar:
            for batch in loader:
                cached |= {path: [stamps[path], finding] for path, finding in batch}
                bar.update(len(batch))
        if remember:
            write_text(cache, json.dumps({path: cached[path] for path in stamps}))
    return {path: cached[str(path)][1] for path in paths}


def _read_cache(cache):
    """{path: [stamp, finding]}"""
    try:
        cached = parse_json(read_text(cache))
        return {path: [stamp, finding] for path, (stamp, finding) in cached.items() if _is_finding(finding)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # missing or damaged: all images are checked again


def _is_finding(finding):
    """Whether a value has the form of the results of `look`."""
    if not isinstance(finding, dict):
        return False
    if finding.keys() == {"broken"}:
        return isinstance(finding["broken"], str)
    sides = [finding.get(name) for name in ("width", "height")]
    return all(type(side) is int and side > 0 for side in sides) and isinstance(finding.get("grey"), bool)


def _stamp(path):
    """Return size and modification time of a file, to detect changes, and RULES; None if they cannot be read."""
    with suppress(OSError):
        status = Path(path).stat()
        return [status.st_size, status.st_mtime_ns, RULES]


def _look_at(paths):
    return [(path, look(Path(path))) for path in paths]


def check_images(root, flag, img_size, cache, num_workers=0, dry_run=False, is_training=True):
    """Check the images of a data set, warn about unusual ones, and return the paths of unreadable ones to skip.

    cache: see `scan`; not written if its folder does not exist yet. is_training: also warn about images that do not
    suit training. dry_run: write no cache; in training, print a table. Raises UserError if more than MOST_BROKEN of all
    images, or all images of a domain, are unreadable.
    """
    domains = {name: images_below(Path(root, name)) for name in domain_names(root, flag)}
    all_paths = [path for paths in domains.values() for path in paths]
    findings = scan(all_paths, num_workers, cache, remember=not dry_run and Path(cache).parent.is_dir())
    where = f"--{flag} {root}"
    broken = [path for path, finding in findings.items() if "broken" in finding]
    if len(broken) > MOST_BROKEN * len(findings):
        raise UserError(
            f"Cannot read {len(broken):,} of {console.counted(len(findings), 'image')} in {where} (at most 1 % may be "
            f"unreadable): {console.listed(broken, NAMED)}. Replace or remove them."
        )
    for name, paths in domains.items():
        if all("broken" in findings[path] for path in paths):
            raise UserError(f"Cannot read any image of domain {name} in {where}. Replace these images.")
    if dry_run and is_training:
        console.info(f"{where}:")
        _print_domains(domains, _sides(findings), img_size)
    effect = f"{'Training' if is_training else 'Evaluation'} skips unreadable images."
    _warn_about(broken, "unreadable image", effect, findings, where)
    if is_training:
        _warn_about_unsuitable(findings, where, img_size)
    _warn_about_profiles(findings, where)
    return set(broken)


def _sides(findings):
    """Return {path: (width, height)} of the readable images."""
    return {path: (one["width"], one["height"]) for path, one in findings.items() if "broken" not in one}


def _warn_about_unsuitable(findings, where, img_size):
    """Warn about small and elongated images, and about grey ones among colour images."""
    sides = _sides(findings)
    small = [path for path, side in sides.items() if min(side) < img_size / 2]
    long = [path for path, side in sides.items() if max(side) > 2 * min(side)]
    grey = [path for path in sides if findings[path]["grey"]]
    for paths, kind, effect in (
        (small, "small image", f"Images with a side below half of --img_size {img_size} will be blurred."),
        (long, "elongated image", "Images with one side more than twice the other will be distorted."),
        (grey if len(grey) < len(sides) else [], "grey image", "The others have colour. Some outputs may become grey."),
    ):
        _warn_about(paths, kind, effect, findings, where)


def _warn_about_profiles(findings, where):
    damaged = [path for path, finding in findings.items() if finding.get("profile")]
    effect = "Colours of images with such profiles are read as sRGB."
    once = partial(console.warn_once, DAMAGED_PROFILE)  # Neither the reader nor the next folder repeats it.
    _warn_about(damaged, "damaged colour profile", effect, findings, where, once)


def _warn_about(paths, kind, effect, findings, where, warn=console.warn):
    if paths:
        found = f"Found {console.counted(len(paths), kind)} among {len(findings):,} in {where}"
        warn(f"{found}: {console.listed(paths, NAMED)}. {effect}")


def readable(samples, where, shape, num_workers=0):
    """Return the samples, (path, label), of readable images, and warn about the others. where: their folder.

    shape: warn about the images that this Shape does not suit. Raises UserError if no image is readable.
    """
    findings = scan(dict.fromkeys(path for path, _ in samples), num_workers)
    broken = {path: finding["broken"] for path, finding in findings.items() if "broken" in finding}
    if len(broken) == 1 == len(findings):
        raise UserError(*broken.values())
    if len(broken) == len(findings):
        names = console.listed(broken, NAMED)
        raise UserError(f"Cannot read any of {len(broken):,} images in {where}: {names}. Replace these images.")
    if broken:
        skipped = f"Skipping {console.counted(len(broken), 'unreadable image')} of {len(findings):,} in {where}"
        console.warn(f"{skipped}: {console.listed(broken, NAMED)}. Sampling continues with the others.")
    _warn_about_profiles(findings, where)
    warn_about_shapes(_sides(findings), where, shape)
    return [sample for sample in samples if sample[0] not in broken]


def readable_clips(paths, where, shape):
    """Return the Clips of the files that begin as a clip, and warn about the others. where: their folder.

    Ignores images of a folder that are not animated. Raises UserError if no clip is left.
    """
    clips = []
    for path in paths:
        try:
            clip = open_clip(path)
            clips += [clip] * (len(paths) == 1 or clip.count != 1 or path.suffix.lower() not in ANIMATED)
        except BadClip as error:
            if len(paths) == 1:
                raise
            console.warn(f"Skipping a clip. {error}")
    if not clips:
        raise UserError(f"No clips found in {where} (no file is a readable video or animated image). Add clips.")
    warn_about_shapes({clip.path: clip.size for clip in clips}, where, shape)
    return clips


def warn_about_shapes(sizes, where, shape):
    """Warn about images that a Shape distorts visibly, or that keep a size far from the trained one.

    sizes: {path: (width, height)} of images or clips. where: their folder.
    """
    stretched, far = [], []
    for path, (width, height) in sizes.items():
        named, ratio = f"{path.name} ({width} x {height})", (width * height) ** 0.5 / shape.size
        if shape.resize == "stretch" and max(width, height) > MOST_STRETCHED * min(width, height):
            stretched.append(named)
        elif shape.resize == "keep" and not 1 / FAR <= ratio <= FAR:
            far.append(named)
    if stretched:
        console.warn(
            f"Stretching {console.counted(len(stretched), 'file')} in {where} to squares, since one side is more than "
            f"{MOST_STRETCHED} times the other: {console.listed(stretched, 3)}. To keep proportions, add --resize "
            "crop or pad, or keep for single images and clips."
        )
    if far:
        console.warn(
            f"Keeping the size of {console.counted(len(far), 'file')} in {where}, although it is far from the trained "
            f"size {shape.size} x {shape.size}: {console.listed(far, 3)}. Results may be poor, since training images "
            "showed things in another size. Resize these files first, or use --resize crop --restore_shape."
        )


def _print_domains(domains, sides_of, img_size):
    """Print the number and sizes of the images of each domain."""
    width = max(map(len, domains))
    for name, paths in domains.items():
        sides = sorted(min(sides_of[path]) for path in paths if path in sides_of)
        small = sum(side < img_size for side in sides)
        console.info(
            f"  {name:<{width}}  {console.counted(len(sides), 'image'):>14}, {len(paths) - len(sides)} skipped, "
            f"shorter sides {sides[0]} to {sides[-1]} px (median {sides[len(sides) // 2]}), {small} below --img_size "
            f"{img_size}"
        )
