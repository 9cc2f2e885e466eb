"""Which images a data set has: a compact list, stored with each step, and its comparison with that of a later run.

An entry has 6 bytes: a hash of the file's name and the lowest bytes of its size. The entries of a domain are sorted and
written as base64. Times do not count: copying a data set does not change it.
"""

import base64
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path

from core.system import console

NAME, SIZE = 4, 2  # bytes of an entry


def inventory(samples, root, domains):
    """Return the list of a data set, one text per domain. samples: [(path, label)]. domains: names in label order."""
    entries = [[] for _ in domains]
    for path, label in samples:
        name = Path(path).relative_to(Path(root, domains[label])).as_posix()
        hashed = zlib.crc32(name.encode(errors="surrogatepass"))
        entries[label].append(hashed.to_bytes(NAME, "big") + _size(path).to_bytes(SIZE, "big"))
    return [base64.b64encode(b"".join(sorted(of_domain))).decode() for of_domain in entries]


def _size(path):
    with suppress(OSError):  # The image was removed after it was found.
        return Path(path).stat().st_size % 256**SIZE
    return 0


def warn_about_changes(saved, current, folders, domains, step):
    """Warn where images were added, removed or changed since a step was saved.

    saved, current: {flag of a folder: list from `inventory`}; saved may be anything, since it comes from a file.
    folders: {flag: path}.
    """
    for flag, now in current.items():
        before = _entries(saved.get(flag) if isinstance(saved, dict) else None)
        if before is None or len(before) != len(domains):
            continue  # An earlier version or another program saved the step.
        pairs = zip(domains, before, _entries(now), strict=True)
        changes = [f"{name} ({text})" for name, old, new in pairs if (text := _difference(old, new))]
        if changes:
            console.warn(
                f"The images in --{flag} {folders[flag]} differ from those of step {step}: "
                f"{console.listed(changes, 10)}. A renamed image counts as one added and one removed. "
                "The resumed run is no longer bit-exact: it gives other results than with the earlier images."
            )


def _entries(texts):
    """Return {hash of a name: sizes} of each domain, None if it is no list from `inventory`."""
    try:
        contents = [base64.b64decode(text, validate=True) for text in texts]
    except (TypeError, ValueError):
        return None
    width, domains = NAME + SIZE, []
    for content in contents:
        domains.append({})
        for start in range(0, len(content), width):
            name, size = content[start : start + NAME], content[start + NAME : start + width]
            domains[-1].setdefault(name, Counter())[size] += 1
    return domains


def _difference(old, new):
    """Return the difference of two domains, such as "2 added, 1 removed"; an empty text if there is none."""
    counts = Counter()
    for name in old.keys() | new.keys():
        before, after = old.get(name, Counter()), new.get(name, Counter())
        gone, come = (before - after).total(), (after - before).total()
        counts += Counter({"changed": min(gone, come), "added": max(0, come - gone), "removed": max(0, gone - come)})
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in ("added", "removed", "changed") if counts[kind])
