"""A look at every picture before a training: what cannot be read is left out, what is odd is told."""

import json
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from core.images.folders import domain_names, images_below
from core.images.io import glance
from core.system import console
from core.system.device import usable_cores
from core.system.errors import UserError
from core.system.files import atomic_write

MOST_BROKEN = 0.01  # of a set; more is a mistake that should be mended first
NAMED = 10  # files in a message
FEW = 500  # files; for fewer, processes are not worth their start


class _Glances(Dataset):
    """What a glance at each file tells: (path as text, its finding)."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        path = self.paths[index]
        return str(path), look(path)


def look(path):
    """A file as a dict: "broken" with what is wrong, or "width", "height" and whether it is "grey"."""
    try:
        image, width, height = glance(path)
    except UserError as error:
        return {"broken": str(error)}
    red, green, blue = (np.asarray(channel, np.int16) for channel in image.split())
    grey = max(np.abs(red - green).max(), np.abs(green - blue).max()) <= 8  # JPEG's rounding
    return {"width": width, "height": height, "grey": bool(grey)}


def stamp(path):
    """What changes when a file does."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def scan(paths, cache, num_workers=0, remember=True):
    """Findings of all files, {path: finding}. cache: a file that tells of those that have not changed.

    remember: write the new ones into it. Raises UserError where that cannot be done.
    """
    known = _read(cache)
    stamps = {str(path): stamp(path) for path in paths}
    fresh = [path for path in paths if stamps[str(path)] is None or known.get(str(path), [0])[0] != stamps[str(path)]]
    if fresh:
        workers = min(num_workers, usable_cores()) if len(fresh) > FEW else 0
        loader = DataLoader(_Glances(fresh), batch_size=64, num_workers=workers, collate_fn=list)
        with console.progress(total=len(fresh), desc="looking at images", unit="img", leave=False) as bar:
            for batch in loader:
                known |= {path: [stamps[path], finding] for path, finding in batch}
                bar.update(len(batch))
    if fresh and remember:
        with atomic_write(cache) as temporary:
            temporary.write_text(json.dumps({path: known[path] for path in stamps}), encoding="utf-8")
    return {path: known[str(path)][1] for path in paths}


def check_images(root, flag, img_size, cache, num_workers=0, dry_run=False):
    """Look at the images of a set and tell what is odd; return the paths to leave out.

    dry_run: remember nothing, and tell of each domain. Raises UserError where more than one in a hundred is broken, or
    all of a domain.
    """
    domains = {name: images_below(Path(root, name)) for name in domain_names(root, flag)}
    paths = [path for found in domains.values() for path in found]
    findings = scan(paths, cache, num_workers, not dry_run)
    broken = {path: finding["broken"] for path, finding in findings.items() if "broken" in finding}
    whole = {path: finding for path, finding in findings.items() if path not in broken}
    where = f"--{flag} {root}"
    if len(broken) > MOST_BROKEN * len(paths):
        raise UserError(
            f"{where}: {len(broken)} of {len(paths)} images cannot be read, more than one in a hundred; replace or "
            f"remove them: {_listed(broken)}"
        )
    for name, found in domains.items():
        if broken.keys() >= set(found):
            raise UserError(f"{where}: no image of {name} can be read: replace them")
    if dry_run:
        _tell_domains(where, domains, whole, img_size)
    all_grey = all(finding["grey"] for finding in whole.values())
    sides = {path: (finding["width"], finding["height"]) for path, finding in whole.items()}
    odd = {
        "cannot be read and are left out": list(broken),
        f"are smaller than half of --img_size {img_size}, so they will be blurred": [
            path for path, side in sides.items() if min(side) < img_size / 2
        ],
        "are more than twice as long as wide, so they will be distorted": [
            path for path, side in sides.items() if max(side) > 2 * min(side)
        ],
        "are grey among coloured ones": [path for path, finding in whole.items() if finding["grey"] and not all_grey],
    }
    for what, found in odd.items():
        if found:
            console.warn(f"{where}: {len(found)} of {len(paths)} images {what}: {_listed(found)}")
    return set(broken)


def _tell_domains(where, domains, whole, img_size):
    console.info(f"{where}:")
    width = max(map(len, domains))
    for name, found in domains.items():
        sides = sorted(min(whole[path]["width"], whole[path]["height"]) for path in found if path in whole)
        small = sum(side < img_size for side in sides)
        console.info(
            f"  {name:<{width}}  {len(sides):>7,} images, {len(found) - len(sides)} left out, smaller sides "
            f"{sides[0]} to {sides[-1]} px (median {sides[len(sides) // 2]}), {small} below --img_size {img_size}"
        )


def _listed(paths):
    paths = [str(path) for path in paths]
    return ", ".join(paths[:NAMED]) + (f" and {len(paths) - NAMED} more" if len(paths) > NAMED else "")


def _read(cache):
    try:
        known = json.loads(Path(cache).read_text(encoding="utf-8"))
        return {path: [when, dict(finding)] for path, (when, finding) in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # none yet, or damaged
