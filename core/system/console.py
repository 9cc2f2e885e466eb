"""The console: the only module that prints. OutputWriter go to stdout, warnings and progress to stderr."""

import sys
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace

from tqdm import tqdm

_voice = SimpleNamespace(tag="")  # of this process, one of several; the first one needs none


def set_rank_tag(tag):
    """From now on be silent but for warnings and errors, which get the tag: this is one process of several."""
    _voice.tag = tag


def info(text=""):
    """Print a line without tearing a progress bar apart."""
    if not _voice.tag:
        _write(text, sys.stdout)


def warn(sentence):
    """Print a warning to stderr, from any process."""
    _write(f"{_voice.tag}warning: {sentence}", sys.stderr)


def error(sentence):
    """Print an error to stderr, from any process."""
    _write(f"{_voice.tag}error: {sentence}", sys.stderr)


def _write(text, stream):
    with suppress(OSError):  # nobody listens, or the disk of the log is full: no reason to lose a training
        tqdm.write(text, file=stream)
        stream.flush()


def progress(items=None, **options):
    """A tqdm bar with rate and time left on a terminal, nothing elsewhere."""
    return tqdm(items, dynamic_ncols=True, disable=bool(_voice.tag) or not sys.stderr.isatty(), **options)


def domain_line(what, names, labels):
    """Print the domains with their numbers of images."""
    count = Counter(labels)
    info(f"{what}: " + ", ".join(f"{name} ({count[label]})" for label, name in enumerate(names)))


def network_table(networks):
    """Print name and number of parameters of each network."""
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    counts["total"] = sum(counts.values())
    width = max(map(len, counts))
    for name, count in counts.items():
        info(f"  {name:<{width}}  {count:>12,} parameters")


def loss_line(seconds, iteration, total_iters, losses):
    """Print the losses of an iteration; this is where they become floats."""
    elapsed = timedelta(seconds=int(seconds))
    values = " ".join(f"{name}: [{float(value):.4f}]" for name, value in losses.items())
    info(f"Elapsed time [{elapsed}], Iteration [{iteration}/{total_iters}], {values}")
