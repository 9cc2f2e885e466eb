"""HTML page, console table and advice for a data set prepared by data.prepare."""

import os
import shlex
from collections import Counter
from subprocess import list2cmdline

from core.images.advice import warn_about_counts
from core.report import page
from core.system import console
from core.system.files import real_path

REASONS = {"duplicate": "duplicates", "too small": "too small", "unreadable": "unreadable"}
UNEQUAL = 10  # ratio of the largest to the smallest domain
SHOWN, ROWS = 60, 500  # images per domain, rows in the table of dropped images
CELL = 128  # minimum width of images on the page in pixels
SMALL_SIZE = 64  # largest size for which the demo preset is suggested
HEAD = ["domain", "found", "training", "validation", *REASONS.values()]


def count(lines):
    """Return table rows for HEAD, one per domain, then the sum. lines: those of prepared.jsonl, as dicts."""
    rows = []
    for domain in dict.fromkeys(line["domain"] for line in lines):
        of_domain = [line for line in lines if line["domain"] == domain]
        parts = Counter(line["output"].partition("/")[0] for line in of_domain if "output" in line)
        dropped = Counter(line["dropped"] for line in of_domain if "dropped" in line)
        rows.append([domain, len(of_domain), parts["train"], parts["val"], *(dropped[reason] for reason in REASONS)])
    return [*rows, ["all", *(sum(numbers) for numbers in list(zip(*rows, strict=True))[1:])]]


def write(path, lines, settings):
    """Write the page of a data set. settings: {name: value}. Raises UserError."""
    rows = count(lines)
    _, total, train, val, *_ = rows[-1]
    sections = [page.table("Domains", HEAD, rows, "Training samples all domains equally often, whatever their size.")]
    dropped = [line for line in lines if "dropped" in line]
    if dropped:
        sections += _dropped(dropped)
    for domain, *_ in rows[:-1]:
        of_domain = [line for line in lines if line["domain"] == domain and "output" in line]
        items = [page.picture(line["output"], _caption(line)) for line in of_domain[:SHOWN]]
        note = f"Only the first {SHOWN} are shown." if len(of_domain) > SHOWN else ""
        sections.append(page.gallery(f"{domain}: {console.counted(len(of_domain), 'image')}", items, note, CELL))
    status = f"{console.counted(total, 'image')}: {train} for training, {val} for validation, {len(dropped)} skipped"
    page.write_page(path, "Data set", sections + page.about(settings.items()), status)


def _caption(line):
    part = ", validation" if line["output"].startswith("val/") else ""
    return f"{line['file'].removeprefix(line['domain'] + '/')}, {_sides(line)}{part}"


def _dropped(lines):
    rows = [[line["file"], line["domain"], line["dropped"], line["why"]] for line in lines[:ROWS]]
    note = f"Only the first {ROWS} are listed. prepared.jsonl lists all of them." if len(lines) > ROWS else ""
    title = f"Skipped: {console.counted(len(lines), 'file')}"
    yield page.table(title, ["file", "domain", "reason", "details"], rows, note)
    shown = [line for line in lines if "small" in line]
    items = [page.picture(line["small"], f"{line['file']}, {_sides(line)}: {line['why']}") for line in shown]
    if items:
        readable = sum("width" in line for line in lines)
        note = f"Only the first {len(items)} of {readable} readable images are shown." if len(items) < readable else ""
        yield page.gallery("Skipped images", items, note, CELL)


def _sides(line):
    return f"{line['width']}\N{NO-BREAK SPACE}x\N{NO-BREAK SPACE}{line['height']}"


def advise(lines, out, size):
    """Print a summary, warn about problems for training, and print the next command."""
    rows = count(lines)
    _print_table([HEAD, *rows])
    train = {domain: number for domain, _, number, *_ in rows[:-1]}
    warn_about_counts(train)
    unreadable = [line for line in lines if line.get("dropped") == "unreadable"]
    if unreadable:
        names = console.listed([line["file"] for line in unreadable], 3)
        console.warn(
            f"Skipping {console.counted(len(unreadable), 'unreadable image')}: {names}. They will be missing from "
            f"the data set. First reason: {unreadable[0]['why']}"
        )
    if max(train.values()) > UNEQUAL * min(train.values()):
        console.info("Domains differ much in size. Training samples them equally often, so this is no problem.")
    blurred = sum("output" in line and min(line["width"], line["height"]) < size for line in lines)
    if blurred:
        console.info(f"Enlarged {console.counted(blurred, 'image')} with a side below {size} px. They are not sharp.")
    name = real_path(out).name
    flags = "--preset demo" if size <= SMALL_SIZE else "--w_hpf 0 --lambda_ds 2"
    words = f"python main.py train {flags} --img_size {size}".split()
    words += ["--train_img_dir", f"{out}/train", "--val_img_dir", f"{out}/val"]
    words += ["--checkpoint_dir", f"expr/checkpoints/{name}", "--sample_dir", f"expr/samples/{name}"]
    command = list2cmdline(words) if os.name == "nt" else shlex.join(words)
    console.info(f"Check the images in {out}/index.html. Then check whether training fits this machine, and start it:")
    console.info(f"  {command} --dry_run")
    console.info(f"  {command}")


def _print_table(rows):
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        console.info(f"{name:<{widths[0]}}  {numbers}")
