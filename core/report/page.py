"""HTML pages about runs. A page is a list of sections (dicts) that page.html draws; images are separate files."""

import json
import platform
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from core.system.errors import UserError
from core.system.files import system_errors, write_text
from core.system.notes import read_text

TEMPLATE = Path(__file__).with_name("page.html")
MARK = '<script type="application/json" id="data">'  # identifies pages of this program
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scipy", "av")


def write_page(path, title, sections, status="", progress=None, live=False):
    """Write a page. progress: 0 to 1. live: reload every minute. Raises UserError, also instead of overwriting a file
    of another program."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    status = f"{status}, written {moment}" if status else f"Written {moment}"
    content = {"title": title, "status": status, "progress": progress, "live": live, "sections": sections}
    data = json.dumps(content, allow_nan=False).replace("<", "\\u003c")  # so that no text ends the script element
    check_page(path)
    write_text(path, TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", data))


def check_page(path):
    """Raise UserError if a file of another program has the path of a page."""
    with system_errors(path, "read"):
        is_foreign = Path(path).exists() and MARK not in read_text(path, errors="replace")
    if is_foreign:
        raise UserError(f"Cannot overwrite {path} (another program created it). Move it or choose another folder.")


def facts(title, rows):
    """Return a section of facts. rows: (name, value)."""
    return {"kind": "facts", "title": title, "rows": rows}


def table(title, head, rows, note="", folded=False):
    """Return a section with a table. head: may be empty. folded: show the rows only after a click."""
    return {"kind": "table", "title": title, "head": head, "rows": rows, "note": note, "folded": folded}


def tables(title, parts):
    """Return a section with small tables beside each other. parts: from `table`."""
    return {"kind": "tables", "title": title, "parts": parts}


def gallery(title, items, note="", cell=240, folded=False):
    """Return a section with a grid of images. items: from `picture`. cell: minimum width of an image in pixels."""
    return {"kind": "gallery", "title": title, "items": items, "note": note, "cell": cell, "folded": folded}


def picture(file, caption, small=None):
    """Return a gallery item. file: image or mp4 video, relative to the page. small: file of a smaller version."""
    video = Path(file).suffix.lower() == ".mp4"
    return {**_files(file, small), "caption": caption, "video": video}


def steps(title, captions, by_step):
    """Return a section of images with a slider over steps. captions: {kind: text} of the tabs.

    by_step: {step: {kind: (file, small)}}, see `picture`.
    """
    entries = []
    for step, by_kind in sorted(by_step.items()):
        entries.append({"step": step, "pictures": {kind: _files(*files) for kind, files in by_kind.items()}})
    return {"kind": "steps", "title": title, "captions": captions, "steps": entries}


def _files(file, small):
    paths = {"file": Path(file), "shown": Path(small or file)}  # Names of files may have bytes that are no text.
    return {name: quote(path.as_posix(), errors="surrogateescape") for name, path in paths.items()}


def curves(title, charts):
    """Return a section of charts from `chart`."""
    return {"kind": "curves", "title": title, "charts": charts}


def chart(title, note, lines):
    """Return one chart. lines: {name: [(step, value), ...]}, at most two, with finite values."""
    return {"title": title, "note": note, "lines": [{"name": name, "points": lines[name]} for name in lines]}


def about(settings):
    """Return the last sections of a page, folded tables of settings and versions. settings: (name, value) pairs."""
    rows = [(name, "" if value is None else str(value)) for name, value in settings]
    return [table("Settings", [], rows, folded=True), table("Versions", [], list(versions().items()), folded=True)]


def versions():
    """Return {name: version} of Python, the system and the main packages."""
    by_name = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # The package is built from source or not installed.
            by_name[name] = version(name)
    return by_name
