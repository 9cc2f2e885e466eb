"""Prepare training and validation images from your own photographs, with one folder per domain.

python -m data.prepare --in photos --out data/mine --size 256

Images become squares of one size. Unreadable images, too small images and duplicates are skipped.
The bytes of a file decide between training and validation, so adding images does not move others. There are two
exceptions: each part gets at least one image of each domain, and a larger copy replaces a smaller one.
prepared.jsonl lists the result for each file, index.html shows it. Run the same command again to update the data set.
"""

import json
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
from PIL import Image

from core.cli.parser import Parser
from core.cli.values import PART, PATH, POSITIVE, SIDE, one_of
from core.images.folders import domain_names, images_below, is_hidden, is_image, warn_about_stray_images
from core.images.io import read_rgb, read_with_size, squared, write_image
from core.system import console
from core.system.device import usable_cores
from core.system.errors import UserError
from core.system.exit import exit_status
from core.system.files import clear_away, file_names, locked, real_path, safe_name, sha256, system_errors, write_text
from core.system.notes import parse_json, read_text
from data import prepare_report
from data.duplicates import CELLS, originals

PREPARED, PAGE = "prepared.jsonl", "index.html"
PARTS, SMALL = ("train", "val"), "small"  # folders; small: dropped images for the page
SMALL_MOST, SMALL_SIDE = 60, 160
LOOK = 256  # minimum side in pixels for comparing images; below it, resampling methods make copies differ


@dataclass(eq=False)
class Photo:
    """An input file, its properties and its destination."""

    path: Path
    file: str  # path relative to the input folder, with slashes
    domain: str
    name: str  # name of its output without folder and suffix
    width: int = 0  # upright; 0 if unreadable
    height: int = 0
    bytes: int = 0
    hash: str = ""  # SHA-256 of its bytes
    cells: np.ndarray | None = None  # uint8 (CELLS, CELLS, 3)
    part: str = ""  # one of PARTS; empty if it is dropped
    dropped: str = ""  # one of prepare_report.REASONS
    why: str = ""  # explanation for the user


def prepare(source, out, size=256, val=0.1, resize="crop", min_side=None):
    """Create {out}/train and {out}/val from the images in source; return the lines of prepared.jsonl as dicts.

    size: side of the results in pixels. val: see `split`. resize: see core.images.io.squared. min_side:
    smaller images are dropped; None means size / 2. Raises UserError before it writes anything, unless a write fails.
    """
    source, out = Path(source), Path(out)
    inside, outside = real_path(source), real_path(out)
    if inside.is_relative_to(outside) or outside.is_relative_to(inside):
        raise UserError(f"Cannot write to --out {out} (it overlaps with --in {source}). Choose another folder.")
    if out.is_file():
        raise UserError(f"--out must be a folder, got the file {out}.")
    _files_of_earlier_run(out)  # raises early if the folder cannot be updated
    photos = find(source)
    _in_threads(look, photos, "reading images")
    least = size // 2 if min_side is None else min_side
    for photo in photos:
        side = min(photo.width, photo.height)
        if not photo.dropped and side < least:
            photo.dropped, photo.why = "too small", f"shorter side of {side} pixels, minimum {least}"
    drop_duplicates([photo for photo in photos if not photo.dropped])
    split(photos, val)
    settings = {"in": str(source), "out": str(out), "size": size, "val": val, "resize": resize, "min_side": least}
    lines = _lines(photos, size, resize)
    with locked(out):
        _update_folder(lines, source, out)
        prepare_report.write(out / PAGE, lines, settings)
    return lines


def find(source):
    """Return a Photo for each image below source, sorted by domain and path. Raises UserError."""
    photos = []
    for domain in domain_names(source, "in"):
        if domain != safe_name(domain, 255):
            reason = "not every operating system allows this name"
            raise UserError(f"Cannot use the folder {domain!r} in --in {source} ({reason}). Rename the folder.")
        paths = images_below(source / domain, "in")
        for path, name in zip(paths, file_names(paths), strict=True):
            photos.append(Photo(path, path.relative_to(source).as_posix(), domain, name))
    warn_about_stray_images(source, f"--in {source}")
    return photos


