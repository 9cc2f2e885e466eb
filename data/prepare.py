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

from core.images.folders import domain_names, images_below, is_image
from core.images.io import read_rgb, squared, write_image
from core.system import console
from core.system.device import usable_cores
from core.system.errors import UserError
from core.system.files import atomic_write, clear_away, file_names, locked, safe_name, sha256, system_errors
from data import prepare_report
from data.duplicates import CELLS, originals

PREPARED, PAGE = "prepared.jsonl", "index.html"
PARTS, SMALL = ("train", "val"), "small"  # folders; small: of pictures that were dropped, for the page
SMALL_MOST, SMALL_SIDE = 60, 160

LOOK = 256  # pixels that sides keep for a first look; with fewer, copies differ by how they are reduced


@dataclass(eq=False)
class Picture:
    """An input file, what is known of it, and what becomes of it."""

    path: Path
    file: str  # the path below the input folder, with slashes
    domain: str
    name: str  # of its output, without folder and suffix
    width: int = 0  # upright; 0 where it cannot be read
    height: int = 0
    bytes: int = 0
    hash: str = ""  # SHA-256 of its bytes
    cells: np.ndarray | None = None  # uint8 (CELLS, CELLS, 3)
    part: str = ""  # of PARTS; empty where it is dropped
    dropped: str = ""  # one of report.REASONS
    why: str = ""  # a sentence

    def drop(self, dropped, why):
        """Leave it out. dropped: one of report.REASONS. why: a sentence."""
        self.dropped, self.why = dropped, why


def prepare(source, out, size=256, share=0.1, resize="crop", min_side=None):
    """Make {out}/train and {out}/val of the pictures in source; return the lines of prepared.jsonl, as dicts.

    size: side of the results. share: of the pictures that is for validation. resize: "crop" or "pad", see
    core.images.squared. min_side: of a picture that is taken, size / 2 where it is None. Raises UserError, in which
    case nothing was written yet, unless the disk is full, say: then the same call goes on.
    """
    source, out = Path(source), Path(out)
    _apart(source, out)
    _standing(out)
    pictures = find(source)
    _in_threads(look, pictures, "looking at pictures")
    least = size // 2 if min_side is None else min_side
    for picture in pictures:
        side = min(picture.width, picture.height)
        if not picture.dropped and side < least:
            picture.drop("too small", f"its smaller side has {side} pixels, less than {least}")
    drop_duplicates([picture for picture in pictures if not picture.dropped])
    split(pictures, share)
    settings = {"in": str(source), "out": str(out), "size": size, "val": share, "resize": resize, "min_side": least}
    lines = _lines(pictures, size, resize)
    with locked(out):
        _write(lines, source, out)
        prepare_report.write(out / PAGE, lines, settings)
    return lines


def _apart(source, out):
    inside, outside = source.resolve(), out.resolve()
    if inside == outside or inside in outside.parents or outside in inside.parents:
        raise UserError(f"--in {source} and --out {out} lie in one another: choose another folder for --out")
    if out.is_file():
        raise UserError(f"--out {out} is a file: choose a folder")


def find(source):
    """A Picture for each image below the folders in source, domain by domain, sorted. Raises UserError."""
    pictures = []
    for domain in domain_names(source, "in"):
        if domain != safe_name(domain, 255):
            raise UserError(f"--in {source}: the name of {domain!r} does not suit every system: rename that folder")
        paths = images_below(source / domain, "in")
        for path, name in zip(paths, file_names(paths), strict=True):
            pictures.append(Picture(path, path.relative_to(source).as_posix(), domain, name))
    stray = sum(is_image(path.name) for path in source.iterdir())
    if stray:
        console.warn(f"--in {source} has {stray} images beside its sub-folders: they are left out")
    return pictures


def _in_threads(work, items, title):
    """Call work with each item, on as many at a time as there are cores. An error or Ctrl-C ends it soon."""
    executor = ThreadPoolExecutor(usable_cores())
    with warnings.catch_warnings():  # reading silences them, but one thread would undo it while another still reads
        warnings.simplefilter("ignore")
        try:
            done = executor.map(work, items)
            for _ in console.progress(done, total=len(items), desc=title, unit="img", leave=False):
                pass
        finally:
            executor.shutdown(cancel_futures=True)


def look(picture):
    """Find out what a Picture must know of itself; one that cannot be read is dropped."""
    path = picture.path
    try:
        image = read_rgb(path, LOOK)
        with system_errors(path, "read"):
            picture.width, picture.height = _sides(path, image)
            picture.bytes, picture.hash = path.stat().st_size, sha256(path)
    except UserError as error:
        picture.drop("unreadable", str(error).removeprefix(f"{path} ").replace(str(path), path.name))
        return
    picture.cells = np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BILINEAR))


def _sides(path, image):
    """Width and height of a file, upright, of which read_rgb gave the image, maybe a smaller one."""
    with Image.open(path) as header:
        width, height = header.size
        if (width, height) == image.size or header.getexif().get(ExifTags.Base.Orientation, 1) < 5:
            return width, height
        return height, width


