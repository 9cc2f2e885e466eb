"""The images of a folder: one sub-folder per domain, a flat folder, or a single file."""

import os
from importlib.util import find_spec
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from core.system import console, distributed
from core.system.errors import UserError

HEIF = (".heic", ".heif")  # photographs of iPhones, readable if pillow-heif is installed
SUFFIXES = (
    *IMG_EXTENSIONS, ".jfif", ".jpe", ".jp2", ".gif", ".avif", ".tga", *(HEIF if find_spec("pillow_heif") else ())
)  # fmt: skip
SAVED_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")  # that the program writes


def domain_names(root, flag=None):
    """Names of the sub-folders of root in label order, but for hidden ones. flag: that of root, for messages."""
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
    """Sorted names of the folders in root that are not hidden; empty if root is not a folder."""
    if not Path(root).is_dir():
        return []
    try:
        return sorted(p.name for p in Path(root).iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        _fail_to_read(error)


def check_same_on_all_ranks(paths, root):
    """Raise UserError if another rank, on another machine perhaps, has other images below root."""
    names = [Path(path).relative_to(root).as_posix() for path in paths]
    main_names = distributed.on_main_process(lambda: names)
    with distributed.sync_errors():
        if names != main_names:
            raise UserError(f"{root} holds other images here than where the first process runs: make them the same")


def is_image(name):
    """Whether a file is an image, by its name, and not hidden."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def images_below(root, flag=None):
    """Sorted paths of the images in a folder and its sub-folders, without hidden ones. A file stands for itself."""
    root, where = Path(root), f"--{flag} {root}" if flag else root
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"{where} does not exist: give a folder of images or an image")
    paths = list(_files_below(root))
    images = [path for path in paths if is_image(path.name)]
    if not images:
        raise UserError(f"{where} has no images: add some ({' '.join(SUFFIXES)})")
    others = sorted(path.name for path in paths if not is_image(path.name))
    if others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        num_heif = sum(name.lower().endswith(HEIF) for name in others)
        hint = f"; python -m pip install pillow-heif makes {num_heif} of them readable" if num_heif else ""
        console.warn(f"{where}: files that are not named as images are left out, {len(others)} in all ({shown}){hint}")
    return sorted(images, key=lambda path: path.relative_to(root).parts)


def _files_below(root):
    """Paths of the files in a folder and its sub-folders, without hidden ones. Follows links."""
    seen = set()
    for folder, inside, files in os.walk(root, followlinks=True, onerror=_fail_to_read):
        if os.path.realpath(folder) in seen:  # a link to a folder above itself
            inside.clear()
            continue
        seen.add(os.path.realpath(folder))
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def find_sources(root, result_dir):
    """Images below --src_dir, without results of an earlier run in --result_dir. Raises UserError if there are none."""
    results = Path(result_dir).resolve()
    sources = [path for path in images_below(root, "src_dir") if results not in path.resolve().parents]
    if not sources:
        raise UserError(f"all images of --src_dir {root} lie in --result_dir: choose another one")
    return sources


def find_references(root, domains, targets=None):
    """Return (path, label) of the references in --ref_dir, domain by domain in the order of `targets`.

    root: a folder with sub-folders for domains; or a flat folder or an image, which is used for each target.
    domains: names in label order. targets: labels; None for all domains that root has. Raises UserError.
    """
    where, names = f"--ref_dir {root}", sub_folders(root)
    if not Path(root).exists():
        raise UserError(
            f"{where} does not exist: give references, or take random styles by --outputs latent, video_latent, or "
            "images with --seeds"
        )
    if not names:
        paths = images_below(root, "ref_dir")
        if targets is None and len(domains) > 1:
            raise UserError(
                f"{where} has no sub-folders, so what domain its images are of must be said: "
                f"give --target_domains, one or several of {','.join(domains)}"
            )
        return [(path, label) for label in targets or [0] for path in paths]
    unknown = [name for name in names if name not in domains]
    if unknown:
        raise UserError(
            f"{where} has the sub-folder {', '.join(unknown)}, but the domains are {', '.join(domains)}: rename it, "
            "or, where a checkpoint knows no names, give them in label order by --domain_names"
        )
    labels = [domains.index(name) for name in names] if targets is None else targets
    absent = [domains[label] for label in labels if domains[label] not in names]
    if absent:
        raise UserError(f"{where} has no sub-folder {', '.join(absent)}: add it or leave it out of --target_domains")
    warn_about_stray_images(root, where)
    return [(path, label) for label in labels for path in images_below(Path(root, domains[label]), "ref_dir")]


def warn_about_stray_images(root, where):
    """Warn if a folder of sub-folders has images beside them. where: names the folder in the message."""
    stray = sum(is_image(path.name) for path in Path(root).iterdir())
    if stray:
        console.warn(f"{where} has {stray} images beside its sub-folders: they are left out")


def _fail_to_read(error):
    raise UserError(f"{error.filename} cannot be read ({error.strerror}): allow it or give another folder") from error
