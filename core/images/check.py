"""Check all images before a training: find those that cannot be read, warn about odd ones."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from core.images.folders import domain_names, images_below
from core.images.io import glance
from core.system import console
from core.system.device import usable_cores
from core.system.errors import UserError
from core.system.files import write_text

MOST_BROKEN = 0.01  # of all images; more is a mistake that should be corrected first
NAMED = 10  # files in a message
FEW = 500  # files; below, starting worker processes takes longer than reading


def look(path):
    """Read a file and return its finding, a dict: "broken" with the reason, or "width", "height" and "grey"."""
    try:
        image, width, height = glance(path)
    except UserError as error:
        return {"broken": str(error)}
    red, green, blue = (np.asarray(channel, np.int16) for channel in image.split())
    grey = max(np.abs(red - green).max(), np.abs(green - blue).max()) <= 8  # JPEG's rounding
    return {"width": width, "height": height, "grey": bool(grey)}


def scan(paths, cache, num_workers, remember):
    """Findings of all files, {path: finding}. cache: a file with those of unchanged ones. remember: add new ones."""
    cached = _read_cache(cache)
    stamps = {path: _stamp(path) for path in map(str, paths)}
    fresh = [path for path, stamp in stamps.items() if stamp is None or cached.get(path, [None])[0] != stamp]
    if fresh:
        workers = min(num_workers, usable_cores()) if len(fresh) > FEW else 0
        loader = DataLoader(fresh, batch_size=64, num_workers=workers, collate_fn=_look_at)
        with console.progress(total=len(fresh), desc="looking at images", unit="img", leave=False) as bar:
            for batch in loader:
                cached |= {path: [stamps[path], finding] for path, finding in batch}
                bar.update(len(batch))
        if remember:
            write_text(cache, json.dumps({path: cached[path] for path in stamps}))
    return {path: cached[str(path)][1] for path in paths}


def _read_cache(cache):
    """{path: [stamp, finding]}"""
    try:
        cached = json.loads(Path(cache).read_text(encoding="utf-8"))
        return {path: [stamp, dict(finding)] for path, (stamp, finding) in cached.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # not written yet, or damaged


def _stamp(path):
    """Size and time of a file, which differ after it has changed; None if the system does not tell them."""
    with suppress(OSError):
        status = Path(path).stat()
        return [status.st_size, status.st_mtime_ns]


def _look_at(paths):
    return [(path, look(Path(path))) for path in paths]


def check_images(root, flag, img_size, cache, num_workers=0, dry_run=False):
    """Check the images of a data set, warn about odd ones, return the paths of broken ones, which training skips.

    dry_run: print a table, write no cache. Raises UserError for more than MOST_BROKEN, or all images of a domain.
    """
    domains = {name: images_below(Path(root, name)) for name in domain_names(root, flag)}
    all_paths = [path for paths in domains.values() for path in paths]
    findings = scan(all_paths, cache, num_workers, remember=not dry_run)
    where = f"--{flag} {root}"
    broken = [path for path, finding in findings.items() if "broken" in finding]
    if len(broken) > MOST_BROKEN * len(findings):
        raise UserError(
            f"{where}: {len(broken)} of {len(findings)} images cannot be read, more than one in a hundred; replace or "
            f"remove them: {console.listed(broken, NAMED)}"
        )
    for name, paths in domains.items():
        if all("broken" in findings[path] for path in paths):
            raise UserError(f"{where}: no image of {name} can be read: replace them")
    sides = {path: (one["width"], one["height"]) for path, one in findings.items() if "broken" not in one}
    if dry_run:
        console.info(f"{where}:")
        _print_domains(domains, sides, img_size)
    small = [path for path, side in sides.items() if min(side) < img_size / 2]
    long = [path for path, side in sides.items() if max(side) > 2 * min(side)]
    grey = [path for path in sides if findings[path]["grey"]]
    for paths, what in (
        (broken, "cannot be read and are left out"),
        (small, f"are smaller than half of --img_size {img_size}, so they will be blurred"),
        (long, "are more than twice as long as wide, so they will be distorted"),
        (grey if len(grey) < len(sides) else [], "are grey among coloured ones"),
    ):
        if paths:
            console.warn(f"{where}: {len(paths)} of {len(findings)} images {what}: {console.listed(paths, NAMED)}")
    return set(broken)


def _print_domains(domains, sides_of, img_size):
    """Print, for each domain, how many images it has and how large they are."""
    width = max(map(len, domains))
    for name, paths in domains.items():
        sides = sorted(min(sides_of[path]) for path in paths if path in sides_of)
        small = sum(side < img_size for side in sides)
        console.info(
            f"  {name:<{width}}  {len(sides):>7,} images, {len(paths) - len(sides)} left out, smaller sides "
            f"{sides[0]} to {sides[-1]} px (median {sides[len(sides) // 2]}), {small} below --img_size {img_size}"
        )