def _in_threads(work, items, title):
    """Call work(item) for each item, with one thread per core. Stop soon after an error or Ctrl-C."""
    executor = ThreadPoolExecutor(usable_cores())
    with warnings.catch_warnings():  # read_rgb does this too, but one thread would undo it while another still reads
        warnings.simplefilter("ignore")
        try:
            results = executor.map(work, items)
            for _ in console.progress(results, total=len(items), desc=title, unit="img", leave=False):
                pass
        finally:
            executor.shutdown(cancel_futures=True)


def look(photo):
    """Fill in the properties of a Photo; drop it if it is unreadable."""
    path = photo.path
    try:
        image, (photo.width, photo.height) = read_with_size(path, LOOK)
        with system_errors(path, "read"):
            photo.bytes, photo.hash = path.stat().st_size, sha256(path)
    except UserError as error:
        photo.dropped = "unreadable"
        photo.why = str(error).replace(str(path), path.name)
        return
    photo.cells = np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BILINEAR))


def drop_duplicates(photos):
    """Drop copies of other Photos. The largest copy in the first domain stays."""
    ranked = sorted(photos, key=lambda one: (one.domain, -one.width * one.height, -one.bytes))
    for photo, index in zip(ranked, originals([one.cells for one in ranked]), strict=True):
        original = ranked[index]
        if photo is original:
            continue
        kind = "file" if photo.hash == original.hash else "image"
        photo.dropped = "duplicate"
        photo.why = f"same {kind} as {original.file} ({original.width} x {original.height})"
        if photo.domain != original.domain:
            photo.why += f", which belongs to the domain {original.domain}"


def split(photos, val):
    """Assign a part to each Photo that is not dropped. Raises UserError if a domain has fewer than two.

    The hash of the bytes is read as a fraction of 1. val: images with a hash below this fraction are for validation; 1
    or more: as many images of each domain, those with the lowest hashes. Each part gets at least one of each domain.
    """
    for domain, of_domain in groupby(photos, attrgetter("domain")):
        group = list(of_domain)
        ranked = sorted((photo for photo in group if not photo.dropped), key=attrgetter("hash"))
        if len(ranked) < 2:
            reasons = Counter(photo.dropped for photo in group if photo.dropped)
            dropped = "".join(f", {number} {reason}" for reason, number in reasons.items())
            raise UserError(
                f"Cannot split the images of {domain} into training and validation ({len(group)} found{dropped}; "
                "at least 2 usable images needed). Add images."
            )
        below = sum(int(photo.hash[:13], 16) / 16**13 < val for photo in ranked)
        count = min(max(below if val < 1 else val, 1), len(ranked) - 1)
        for number, photo in enumerate(ranked):
            photo.part = "val" if number < count else "train"


def _lines(photos, size, resize):
    """Return the lines of prepared.jsonl: a dict for each Photo."""
    shown = [one for one in photos if one.dropped and one.cells is not None][:SMALL_MOST]
    small = dict(zip(shown, file_names([one.path for one in shown]), strict=True))
    lines = []
    for one in photos:
        line = {"file": one.file, "domain": one.domain}
        if one.part:
            line |= {"output": f"{one.part}/{one.domain}/{one.name}.jpg", "size": size, "resize": resize}
        else:
            line |= {"dropped": one.dropped, "why": one.why}
        if one in small:
            line["small"] = f"{SMALL}/{small[one]}.jpg"
        if one.cells is not None:
            line |= {"width": one.width, "height": one.height, "hash": one.hash}
        lines.append(line)
    return lines


