"""Files that are either whole or not there."""

import hashlib
import json
import os
import platform
import re
import time
from collections import Counter
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from core.system.errors import UserError

WRITING = ".writing-"  # how names of files begin that are not whole yet


@contextmanager
def atomic_write(path, durable=False):
    """Yield a temporary path beside `path`; when the block ends well it takes the final name.

    Readers see the old file or the whole new one, never a half. If the block raises, the temporary
    file goes and the old one stays. The suffix is kept, since writers choose a format by it.
    durable: the file is on the disk, not only in the system's memory, before it takes the name.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f"{WRITING}{os.getpid()}-{path.name}")
    try:
        with system_errors(path, "written"):
            yield temporary
            if durable:
                _sync(temporary)
            temporary.replace(path)
        if durable and os.name == "posix":  # the name is in the folder, which not every system can be told to write
            with suppress(OSError):
                _sync(path.parent, os.O_RDONLY)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def system_errors(path, done):
    """Turn what the system refuses into a UserError. done: what was to be done with the path, "written" say."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be {done} ({error.strerror or error}): free the way or go elsewhere") from error


def _sync(path, flags=os.O_RDWR):
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder):
    """Within the context no other process can lock the folder. Raises UserError where one has.

    The system holds the lock and lets it go however the process ends, so a lock is never stale; the note
    beside it says who has it.
    """
    folder = Path(folder)
    make_folder(folder)
    lock, note = FileLock(folder / ".lock", timeout=0), folder / ".running.json"
    with system_errors(folder, "locked"):
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"{folder} is in use by another run{_who(note)}: stop it, or choose another folder"
            ) from error
    try:
        clear_away(folder)
        with suppress(OSError):  # it only helps to find who has the lock
            note.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


def _who(note):
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        return f" (process {said['pid']} on {said['host']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def next_free_path(folder, name):
    """The first path in a folder that nothing has. name: with a place for a number that counts from 1."""
    return next(path for n in count(1) if not (path := Path(folder, name.format(n))).exists())


def clear_away(folder, older_than=0):
    """Remove what was being written, more than so many seconds ago, when an earlier run was killed."""
    for path in Path(folder).glob(f"{WRITING}*"):
        with suppress(OSError):
            if path.stat().st_mtime <= time.time() - older_than:
                path.unlink()


def sha256(path):
    """The hash of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


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
        count = Counter(name.casefold() for name in (*names, *tried))  # capitals tell no files apart on some systems
        names = [name or new * (count[new.casefold()] == 1) for name, new in zip(names, tried, strict=True)]
    numbered = [f"{number:05d}-{safe_name(Path(path).stem)}" for number, path in enumerate(paths)]
    names = [name or other for name, other in zip(names, numbered, strict=True)]
    return names if len({name.casefold() for name in names}) == len(names) else numbered


def safe_name(text, most=60):
    """Text as part of a file name on every system: without separators and the like, at most 60 bytes long."""
    text = text.encode(errors="ignore").decode()  # of a name that is no text, what is
    plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", text)
    return plain.encode()[:most].decode(errors="ignore").strip(" .") or "_"
