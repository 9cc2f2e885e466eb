"""The console: the only module that prints. Results go to stdout, warnings and progress to stderr.

Names of files and domains may come from strangers. Each function prints one line, with escapes for characters that
control a terminal, and for those that the encoding of the stream lacks. No failure of a stream ends a run.
"""

import atexit
import os
import sys
import unicodedata
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from multiprocessing import parent_process
from pathlib import Path
from types import SimpleNamespace

from tqdm import tqdm

CONTROLS = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: control, format, surrogate, line and paragraph break
JOINERS = "\u200c\u200d"  # format characters of Persian, Indic scripts and emoji, which change nothing else
FAILURES = (OSError, ValueError, LookupError)  # a closed pipe, a full disk, a closed stream, an unknown encoding

_rank = SimpleNamespace(tag="")  # empty on rank 0
_kinds_warned = set()  # by warn_once


def open_missing_streams():
    """Open the null device in place of standard streams that are closed, as for programs without a terminal.

    Libraries write to them, and the next file that is opened would otherwise get the number of such a stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # It gets the lowest free number.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (open until the end)
    atexit.unregister(_drop_unwritable)
    atexit.register(_drop_unwritable)


def _drop_unwritable():
    """Discard what cannot be written. Python would end with exit status 120 for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except FAILURES:
            with suppress(*FAILURES):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def set_rank_tag(tag):
    """Print only warnings and errors from now on, with the tag in front. For ranks other than 0."""
    _rank.tag = tag


def info(text=""):
    """Print a line above the progress bar, if there is one."""
    if not _rank.tag:
        _write(text, sys.stdout)


def warn(sentence):
    """Print a warning to stderr, on any rank."""
    _write(f"{_rank.tag}warning: {sentence}", sys.stderr)


def warn_once(kind, sentence):
    """Print the first warning of a kind, on rank 0. Worker processes print none: their parent has checked the files."""
    if not _rank.tag and parent_process() is None and kind not in _kinds_warned:
        _kinds_warned.add(kind)
        warn(sentence)


def error(sentence):
    """Print an error to stderr, on any rank."""
    _write(f"{_rank.tag}error: {sentence}", sys.stderr)


def text(lines, stream):
    """Print lines of the program's own, such as a help text, to a stream."""
    for line in lines.splitlines():
        _write(line, stream)


def _write(line, stream):
    if stream is None:  # pythonw, or a service
        return
    with suppress(*FAILURES):
        tqdm.write(printable(line, getattr(stream, "encoding", None)), file=stream)
        stream.flush()


def printable(line, encoding=None):
    """Return a line with escapes for control characters, line breaks, marks that reorder text, and characters that
    the encoding lacks. None: an encoding that has all characters."""
    harmless = (char in JOINERS or unicodedata.category(char) not in CONTROLS for char in line)
    escaped = (char if shown else ascii(char)[1:-1] for char, shown in zip(line, harmless, strict=True))
    line = "".join(escaped)
    return line.encode(encoding, "backslashreplace").decode(encoding) if encoding else line


def progress(items=None, desc=None, **options):
    """Return a tqdm bar with rate and time left. Only rank 0 shows it, and only on a terminal."""
    is_shown = not _rank.tag and sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
    if desc and is_shown:
        desc = printable(desc, sys.stderr.encoding)
    return tqdm(items, desc, dynamic_ncols=True, disable=not is_shown, **options)


def domain_line(what, names, labels):
    """Print the number of images of each domain."""
    count = Counter(labels)
    info(f"{what}: " + ", ".join(f"{name} ({count[label]})" for label, name in enumerate(names)))


def network_table(networks):
    """Print the number of parameters of each network."""
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    counts["total"] = sum(counts.values())
    width = max(map(len, counts))
    for name, count in counts.items():
        info(f"  {name:<{width}}  {count:>12,} parameters")


def loss_line(seconds, iteration, total_iters, losses):
    """Print the losses of an iteration. The conversion to floats waits for the device."""
    values = " ".join(f"{name}: [{float(value):.4f}]" for name, value in losses.items())
    info(f"Elapsed time [{timedelta(seconds=int(seconds))}], Iteration [{iteration}/{total_iters}], {values}")


def listed(names, most):
    """Return the first `most` names and the number of the others as one text: "a, b and 3 more"."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def as_list(names):
    """Return names as typed in a comma-separated list: names with commas and the like in double quotes."""

    def typed(name):
        needs_quotes = "," in name or name != name.strip() or name.startswith('"')
        return '"' + name.replace('"', '""') + '"' if needs_quotes else name

    return ",".join(typed(str(name)) for name in names)


def counted(number, noun):
    """A number with its noun: "1 image", "1,200 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