def _update_folder(lines, source, out):
    """Create and remove files so that the folder matches the lines. Raises UserError.

    The process may be killed at any moment. prepared.jsonl lists a file before it is written and until it is removed.
    So each file with a listed name either matches its line or is removed by step 2 of the next run.
    """
    listed, wanted = _files_of_earlier_run(out), _outputs(lines)
    # 1. Refuse to overwrite files that this program did not create.
    listed_names = {name.casefold() for name in listed}  # some systems ignore case
    foreign = [name for name in (*wanted, PAGE) if name.casefold() not in listed_names and (out / name).exists()]
    if foreign:
        raise UserError(f"Cannot overwrite {out / foreign[0]} (this program did not create it). Move it elsewhere.")
    # 2. Remove obsolete and changed files, and incomplete files of killed runs.
    folders = [out / SMALL, *(folder for part in PARTS for folder in (out / part).glob("*"))]
    for folder in folders:
        clear_away(folder)
    for name, line in listed.items():
        if name != PAGE and wanted.get(name) != line:
            with system_errors(out / name, "remove"):
                (out / name).unlink(missing_ok=True)
    for folder in folders:
        with suppress(OSError):  # not empty
            folder.rmdir()
    # 3. List the wanted files.
    write_text(out / PREPARED, "".join(json.dumps(line) + "\n" for line in lines))
    # 4. Create the missing files.
    missing = [name for name in wanted if not (out / name).exists()]
    _in_threads(lambda name: _write_output(wanted[name], source, out / name), missing, "writing images")
    # 5. Warn about files that this program did not create.
    domains = {Path(name).parent.as_posix() for name in wanted}
    for folder in folders:
        if (
            folder.is_dir()
            and folder.relative_to(out).as_posix() not in (*domains, SMALL)
            and not is_hidden(folder.name)
        ):
            console.warn(
                f"Keeping {folder}, which is not part of this data set but contains files. Training will use it as a "
                "domain unless you remove it."
            )
    foreign = [name for name in _images_of(out) if name not in wanted]
    if foreign:
        console.warn(
            f"Keeping {console.counted(len(foreign), 'image')} in {out} that this program did not create: "
            f"{console.listed(foreign, 1)}. Training and evaluation will use them, unless you move them elsewhere."
        )


def _write_output(line, source, target):
    """Write the output of a line, or the small version of a dropped image."""
    path = source / line["file"]
    if "output" in line:
        image = squared(read_rgb(path, 2 * line["size"]), line["size"], line["resize"], Image.Resampling.LANCZOS)
    else:
        image = read_rgb(path, SMALL_SIDE)
        image.thumbnail((SMALL_SIDE, SMALL_SIDE))
    write_image(target, image)


def _images_of(out):
    """Return the names of all images in the parts of a data set, including files of the user."""
    inside = (path.relative_to(out) for part in PARTS for path in (out / part).rglob("*") if is_image(path.name))
    return [path.as_posix() for path in inside if not any(map(is_hidden, path.parts))]


def _outputs(lines):
    """Return {name of an output file: its line}."""
    return {line[key]: line for line in lines for key in ("output", "small") if key in line}


def _files_of_earlier_run(out):
    """Return the files that an earlier run listed, {name: line}, with the page. Raises UserError if unknown."""
    path = out / PREPARED
    if not path.exists():
        images = _images_of(out)
        if images:
            part = images[0].partition("/")[0]
            reason = f"{out / part} contains images that this program did not create"
            raise UserError(f"Cannot write to --out {out} ({reason}). Choose another folder for --out.")
        return {}
    try:
        with system_errors(path, "read"):
            files = _outputs([parse_json(line) for line in read_text(path).splitlines()])
        for folder, *others in (name.split("/") for name in files):
            if folder not in (*PARTS, SMALL) or any(part != safe_name(part, 255) for part in others):
                raise ValueError  # This program creates no such names. It must not remove files such as '../x'.
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"Cannot update --out {out} ({path} is damaged). Choose another folder for --out.") from error
    return {PAGE: None, **files}


def main(argv=None):
    """Run the command line. Exits with status 2 after printing an error, 130 on Ctrl-C."""
    parser = Parser(description=__doc__)
    parser.add("in", PATH, None, "input folder with one folder of images per domain", dest="source", required=True)
    parser.add("out", PATH, None, "output folder for train/, val/, prepared.jsonl and index.html", required=True)
    parser.add("size", SIDE, 256, "side of the results in pixels, a power of two (default 256)")
    parser.add("val", PART, 0.1, "validation images: a fraction of all, or a number per domain (default 0.1)")
    parser.add("resize", one_of("crop", "pad"), "crop", "how to make images square; pad adds white (default crop)")
    parser.add("min_side", POSITIVE, None, "shortest allowed side of an image in pixels (default: half of size)")
    args = parser.parse_args(argv)
    try:
        lines = prepare(args.source, args.out, args.size, args.val, args.resize, args.min_side)
    except (UserError, OSError) as error:
        parser.exit(exit_status(error))
    except KeyboardInterrupt:
        parser.exit(130, "error: Stopped by Ctrl-C. Run the same command again to resume.\n")
    prepare_report.advise(lines, args.out, args.size)


if __name__ == "__main__":
    main()
