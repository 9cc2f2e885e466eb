"""Which images lie in a folder: one sub-folder per domain, a flat folder, or a single file."""

import os
from importlib.util import find_spec
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from core.system import console, distributed
from core.system.errors import UserError

HEIF = (".heic", ".heif")  # photographs of iPhones, images where pillow-heif is installed
SUFFIXES = (*IMG_EXTENSIONS, ".jfif", ".jpe", ".jp2", ".gif", ".avif", ".tga", *HEIF * bool(find_spec("pillow_heif")))


def domain_names(root, flag=None):
    """Names of the sub-folders of root in label order. Stray files and hidden folders do not count.

    flag: the one that gave the folder, to be named where something is wrong with it.
    """
    where = f"--{flag} {root}" if flag else root
    if not Path(root).is_dir():
        kind = "is a file" if Path(root).exists() else "does not exist"
        raise UserError(f"{where} {kind}: give a folder with one sub-folder of images per domain")
    names = sub_folders(root)
    if not names:
        raise UserError(f"{where} has no sub-folders; put the images of each domain into one of its own")
    if {"train", "val"} <= set(names):
        raise UserError(f"{where} has the sub-folders train and val, which are no domains: give one of those two")
    return names


def sub_folders(root):
    """Sorted names of the folders in root that are not hidden; none where root is no folder."""
    if not Path(root).is_dir():
        return []
    try:
        return sorted(p.name for p in Path(root).iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise _unreadable(root, error) from error


def same_everywhere(paths, root):
    """Raise UserError where processes, on other machines say, have other images below root: they count on them."""
    names = [Path(path).relative_to(root).as_posix() for path in paths]
    of_first = distributed.on_main_process(lambda: names)
    with distributed.sync_errors():
        if names != of_first:
            raise UserError(f"{root} holds other images here than where the first process runs: make them the same")


def is_image(name):
    """By its name: an image, and not hidden."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def images_below(root, flag=None):
    """Sorted paths of the images in a folder and its sub-folders, hidden ones left out; a file is taken as it is."""
    root, where = Path(root), f"--{flag} {root}" if flag else root
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"{where} does not exist: give a folder of images or an image")

    def fail(error):
        raise _unreadable(error.filename, error) from error

    found, others, seen = [], [], set()
    for folder, inside, files in os.walk(root, followlinks=True, onerror=fail):
        if os.path.realpath(folder) in seen:  # a link to a folder above itself
            inside.clear()
            continue
        seen.add(os.path.realpath(folder))
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        found += [Path(folder, name) for name in files if is_image(name)]
        others += [name for name in files if not (is_image(name) or name.startswith("."))]
    if not found:
        raise UserError(f"{where} has no images: add some ({' '.join(SUFFIXES)})")
    if others:
        shown = ", ".join(sorted(others)[:3]) + (", ..." if len(others) > 3 else "")
        heif = sum(name.lower().endswith(HEIF) for name in others)
        hint = f"; python -m pip install pillow-heif makes {heif} of them readable" if heif else ""
        console.warn(f"{where}: files that are not named as images are left out, {len(others)} in all ({shown}){hint}")
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def find_references(root, domains, targets=None, flag="ref_dir"):
    """(path, label) of the references in root, domain by domain in the order of `targets`.

    root: a folder with a sub-folder for some or all of the domains; or a flat folder or an image, which is
    taken in each of the targets. domains: names in label order. targets: labels, None for all there are.
    Raises UserError where a sub-folder is no domain, a target has no images, or a flat root no targets.
    """
    where, found = f"--{flag} {root}", sub_folders(root)
    if not Path(root).exists():
        raise UserError(
            f"{where} does not exist: give references, or take random styles by --outputs latent, video_latent, or "
            "images with --seeds"
        )
    if not found:
        paths = images_below(root, flag)
        if targets is None and len(domains) > 1:
            raise UserError(
                f"{where} has no sub-folders, so what domain its images are of must be said: "
                f"give --target_domains, one or several of {','.join(domains)}"
            )
        return [(path, label) for label in targets or [0] for path in paths]
    unknown = [name for name in found if name not in domains]
    if unknown:
        raise UserError(
            f"{where} has the sub-folder {', '.join(unknown)}, but the domains are {', '.join(domains)}: rename it, "
            "or, where a checkpoint knows no names, give them in label order by --domain_names"
        )
    asked = [domains.index(name) for name in found] if targets is None else targets
    absent = [domains[label] for label in asked if domains[label] not in found]
    if absent:
        raise UserError(f"{where} has no sub-folder {', '.join(absent)}: add it or leave it out of --target_domains")
    stray = sum(is_image(path.name) for path in Path(root).iterdir())
    if stray:
        console.warn(f"{where} has {stray} images beside its sub-folders: they are left out")
    return [(path, label) for label in asked for path in images_below(Path(root, domains[label]), flag)]


def _unreadable(path, error):
    return UserError(f"{path} cannot be read ({error.strerror}): allow it or give another folder")
