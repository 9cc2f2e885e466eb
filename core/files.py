"""Files that are either whole or not there."""

import os
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
