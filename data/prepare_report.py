"""The page of a set made by data.prepare, and a table and advice on the console."""

import os
import shlex
from collections import Counter
from pathlib import Path
from subprocess import list2cmdline

from core.report import page
from core.system import console

REASONS = {"duplicate": "duplicates", "too small": "too small", "unreadable": "unreadable"}
FEW = 100  # training pictures of a domain
UNEQUAL = 10  # times as many in one domain as in another
SHOWN, ROWS = 60, 500  # images of a domain, rows of the table of dropped images
CELL = 128  # pixels of pictures on the page
SMALL_SIZE = 64  # the demo preset has networks for it
HEAD = ["domain", "found", "training", "validation", *REASONS.values()]


def count(lines):
    """Rows of a table under HEAD: one for each domain, then their sum. lines: of prepared.jsonl, as dicts."""
    rows = []
    for domain in dict.fromkeys(line["domain"] for line in lines):
        of_domain = [line for line in lines if line["domain"] == domain]
        parts = Counter(line["output"].partition("/")[0] for line in of_domain if "output" in line)
        dropped = Counter(line["dropped"] for line in of_domain if "dropped" in line)
        rows.append([domain, len(of_domain), parts["train"], parts["val"], *(dropped[reason] for reason in REASONS)])
    return [*rows, ["all", *(sum(numbers) for numbers in list(zip(*rows, strict=True))[1:])]]


def write(path, lines, settings):
    """Write the page into the folder of the set. settings: {name: value}. Raises UserError."""
    rows = count(lines)
    _, total, train, val, *_ = rows[-1]
    sections = [page.table("Domains", HEAD, rows, "Training takes all domains equally often, however large they are.")]
    dropped = [line for line in lines if "dropped" in line]
    if dropped:
        sections += _dropped(dropped)
    for domain, *_ in rows[:-1]:
        of_domain = [line for line in lines if line["domain"] == domain and "output" in line]
        items = [page.picture(line["output"], _caption(line)) for line in of_domain[:SHOWN]]
        note = f"The first {SHOWN} of them." if len(of_domain) > SHOWN else ""
        sections.append(page.gallery(f"{domain}: {len(of_domain)} pictures", items, note, CELL))
    status = f"{total} pictures: {train} for training, {val} for validation, {len(dropped)} left out"
    page.write_page(path, "A set of pictures", sections + page.about(settings.items()), status)


def _caption(line):
    part = ", validation" if line["output"].startswith("val/") else ""
    return f"{line['file'].removeprefix(line['domain'] + '/')}, {_sides(line)}{part}"


def _dropped(lines):
    rows = [[line["file"], line["domain"], line["dropped"], line["why"]] for line in lines[:ROWS]]
    note = f"The first {ROWS}; prepared.jsonl has all of them." if len(lines) > ROWS else ""
    yield page.table(f"Left out: {len(lines)} files", ["file", "domain", "reason", "why"], rows, note)
    shown = [line for line in lines if "small" in line]
    items = [page.picture(line["small"], f"{line['file']}, {_sides(line)}: {line['why']}") for line in shown]
    if items:
        readable = sum("width" in line for line in lines)
        note = f"The first {len(items)} of {readable} that can be read." if len(items) < readable else ""
        yield page.gallery("What was left out", items, note, CELL)


def _sides(line):
    return f"{line['width']}\N{NO-BREAK SPACE}x\N{NO-BREAK SPACE}{line['height']}"


def advise(lines, out, size):
    """Print what was made, warn about what harms a training, and print the next command."""
    rows = count(lines)
    _print_table([HEAD, *rows])
    train = {domain: number for domain, _, number, *_ in rows[:-1]}
    few = {domain: number for domain, number in train.items() if number < FEW}
    if few:
        listed = ", ".join(f"{domain} {number}" for domain, number in few.items())
        console.warn(
            f"domains with fewer than {FEW} training pictures ({listed}): below some hundred, translations repeat what "
            "is there; add pictures, or start from a trained network with --init_from"
        )
    unreadable = [line for line in lines if line.get("dropped") == "unreadable"]
    if unreadable:
        console.warn(f"{len(unreadable)} files cannot be read, {unreadable[0]['file']} say: {unreadable[0]['why']}")
    if len(train) == 1:
        console.warn("there is one domain, so pictures can only change their style in it: add a folder for another one")
    if max(train.values()) > UNEQUAL * min(train.values()):
        console.info("Domains differ much in size. Training takes them equally often, so this does no harm.")
    blurred = sum("output" in line and min(line["width"], line["height"]) < size for line in lines)
    if blurred:
        console.info(
            f"{blurred} pictures have a side below {size} pixels and were enlarged, so they are not quite sharp."
        )
    name = Path(out).resolve().name
    flags = "--preset demo" if size <= SMALL_SIZE else "--w_hpf 0 --lambda_ds 2"
    words = f"python main.py --mode train {flags} --img_size {size}".split()
    words += ["--train_img_dir", f"{out}/train", "--val_img_dir", f"{out}/val"]
    words += ["--checkpoint_dir", f"expr/checkpoints/{name}", "--sample_dir", f"expr/samples/{name}"]
    command = list2cmdline(words) if os.name == "nt" else shlex.join(words)
    console.info(f"Look at {out}/index.html. Then see whether a training fits this machine, and start it:")
    console.info(f"  {command} --dry_run")
    console.info(f"  {command}")


def _print_table(rows):
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        console.info(f"{name:<{widths[0]}}  {numbers}")
