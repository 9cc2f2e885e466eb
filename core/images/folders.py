"""The images of a folder: one sub-folder per domain, a flat folder, or a single file."""

import os
import stat
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from core.system import console, distributed
from core.system.errors import UserError, reason
from core.system.files import real_path
from core.system.notes import read_json_lines

HEIF = (".heic", ".heif")  # photos of iPhones; reading them needs pillow-heif
SUFFIXES = (
    *IMG_EXTENSIONS, ".jfif", ".jpe", ".jp2", ".gif", ".avif", ".tga", *(HEIF if find_spec("pillow_heif") else ())
)  # fmt: skip
ANIMATED = (".gif", ".webp")  # images that may be clips; Pillow reads them, since PyAV reads no animated WebP
CLIP_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".mxf", ".vob", *ANIMATED,
)  # fmt: skip
KINDS = {"image": SUFFIXES, "clip": CLIP_SUFFIXES}  # kind of file -> its suffixes
SAVED_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")  # formats that the program writes


# What operating systems, disks and archive programs keep among the files of a user, in lower case.
SYSTEM_NAMES = {
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "system volume information", "__macosx", "lost+found", "network trash folder", "temporary items", "thumbs.db",
    "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
}  # fmt: skip


def is_hidden(name):
    """Whether a name of a file or folder begins with a dot or belongs to a system; such files are never mentioned."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def domain_names(root, flag=None):
    """Return the names of the sub-folders of root in label order, without hidden ones. flag: its name, for messages."""
    where = f"--{flag} {root}" if flag else root
    if not Path(root).is_dir():
        kind = "is a file" if Path(root).exists() else "does not exist"
        raise UserError(f"Cannot read {where} (it {kind}). Give a folder with one sub-folder of images per domain.")
    names = sub_folders(root)
    if not names:
        raise UserError(f"No sub-folders found in {where}. Create one per domain and move its images there.")
    if {"train", "val"} <= set(names):
        raise UserError(f"Cannot use {where} (its sub-folders train and val are not domains). Give one of these two.")
    return names


def sub_folders(root, results=None):
    """Return the sorted names of the folders in root that are not hidden; an empty list if root is not a folder.

    results: a folder of the program's outputs, which is omitted, as is a folder that contains nothing else.
    """
    if not Path(root).is_dir():
        return []
    try:
        folders = [path for path in Path(root).iterdir() if path.is_dir() and not is_hidden(path.name)]
    except OSError as error:
        _fail_to_read(error)
    return sorted(path.name for path in folders if not (results and _holds_only(path, results)))


def _holds_only(folder, results):
    """Whether a folder is the folder of results, or one above it without other images."""
    real, results = real_path(folder), real_path(results)
    if real == results or not results.is_relative_to(real):
        return real == results
    return not any(is_image(path.name) for path in _files_below(folder, results))


def prepared_resize(root):
    """Return how data.prepare made the images of a data set's part square, "crop" or "pad"; None if unknown."""
    rows = (row.get("resize") for row in read_json_lines(Path(root).parent / "prepared.jsonl"))
    return next((resize for resize in rows if resize in ("crop", "pad")), None)


def check_same_on_all_ranks(paths, root):
    """Raise UserError if the ranks, for example on several machines, find different images below root."""
    names = [Path(path).relative_to(root).as_posix() for path in paths]
    main_names = distributed.on_main_process(lambda: names)
    with distributed.sync_errors():
        if names != main_names:
            difference = "its images on this rank differ from those on rank 0"
            raise UserError(f"Cannot use {root} ({difference}). Copy the same images to all machines.")


def is_image(name):
    """Whether a file name has an image suffix and is not hidden."""
    return not is_hidden(name) and Path(name).suffix.lower() in SUFFIXES


def images_below(root, flag=None, results=None, kind="image"):
    """Return the sorted paths of the images in a folder and its sub-folders, without hidden ones; [root] for a file.

    results: a folder of the program's outputs; if it is below root, its images are omitted. kind: a key of KINDS.
    """
    root, where = Path(root), f"--{flag} {root}" if flag else root
    if root.is_file():
        return [root]
    if not root.is_dir():
        problem = "it is no file or folder" if os.path.lexists(root) else "it does not exist"
        raise UserError(f"Cannot read {where} ({problem}). Give one {kind} or a folder of {kind}s.")
    images, others, special = [], [], []
    for path in _files_below(root, results):
        is_wanted = path.suffix.lower() in KINDS[kind]
        found = others if not is_wanted else special if _is_special(path) else images
        found.append(path)
    if not images:
        add = f"Add {kind}s ({' '.join(KINDS[kind])})"
        raise UserError(f"No {kind}s found in {where}. {add} or choose another folder.")
    _warn_about_others(sorted(path.name for path in others), sorted(path.name for path in special), where, kind)
    return sorted(images, key=lambda path: path.relative_to(root).parts)


def _is_special(path):
    """Whether a file is a pipe, socket or device. A link to nowhere is not; it becomes an unreadable image."""
    with suppress(OSError):
        return not stat.S_ISREG(path.stat().st_mode)


