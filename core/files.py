"""Files that are either whole or not there."""

import os
import re
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from core.errors import UserError


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; when the block ends well it takes the final name.

    Readers see the old file or the whole new one, never a half. If the block raises, the temporary
    file goes and the old one stays. The suffix is kept, since writers choose a format by it.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): free the way or go elsewhere"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path):
    """Make a folder and its parents, to be written into. Raises UserError where that cannot be done."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made a folder ({error.strerror}): choose another one") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"{path} is not writable: choose another folder")


def file_names(paths):
    """A name for each path, to build file names from: the stem; where several have the same, with the suffix or
    the folder; else with a number before it."""
    names = [""] * len(paths)
    for parts in ("{0.stem}", "{0.name}", "{0.parent.name}-{0.stem}", "{0.parent.name}-{0.name}"):
        tried = [safe_name(parts.format(Path(path))) for path in paths]
        count = Counter(name.casefold() for name in tried)  # capitals tell no files apart on some systems
        names = [name or new * (count[new.casefold()] == 1) for name, new in zip(names, tried, strict=True)]
    return [name or f"{number:05d}-{safe_name(Path(paths[number]).stem)}" for number, name in enumerate(names)]


def safe_name(text, most=60):
    """Text as part of a file name on every system: without separators and the like, at most 60 bytes long."""
    text = text.encode(errors="ignore").decode()  # of a name that is no text, what is
    plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", text)
    return plain.encode()[:most].decode(errors="ignore").strip(" .") or "_"