def drop_duplicates(pictures):
    """Drop those that show what another one does. It stays in its first domain, there at its largest."""
    ranked = sorted(pictures, key=lambda one: (one.domain, -one.width * one.height, -one.bytes))
    for picture, index in zip(ranked, originals([one.cells for one in ranked]), strict=True):
        original = ranked[index]
        if picture is original:
            continue
        kind = "file" if picture.hash == original.hash else "picture"
        why = f"the same {kind} as {original.file} ({original.width} x {original.height})"
        if picture.domain != original.domain:
            why += f": it is kept in {original.domain}, so it cannot be in {picture.domain}"
        picture.drop("duplicate", why)


def split(pictures, share):
    """Give each Picture that is not dropped its part. Raises UserError where a domain has fewer than two.

    A picture is for validation where its hash, as a fraction of 1, is below the share. Each part gets at least one
    of each domain: the one with the lowest hash moves into validation, the one with the highest into training. The
    hash is of the bytes of the file: no renaming or moving changes it, nor another version of what decodes images.
    """
    for domain, group in groupby(pictures, attrgetter("domain")):
        found = list(group)
        ranked = sorted((picture for picture in found if not picture.dropped), key=attrgetter("hash"))
        if len(ranked) < 2:
            dropped = Counter(picture.dropped for picture in found if picture.dropped)
            left_out = "".join(f", {number} {reason}" for reason, number in dropped.items())
            raise UserError(
                f"{domain} has too few pictures, for training and validation need at least one each: add some "
                f"({len(found)} found{left_out})"
            )
        below = sum(int(picture.hash[:13], 16) / 16**13 < share for picture in ranked)
        count = min(max(below, 1), len(ranked) - 1)
        for number, picture in enumerate(ranked):
            picture.part = "val" if number < count else "train"


def _lines(pictures, size, resize):
    """What prepared.jsonl says of each Picture."""
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


def _write(lines, source, out):
    """Bring the folder up to date, by steps each of which may be the last one: files are made when they are listed,
    and listed until they are gone, so what is there under a listed name is right or goes."""
    listed, wanted = _standing(out), _outputs(lines)
    ours = {name.casefold() for name in listed}  # capitals tell no files apart on some systems
    strange = [name for name in (*wanted, PAGE) if name.casefold() not in ours and (out / name).exists()]
    if strange:
        raise UserError(f"{out / strange[0]} was not made by this program and is in the way: move it elsewhere")
    folders = [out / SMALL, *(folder for part in PARTS for folder in (out / part).glob("*"))]
    for folder in folders:
        clear_away(folder)
    for name, line in listed.items():
        if name != PAGE and wanted.get(name) != line:
            with system_errors(out / name, "removed"):
                (out / name).unlink(missing_ok=True)
    for folder in folders:
        with suppress(OSError):  # something is in it
            folder.rmdir()
    with atomic_write(out / PREPARED) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def make(name):
        line, path = wanted[name], source / wanted[name]["file"]
        if "output" in line:
            image = squared(read_rgb(path, 2 * line["size"]), line["size"], line["resize"], Image.Resampling.LANCZOS)
        else:
            image = read_rgb(path, SMALL_SIDE)
            image.thumbnail((SMALL_SIDE, SMALL_SIDE))
        write_image(out / name, image)

    _in_threads(make, [name for name in wanted if not (out / name).exists()], "writing pictures")
    _tell_of_others(out, wanted)


def _tell_of_others(out, wanted):
    found = (path.relative_to(out).as_posix() for part in PARTS for path in (out / part).rglob("*"))
    others = [name for name in found if is_image(name.rpartition("/")[2]) and name not in wanted]
    domains = {Path(name).parent.as_posix() for name in wanted}
    for folder in (path for part in PARTS for path in (out / part).glob("*") if path.is_dir()):
        if folder.relative_to(out).as_posix() not in domains:
            console.warn(f"{folder} is not of this set, but not empty: remove it, or training takes it for a domain")
    if others:
        console.warn(f"{out} has {len(others)} images that this program did not make, {others[0]} say: they stay")


def _outputs(lines):
    """{name of a file that was made: its line}"""
    return {line[key]: line for line in lines for key in ("output", "small") if key in line}


def _standing(out):
    """What an earlier run has listed, {name: line}, the page included. Raises UserError where that cannot be known."""
    path = out / PREPARED
    if not path.exists():
        full = next((part for part in PARTS if any(is_image(one.name) for one in (out / part).rglob("*"))), None)
        if full:
            raise UserError(f"{out / full} has images that this program did not make: choose another folder for --out")
        return {}
    try:
        with system_errors(path, "read"):
            found = _outputs([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        if not all(_is_ours(name) for name in found):
            raise ValueError
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged, so what is there cannot be replaced: choose another --out") from error
    return {PAGE: None, **found}


def _is_ours(name):
    """Whether a listed name is of the kind that this program gives, in the folder and nowhere else."""
    first, *others = name.split("/")
    return first in (*PARTS, SMALL) and all(part == safe_name(part, 255) for part in others)


def main(argv=None):
    """The command line. Exits with status 2 and one sentence where something is wrong."""
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
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    except OSError as error:
        parser.exit(2, f"error: {error.filename} cannot be used ({error.strerror}): free the way or go elsewhere\n")
    except KeyboardInterrupt:
        parser.exit(130, "error: stopped; the same command goes on\n")
    prepare_report.advise(lines, args.out, args.size)


if __name__ == "__main__":
    main()
