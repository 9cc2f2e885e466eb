"""Files that are either complete or not there, locks on folders, and names of files."""

import hashlib
import json
import os
import platform
import re
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from core.system.errors import UserError

WRITING = ".writing-"  # prefix of the names of files that are not complete yet


@contextmanager
def atomic_write(path, durable=False):
    """Yield a temporary path beside `path`, and rename it to `path` at the end of the block.

    If the block raises, the old file stays. The temporary name keeps the suffix, since writers choose a format by it.
    durable: flush the file to the disk before it is renamed.
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
        if durable and os.name == "posix":  # the folder holds the name; not every system can flush a folder
            with suppress(OSError):
                _sync(path.parent, os.O_RDONLY)
    finally:
        _remove(temporary)


def write_text(path, text, durable=False):
    """Write a text file as in `atomic_write`."""
    with atomic_write(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json_lines(path):
    """Yield the objects in a file of JSON lines, without damaged ones; a file that cannot be read has none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(ValueError):  # cut short when the run was killed
            row = json.loads(line)
            if isinstance(row, dict):
                yield row


def _remove(path):
    """Remove a file that nobody needs, if it is there and the system allows it."""
    with suppress(OSError):
        path.unlink()


@contextmanager
def system_errors(path, action):
    """Turn an OSError of the block into a UserError. action: what failed, as a participle: "written" or "read"."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be {action} ({reason}): free the way or go elsewhere") from error


def _sync(path, flags=os.O_RDWR):
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(*folders):
    """Within the context no other process can lock one of the folders. Raises UserError where one has.

    The system releases a lock however the process ends. A file beside it, the note, names the process that holds it.
    """
    with ExitStack() as stack:
        for folder in {Path(folder).resolve(): Path(folder) for folder in folders}.values():
            make_folder(folder)
            note = folder / ".running.json"
            with system_errors(folder, "locked"):
                try:
                    stack.enter_context(FileLock(folder / ".lock", timeout=0))
                except Timeout as error:
                    sentence = f"{folder} is in use by another run{_holder(note)}: stop it, or choose another folder"
                    raise UserError(sentence) from error
            clear_away(folder)
            stack.callback(_remove, note)
            with suppress(OSError):  # the note only helps the user
                note.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
        yield


def _holder(note):
    try:
        holder = json.loads(note.read_text(encoding="utf-8"))
        return f" (process {holder['pid']} on {holder['host']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def next_free_path(folder, name):
    """Return the first path in a folder that does not exist. name: has a {} for a number, which counts from 1."""
    return next(path for n in count(1) if not (path := Path(folder, name.format(n))).exists())


def move_aside(paths, folder):
    """Move files into a new sub-folder, earlier_1 or the next free number, and return it; None without files."""
    if not paths:
        return None
    aside = next_free_path(folder, "earlier_{}")
    with system_errors(folder, "written"):
        aside.mkdir()
        for path in paths:
            path.replace(aside / path.name)
    return aside


def clear_away(folder, older_than=0):
    """Remove the incomplete files of killed runs that are older than so many seconds."""
    for path in Path(folder).glob(f"{WRITING}*"):
        with suppress(OSError):
            if path.stat().st_mtime <= time.time() - older_than:
                path.unlink()


def sha256(path):
    """Return the hash of a file's content as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def make_folder(path):
    """Make a folder and its parents. Raises UserError where that fails or the folder is not writable."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made a folder ({error.strerror}): choose another one") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"{path} is not writable: choose another folder")


def file_names(paths):
    """Return a distinct name for each path: its stem, with suffix or folder or both, else with a number in front."""
    names = {}  # index of the path -> name
    for template in ("{0.stem}", "{0.name}", "{0.parent.name}-{0.stem}", "{0.parent.name}-{0.name}"):
        candidates = [safe_name(template.format(Path(path))) for path in paths]
        uses = Counter(name.casefold() for name in (*names.values(), *candidates))  # some file systems ignore case
        for index, name in enumerate(candidates):
            if index not in names and uses[name.casefold()] == 1:
                names[index] = name
    numbered = [f"{index:05d}-{safe_name(Path(path).stem)}" for index, path in enumerate(paths)]
    names = [names.get(index, name) for index, name in enumerate(numbered)]
    return names if len({name.casefold() for name in names}) == len(names) else numbered


def safe_name(text, most=60):
    """Return the text as part of a file name that every system allows, at most `most` bytes long."""
    text = text.encode(errors="ignore").decode()  # drops the bytes of a file name that are not text
    plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", text)
    return plain.encode()[:most].decode(errors="ignore").strip(" .") or "_"
