"""Pages that show what a run made: one file of HTML that opens from the disk, without a server or the network.

A page is a list of sections, plain dicts made by the functions here; core/page.html, a template, draws them. Pictures
stay files beside the page.
"""

import json
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from core.system.errors import UserError
from core.system.files import atomic_write

TEMPLATE = Path(__file__).with_name("page.html")
MARK = '<script type="application/json" id="data">'  # of pages made from it
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scipy", "av")


def write_page(path, title, sections, status="", share=None, live=False):
    """Write a page whole under its final name. Raises UserError where it cannot be, or another page is in the way.

    title, status: texts above the sections. share: of the work that is done, from 0 to 1, None where that is not to be
    shown. live: the page renews itself every minute.
    """
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    status = f"{status}, written {moment}" if status else f"Written {moment}"
    content = {"title": title, "status": status, "share": share, "live": live, "sections": sections}
    data = json.dumps(content, allow_nan=False).replace("<", "\\u003c")  # no text in it ends the script
    html = TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", data)
    if Path(path).exists() and MARK not in Path(path).read_text(encoding="utf-8", errors="replace"):
        raise UserError(
            f"{path} was not made by this program, so it stays: choose another folder, or move it elsewhere"
        )
    with atomic_write(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def facts(title, rows):
    """Names and values, (name, value) each, side by side."""
    return {"kind": "facts", "title": title, "rows": [[name, value] for name, value in rows]}


def table(title, head, rows, note="", folded=False):
    """A table; `head` may be empty. folded: closed until it is clicked."""
    return {"kind": "table", "title": title, "head": head, "rows": rows, "note": note, "folded": folded}


def gallery(title, items, note="", cell=240):
    """Pictures in a grid. items: as from `picture`. cell: their least width in pixels."""
    return {"kind": "gallery", "title": title, "items": items, "note": note, "cell": cell}


def picture(file, caption, small=None):
    """A picture or mp4 video, by its path relative to the page; small: another file that is shown in its place."""
    video = Path(file).suffix.lower() == ".mp4"
    return {"file": address(file), "shown": address(small or file), "caption": caption, "video": video}


def steps(title, captions, by_step):
    """Pictures with a slider over steps, the newest first. captions: {kind: text}, in the order of the tabs.

    by_step: {step: {kind: (file, small or None)}}, not empty.
    """
    shown = [
        {
            "step": step,
            "pictures": {
                kind: {"file": address(file), "shown": address(small or file)} for kind, (file, small) in files.items()
            },
        }
        for step, files in sorted(by_step.items())
    ]
    return {"kind": "steps", "title": title, "captions": captions, "steps": shown}


def curves(title, charts):
    """Charts, as from `chart`, side by side."""
    return {"kind": "curves", "title": title, "charts": charts}


def chart(title, note, lines):
    """One chart. lines: {name: [(step, value), ...]}, at most two of them, values finite."""
    return {
        "title": title,
        "note": note,
        "lines": [{"name": name, "points": points} for name, points in lines.items()],
    }


def about(settings):
    """Folded tables at the end of a page: settings, rows of (name, value), and versions."""
    rows = [[name, "" if value is None else str(value)] for name, value in settings]
    kinds = {"Settings": rows, "Versions": [list(row) for row in versions().items()]}
    return [table(title, [], rows, folded=True) for title, rows in kinds.items()]


def versions():
    """What the program runs on: {name: version} of Python, the system and packages."""
    found = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # built from source, or left out
    return found


def address(path):
    """A relative path as a page names it."""
    return quote(Path(path).as_posix())
