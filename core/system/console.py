"""The console: the only module that prints. Results go to stdout, warnings and progress to stderr."""

import sys
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from multiprocessing import parent_process
from types import SimpleNamespace

from tqdm import tqdm

_kinds_warned = set()
_rank = SimpleNamespace(tag="")  # empty on rank 0


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
        never_warn(kind)
        warn(sentence)


def never_warn(kind):
    """Let `warn_once` print no warning of a kind."""
    _kinds_warned.add(kind)


def error(sentence):
    """Print an error to stderr, on any rank."""
    _write(f"{_rank.tag}error: {sentence}", sys.stderr)


def _write(text, stream):
    with suppress(OSError):  # A closed pipe or a full disk must not stop a training.
        tqdm.write(text, file=stream)
        stream.flush()


def progress(items=None, **options):
    """Return a tqdm bar with rate and time left. Only rank 0 shows it, and only on a terminal."""
    return tqdm(items, dynamic_ncols=True, disable=bool(_rank.tag) or not sys.stderr.isatty(), **options)


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


def counted(number, noun):
    """A number with its noun: "1 image", "1,200 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
