"""Atomic writes, locks on folders, and file names."""

import errno
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

from core.system import console
from core.system.errors import UserError, reason
from core.system.notes import parse_json, read_text

NO_LOCKS = {getattr(errno, name, None) for name in ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL", "ENOTTY")}
NO_LOCKS.add(524)  # ENOTSUPP of the Linux kernel, which some network disks return
WRITING = ".writing-"  # prefix of the names of incomplete files
LONGEST_NAME = 255  # bytes
LONGEST_SUFFIX = 16  # characters of a temporary name; all suffixes of formats are shorter


@contextmanager
def atomic_write(path, durable=False):
    """Yield a temporary path beside `path`, and rename it to `path` at the end of the block.

    If the block raises an error, the old file stays. The temporary name has the same suffix, since writers choose the
    format by it, but is short, as the system limits the length. durable: flush the file to the disk before the rename.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f"{WRITING}{os.getpid()}-{_short_hash(path.name)}{path.suffix[-LONGEST_SUFFIX:]}")
    try:
        with system_errors(path, "write"):
            yield temporary
            if durable:
                _sync(temporary)
            temporary.replace(path)
        if durable and os.name == "posix":  # The folder stores the name. Not every file system can flush a folder.
            with suppress(OSError):
                _sync(path.parent, os.O_RDONLY)
    finally:
        _remove(temporary)


def write_text(path, text, durable=False):
    """Write a text file with `atomic_write`."""
    with atomic_write(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _remove(path):
    """Remove a file if possible. Ignore errors."""
    with suppress(OSError):
        path.unlink()


@contextmanager
def system_errors(path, action):
    """Turn an OSError of the block into a UserError. action: the verb, "write", "read", "remove" or "lock"."""
    try:
        yield
    except OSError as error:
        advice = "Check free space and permissions, or choose another path"
        raise UserError(f"Cannot {action} {path} ({reason(error)}). {advice}.") from error


def _sync(path, flags=os.O_RDWR):
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(*folders):
    """Lock the folders within the context. Raises UserError if another process has locked one; warns where the file
    system has no locks.

    The system releases the lock when the process ends in any way. A file, the note, names the process that holds it.
    Folders that are new and still empty at the end are removed.
    """
    with ExitStack() as stack:
        for folder in {real_path(folder): Path(folder) for folder in folders}.values():
            new = [path for path in (folder, *folder.parents) if not path.exists()]
            stack.callback(_remove_empty, new)
            make_folder(folder)
            note, lock = folder / ".running.json", folder / ".lock"
            has_locks = _lock(lock, note, stack)
            clear_away(folder, older_than=0 if has_locks else 3600)  # Another run may write there now.
            stack.callback(_remove_if_alone, lock)
            stack.callback(_remove, note)
            with suppress(OSError):  # The note is only information for the user.
                note.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
        yield


def _lock(path, note, stack):
    """Lock a file until the stack closes. Return whether its file system has locks. Raises UserError."""
    with system_errors(path.parent, "lock"):
        try:
            # The fallback of the package, a file that marks the lock, would outlast a killed process.
            stack.enter_context(FileLock(path, timeout=0, fallback_to_soft=False))
            return True
        except Timeout as error:
            problem = f"another run uses it{_holder(note)}"
            advice = "Stop the other run or choose another folder"
            raise UserError(f"Cannot lock {path.parent}: {problem}. {advice}.") from error
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                _remove_if_alone(path)
                raise
            console.warn(
                f"Cannot lock {path.parent} ({reason(error)}). The program continues, but cannot notice a second run "
                "in this folder. Two runs at once would overwrite each other's files."
            )
            return False


def _remove_if_alone(path):
    """Remove a file if there is no other file in its folder."""
    with suppress(OSError):
        if list(path.parent.iterdir()) == [path]:
            path.unlink()


def _remove_empty(folders):
    """Remove those of the folders that are empty. folders: each before its parent."""
    with suppress(OSError):  # not empty
        for folder in folders:
            folder.rmdir()


def _holder(note):
    try:
        holder = parse_json(read_text(note))
        return f" (process {holder['pid']} on {holder['host']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def real_path(path):
    """Return the absolute path without links. Unlike Path.resolve, it accepts a link that leads to itself."""
    return Path(os.path.realpath(path))


def next_free_path(folder, name):
    """Return the first free path in a folder. name: contains {} for a number, which counts from 1."""
    return next(path for n in count(1) if not (path := Path(folder, name.format(n))).exists())


def move_aside(paths, folder):
    """Move files to a new subfolder (earlier_1, or the next free number) and return it; None without files."""
    if not paths:
        return None
    aside = next_free_path(folder, "earlier_{}")
    with system_errors(folder, "write"):
        aside.mkdir()
        for path in paths:
            path.replace(aside / path.name)
    return aside


def clear_away(folder, older_than=0):
    """Remove incomplete files of killed runs. older_than: least distance of their time from now, in seconds.

    Times in the future come from a clock that ran ahead. With a lock on the folder, every incomplete file is old.
    """
    for path in Path(folder).glob(f"{WRITING}*"):
        with suppress(OSError):
            if abs(time.time() - path.lstat().st_mtime) >= older_than:
                path.unlink()


def sha256(path):
    """Return the SHA-256 hash of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def make_folder(path):
    """Create a folder and its parents. Raises UserError if this fails or the folder is not writable."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot create folder {path} ({reason(error)}). Choose another folder.") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"Cannot write to folder {path} (permission denied). Choose another folder.")


def delete_earlier(folder, pattern):
    """Create a folder, and delete the files of an earlier run in it. pattern: of their names. Raises UserError."""
    make_folder(folder)
    clear_away(folder, older_than=3600)
    for old in Path(folder).glob(pattern):
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"Cannot delete {old} ({reason(error)}). Close any program that uses it.") from error


def file_names(paths):
    """Return a distinct name for each path: its stem, plus suffix, folder or both if needed, else plus a number."""
    names = {}  # index of the path -> name
    for template in ("{0.stem}", "{0.name}", "{0.parent.name}-{0.stem}", "{0.parent.name}-{0.name}"):
        candidates = [safe_name(template.format(Path(path))) for path in paths]
        uses = Counter(name.casefold() for name in (*names.values(), *candidates))  # Some file systems ignore case.
        for index, name in enumerate(candidates):
            if index not in names and uses[name.casefold()] == 1:
                names[index] = name
    numbered = [f"{index:05d}-{safe_name(Path(path).stem)}" for index, path in enumerate(paths)]
    names = [names.get(index, name) for index, name in enumerate(numbered)]
    return names if len({name.casefold() for name in names}) == len(names) else numbered


def with_suffix_added(name, suffix):
    """Return name + suffix, shortened in the middle to the length that file systems allow, and still distinct."""
    if len(os.fsencode(name + suffix)) <= LONGEST_NAME:
        return name + suffix
    end = f"-{_short_hash(name)}{suffix}"
    return os.fsencode(name)[: LONGEST_NAME - len(end)].decode(errors="ignore") + end


def _short_hash(name):
    return hashlib.blake2b(os.fsencode(name), digest_size=6).hexdigest()


def safe_name(text, most=60):
    """Return the text as part of a file name that is valid on every system, at most `most` bytes long."""
    text = text.encode(errors="ignore").decode()  # Drop bytes of a file name that are not valid text.
    plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", text)
    return plain.encode()[:most].decode(errors="ignore").strip(" .") or "_"
