"""A training and a validation set out of one's own pictures, which lie in one folder per domain.

python -m data.prepare --in photos --out data/mine --size 256

Pictures become squares of one size; those that cannot be read, are too small or show what another one does are left
out. Which part a picture goes to follows from the bytes of its file, so it stays there when others are added, but for
the one that a part must have, and those of which a larger copy has come.
prepared.jsonl says what became of each file, index.html shows it. The same command again brings all up to date.
"""

import argparse
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
from PIL import ExifTags, Image

from core.images.folders import domain_names, images_below, is_image, warn_about_stray_images
from core.images.io import read_rgb, squared, write_image
from core.system import console
from core.system.device import usable_cores
from core.system.errors import UserError
from core.system.exit import exit_status
from core.system.files import clear_away, file_names, locked, safe_name, sha256, system_errors, write_text
from data import prepare_report
from data.duplicates import CELLS, originals

PREPARED, PAGE = "prepared.jsonl", "index.html"
PARTS, SMALL = ("train", "val"), "small"  # folders; small: dropped images, for the page
SMALL_MOST, SMALL_SIDE = 60, 160
LOOK = 256  # least side in pixels when images are compared; below it, copies differ by the way they are reduced


@dataclass(eq=False)
class Picture:
    """An input file, its properties, and where it goes."""

    path: Path
    file: str  # the path below the input folder, with slashes
    domain: str
    name: str  # of its output, without folder and suffix
    width: int = 0  # upright; 0 if it cannot be read
    height: int = 0
    bytes: int = 0
    hash: str = ""  # SHA-256 of its bytes
    cells: np.ndarray | None = None  # uint8 (CELLS, CELLS, 3)
    part: str = ""  # one of PARTS; empty if it is dropped
    dropped: str = ""  # one of prepare_report.REASONS
    why: str = ""  # a sentence


def prepare(source, out, size=256, share=0.1, resize="crop", min_side=None):
    """Make {out}/train and {out}/val of the images in source; return the lines of prepared.jsonl, as dicts.

    size: side of the results. share: fraction for validation. resize: see core.images.io.squared. min_side: smaller
    images are dropped; None: size / 2. Raises UserError, before anything is written unless a write fails.
    """
    source, out = Path(source), Path(out)
    inside, outside = source.resolve(), out.resolve()
    if inside.is_relative_to(outside) or outside.is_relative_to(inside):
        raise UserError(f"--in {source} and --out {out} lie in one another: choose another folder for --out")
    if out.is_file():
        raise UserError(f"--out {out} is a file: choose a folder")
    _files_of_earlier_run(out)  # raises early if the folder cannot be updated
    pictures = find(source)
    _in_threads(look, pictures, "looking at pictures")
    least = size // 2 if min_side is None else min_side
    for picture in pictures:
        side = min(picture.width, picture.height)
        if not picture.dropped and side < least:
            picture.dropped, picture.why = "too small", f"its smaller side has {side} pixels, less than {least}"
    drop_duplicates([picture for picture in pictures if not picture.dropped])
    split(pictures, share)
    settings = {"in": str(source), "out": str(out), "size": size, "val": share, "resize": resize, "min_side": least}
    lines = _lines(pictures, size, resize)
    with locked(out):
        _update_folder(lines, source, out)
        prepare_report.write(out / PAGE, lines, settings)
    return lines


def find(source):
    """A Picture for each image below the folders in source, domain by domain, sorted. Raises UserError."""
    pictures = []
    for domain in domain_names(source, "in"):
        if domain != safe_name(domain, 255):
            raise UserError(f"--in {source}: the name of {domain!r} does not suit every system: rename that folder")
        paths = images_below(source / domain, "in")
        for path, name in zip(paths, file_names(paths), strict=True):
            pictures.append(Picture(path, path.relative_to(source).as_posix(), domain, name))
    warn_about_stray_images(source, f"--in {source}")
    return pictures


