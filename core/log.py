"""The console: the only module that prints. Results go to stdout, warnings and progress to stderr."""

import sys
from collections import Counter
from datetime import timedelta

from tqdm import tqdm


def say(text=""):
    """Print a line without tearing a progress bar apart."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def warn(sentence):
    tqdm.write(f"warning: {sentence}", file=sys.stderr)


def error(sentence):
    tqdm.write(f"error: {sentence}", file=sys.stderr)


def progress(items=None, **options):
    """A tqdm bar with rate and time left on a terminal, nothing elsewhere."""
    return tqdm(items, dynamic_ncols=True, disable=not sys.stderr.isatty(), **options)


def domain_line(names, labels):
    """Print the domains with their numbers of images."""
    count = Counter(labels)
    say("Domains: " + ", ".join(f"{name} ({count[label]})" for label, name in enumerate(names)))


def network_table(networks):
    """Print name and number of parameters of each network."""
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    counts["total"] = sum(counts.values())
    width = max(map(len, counts))
    for name, count in counts.items():
        say(f"  {name:<{width}}  {count:>12,} parameters")


def loss_line(seconds, iteration, total_iters, losses):
    """Print the losses of an iteration; this is where they become floats."""
    elapsed = timedelta(seconds=int(seconds))
    values = " ".join(f"{name}: [{float(value):.4f}]" for name, value in losses.items())
    say(f"Elapsed time [{elapsed}], Iteration [{iteration}/{total_iters}], {values}")