def _warn_about_others(others, special, where, kind):
    """Warn about ignored files, once for each folder, although several parts of the program list it."""
    if others:
        num_heif = sum(name.lower().endswith(HEIF) for name in others)
        hint = f" Run python -m pip install pillow-heif to use {num_heif:,} of them." if num_heif else ""
        if kind == "image" and any(Path(name).suffix.lower() in CLIP_SUFFIXES for name in others):
            hint += " --outputs video translates clips."
        ignored = f"Ignoring {console.counted(len(others), 'file')} without any {kind} suffix in {where}"
        console.warn_once(ignored, f"{ignored}: {console.listed(others, 3)}.{hint}")
    if special:
        ignored = f"Ignoring {console.counted(len(special), 'special file')} (pipes, sockets or devices) in {where}"
        console.warn_once(ignored, f"{ignored}: {console.listed(special, 3)}.")


def _files_below(root, results=None):
    """Yield the paths of the files in a folder and its sub-folders, without hidden ones. Follows links.

    results: a folder to skip.
    """
    results, seen = real_path(results) if results else None, set()
    for folder, folders, names in os.walk(root, onerror=_fail_to_read, followlinks=True):
        if (real := real_path(folder)) in seen:  # A link may lead to a parent folder.
            folders.clear()
            continue
        seen.add(real)
        wanted = (name for name in folders if not is_hidden(name) and real_path(Path(folder, name)) != results)
        folders[:] = sorted(wanted)  # Of several links to a folder, the first one counts on every machine.
        yield from (Path(folder, name) for name in names if not is_hidden(name))


def find_sources(root, result_dir, kind="image"):
    """Return the images or clips below --src_dir without those in --result_dir. Raises UserError if there are none."""
    if real_path(root) == real_path(result_dir):
        raise UserError(f"Cannot use --src_dir {root} (all its images are in --result_dir). Choose another folder.")
    if kind == "image" and Path(root).is_file() and Path(root).suffix.lower() in set(CLIP_SUFFIXES) - set(ANIMATED):
        raise UserError(f"Cannot read --src_dir {root} as an image (it is a clip). Use --outputs video.")
    return images_below(root, "src_dir", result_dir, kind)


def mirrored_names(paths, root):
    """Return the path of each file relative to the folder `root`, or to that of the file `root`, without its suffix.

    Raises UserError where two of them would be the same.
    """
    root = Path(root) if Path(root).is_dir() else Path(root).parent
    names, path_of = [], {}
    for path in paths:
        name = Path(path).relative_to(root).with_suffix("").as_posix()
        other = path_of.setdefault(name.casefold(), path)  # Some file systems ignore case.
        if other != path:
            problem = "their names only differ in the suffix or in capitals"
            raise UserError(f"Cannot name the results of {other} and {path} ({problem}). Rename one of them.")
        names.append(name)
    return names


def find_references(root, domains, targets=None, results=None):
    """Return (path, label) of the references in --ref_dir, domain by domain in the order of `targets`.

    root: a folder with one sub-folder per domain, or a flat folder or an image, used for each target.
    domains: names in label order. targets: labels; None for all domains in root. results: see `images_below`. Raises
    UserError.
    """
    where, names = f"--ref_dir {root}", sub_folders(root, results)
    if not Path(root).exists():
        raise UserError(
            f"Cannot read {where} (it does not exist). Give references, or use random styles with --outputs latent, "
            "video_latent or images_latent."
        )
    if not names:
        paths = images_below(root, "ref_dir", results)
        if targets is None and len(domains) > 1:
            raise UserError(
                f"Cannot assign the images in {where} to domains (it has no sub-folders). "
                f"Pass --target_domains with one or more of {console.as_list(domains)}."
            )
        return [(path, label) for label in targets or [0] for path in paths]
    unknown = [name for name in names if name not in domains]
    if unknown:
        raise UserError(
            f"Cannot use {where} (its sub-folders must be named after the domains {', '.join(domains)}, "
            f"got {', '.join(unknown)}). Rename the sub-folders. If the checkpoint has no domain names, list "
            "them in label order with --domain_names."
        )
    labels = [domains.index(name) for name in names] if targets is None else targets
    absent = [domains[label] for label in labels if domains[label] not in names]
    if absent:
        raise UserError(f"No sub-folder for {', '.join(absent)} in {where}. Add references or change --target_domains.")
    warn_about_stray_images(root, where)
    folders = {label: Path(root, domains[label]) for label in labels}
    return [(path, label) for label in labels for path in images_below(folders[label], "ref_dir", results)]


def warn_about_stray_images(root, where):
    """Warn if a folder has images next to its sub-folders. where: the folder's name in the message."""
    stray = sum(is_image(path.name) for path in Path(root).iterdir())
    if stray:
        console.warn(f"Ignoring {console.counted(stray, 'image')} in {where}: only images in its sub-folders are used.")


def _fail_to_read(error):
    advice = "Give read permission or choose another one."
    raise UserError(f"Cannot read {error.filename} ({reason(error)}). {advice}") from error