def _in_threads(work, items, title):
    """Call work(item) for each item, in a thread per core. Stops soon after an error or Ctrl-C."""
    executor = ThreadPoolExecutor(usable_cores())
    with warnings.catch_warnings():  # read_rgb does this too, but one thread would end it while another still reads
        warnings.simplefilter("ignore")
        try:
            results = executor.map(work, items)
            for _ in console.progress(results, total=len(items), desc=title, unit="img", leave=False):
                pass
        finally:
            executor.shutdown(cancel_futures=True)


def look(picture):
    """Fill in the properties of a Picture; drop it if it cannot be read."""
    path = picture.path
    try:
        image = read_rgb(path, LOOK)
        with system_errors(path, "read"):
            with Image.open(path) as header:
                width, height = header.size
                is_turned = header.size != image.size and header.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            picture.width, picture.height = (height, width) if is_turned else (width, height)
            picture.bytes, picture.hash = path.stat().st_size, sha256(path)
    except UserError as error:
        picture.dropped = "unreadable"
        picture.why = str(error).removeprefix(f"{path} ").replace(str(path), path.name)
        return
    picture.cells = np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BILINEAR))


def drop_duplicates(pictures):
    """Drop copies of other Pictures. Of each the largest one in the first domain stays."""
    ranked = sorted(pictures, key=lambda one: (one.domain, -one.width * one.height, -one.bytes))
    for picture, index in zip(ranked, originals([one.cells for one in ranked]), strict=True):
        original = ranked[index]
        if picture is original:
            continue
        kind = "file" if picture.hash == original.hash else "picture"
        picture.dropped = "duplicate"
        picture.why = f"the same {kind} as {original.file} ({original.width} x {original.height})"
        if picture.domain != original.domain:
            picture.why += f": it is kept in {original.domain}, so it cannot be in {picture.domain}"


def split(pictures, share):
    """Give each Picture that is not dropped its part. Raises UserError if a domain has fewer than two.

    An image is for validation if the hash of its bytes, as a fraction of 1, is below the share. Each part gets at
    least one of each domain: the lowest hash moves into validation, the highest into training.
    """
    for domain, of_domain in groupby(pictures, attrgetter("domain")):
        group = list(of_domain)
        ranked = sorted((picture for picture in group if not picture.dropped), key=attrgetter("hash"))
        if len(ranked) < 2:
            reasons = Counter(picture.dropped for picture in group if picture.dropped)
            dropped = "".join(f", {number} {reason}" for reason, number in reasons.items())
            raise UserError(
                f"{domain} has too few pictures, for training and validation need at least one each: add some "
                f"({len(group)} found{dropped})"
            )
        below = sum(int(picture.hash[:13], 16) / 16**13 < share for picture in ranked)
        count = min(max(below, 1), len(ranked) - 1)
        for number, picture in enumerate(ranked):
            picture.part = "val" if number < count else "train"


def _lines(pictures, size, resize):
    """The lines of prepared.jsonl: a dict for each Picture."""
    shown = [one for one in pictures if one.dropped and one.cells is not None][:SMALL_MOST]
    small = dict(zip(shown, file_names([one.path for one in shown]), strict=True))
    lines = []
    for one in pictures:
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
    """Make the folder hold what the lines say. Raises UserError.

    It may be killed at any moment: a file is listed in prepared.jsonl before it is made and until it is removed, so
    each file under a listed name is either as listed or removed by step 2 of the next run.
    """
    listed, wanted = _files_of_earlier_run(out), _outputs(lines)
    # 1. Refuse to overwrite files of others.
    listed_names = {name.casefold() for name in listed}  # on some systems names that differ by capitals are one file
    foreign = [name for name in (*wanted, PAGE) if name.casefold() not in listed_names and (out / name).exists()]
    if foreign:
        raise UserError(f"{out / foreign[0]} was not made by this program and is in the way: move it elsewhere")
    # 2. Remove files that are no longer wanted, or wanted otherwise, and what killed runs left.
    folders = [out / SMALL, *(folder for part in PARTS for folder in (out / part).glob("*"))]
    for folder in folders:
        clear_away(folder)
    for name, line in listed.items():
        if name != PAGE and wanted.get(name) != line:
            with system_errors(out / name, "removed"):
                (out / name).unlink(missing_ok=True)
    for folder in folders:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
    # 3. List the wanted files.
    write_text(out / PREPARED, "".join(json.dumps(line) + "\n" for line in lines))
    # 4. Make those that are not there.
    missing = [name for name in wanted if not (out / name).exists()]
    _in_threads(lambda name: _write_output(wanted[name], source, out / name), missing, "writing pictures")
    # 5. Warn about files of others.
    domains = {Path(name).parent.as_posix() for name in wanted}
    for folder in folders:
        if folder.is_dir() and folder.relative_to(out).as_posix() not in (*domains, SMALL):
            console.warn(f"{folder} is not of this set, but not empty: remove it, or training takes it for a domain")
    foreign = [name for name in _images_of(out) if name not in wanted]
    if foreign:
        console.warn(f"{out} has {len(foreign)} images that this program did not make, {foreign[0]} say: they stay")


def _write_output(line, source, target):
    """Write the output of a line, or its small version."""
    path = source / line["file"]
    if "output" in line:
        image = squared(read_rgb(path, 2 * line["size"]), line["size"], line["resize"], Image.Resampling.LANCZOS)
    else:
        image = read_rgb(path, SMALL_SIDE)
        image.thumbnail((SMALL_SIDE, SMALL_SIDE))
    write_image(target, image)


def _images_of(out):
    """Names of the images in the parts of a set, whoever made them."""
    paths = (path for part in PARTS for path in (out / part).rglob("*") if is_image(path.name))
    return [path.relative_to(out).as_posix() for path in paths]


def _outputs(lines):
    """{name of a file to be made: its line}"""
    return {line[key]: line for line in lines for key in ("output", "small") if key in line}


def _files_of_earlier_run(out):
    """The files that an earlier run has listed, {name: line}, the page included. Raises UserError if unknown."""
    path = out / PREPARED
    if not path.exists():
        images = _images_of(out)
        if images:
            part = images[0].partition("/")[0]
            raise UserError(f"{out / part} has images that this program did not make: choose another folder for --out")
        return {}
    try:
        with system_errors(path, "read"):
            files = _outputs([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        for folder, *others in (name.split("/") for name in files):
            if folder not in (*PARTS, SMALL) or any(part != safe_name(part, 255) for part in others):
                raise ValueError  # this program gives no such names; '../x', say, must not be removed
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged, so what is there cannot be replaced: choose another --out") from error
    return {PAGE: None, **files}


def main(argv=None):
    """Run a command line. Exits with status 2 and one sentence on an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--in", dest="source", required=True, metavar="DIR", help="folder with one sub-folder of pictures per domain")
    add("--out", required=True, metavar="DIR", help="folder for train/, val/, prepared.jsonl and index.html")
    add("--size", type=int, default=256, help="side of the results, a power of two (256)")
    add("--val", type=float, default=0.1, help="share of the pictures that is for validation (0.1)")
    add("--resize", choices=["crop", "pad"], default="crop", help="cut to the middle (crop), or white beside it (pad)")
    add("--min_side", type=int, help="smaller side of the smallest pictures that are taken, in pixels (size / 2)")
    args = parser.parse_args(argv)
    if not 16 <= args.size <= 2**14 or args.size.bit_count() != 1:
        parser.error(f"--size is {args.size}, but must be a power of two from 16 up, such as 256")
    if not 0 < args.val < 1:
        parser.error(f"--val is {args.val}, but must be between 0 and 1, such as 0.1")
    if args.min_side is not None and args.min_side < 1:
        parser.error(f"--min_side is {args.min_side}, but must be at least 1")
    try:
        lines = prepare(args.source, args.out, args.size, args.val, args.resize, args.min_side)
    except (UserError, OSError) as error:
        parser.exit(exit_status(error))
    except KeyboardInterrupt:
        parser.exit(130, "error: stopped; the same command goes on\n")
    prepare_report.advise(lines, args.out, args.size)


if __name__ == "__main__":
    main()
