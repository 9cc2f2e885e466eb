"""Readers of the program's own notes (logs, scores, caches, statistics), which may be damaged."""

import errno
import json
import math
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path

from core.system import console
from core.system.errors import reason

ARRAY_ERRORS = (  # raised by NumPy and zipfile for damaged files
    OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, RuntimeError, ArithmeticError, SyntaxError,
    MemoryError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


def read_text(path, errors="strict"):
    """Return the text of a file. Raises OSError, also for pipes and devices; ValueError if it is not UTF-8."""
    _check_regular(path)
    return Path(path).read_text(encoding="utf-8", errors=errors)


def _check_regular(path):
    """Raise OSError if something other than a file has this path: opening a pipe or a device may block."""
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def parse_json(text):
    """Return the value of a JSON text. Raises ValueError, also if it is nested too deep or a number is out of range."""
    try:
        return json.loads(text, parse_int=_int64, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _int64(text):
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError("a number is out of range")
    return number


def _finite(text):
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def read_json_lines(path, is_valid=lambda row: True):
    """Return the valid objects in a file of JSON lines. Warn once about damaged lines; a missing file has none.

    is_valid: whether an object has the right entries. An incomplete last line is no damage: killed runs leave it.
    """
    try:
        lines = read_text(path, errors="replace").split("\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        console.warn(f"Cannot read {path} ({reason(error)}). The program continues without it.")
        return []
    rows, damaged = [], 0
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
        except ValueError:
            damaged += bool(line.strip()) and number < len(lines)
        else:
            if isinstance(row, dict) and is_valid(row):
                rows.append(row)
            else:
                damaged += 1
    if damaged:
        skipped = f"Skipping {console.counted(damaged, 'damaged line')} of {path}"
        console.warn_once(f"damaged lines of {path}", f"{skipped}. The other lines are used.")
    return rows


def read_arrays(path, names):
    """Return {name: array} of an .npz file. Raises OSError, and ValueError if it is damaged."""
    import numpy as np  # takes longer than all other imports of this module

    try:
        _check_regular(path)
        with warnings.catch_warnings(), Path(path).open("rb") as file:
            warnings.simplefilter("ignore")  # damaged headers
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in names}
    except ARRAY_ERRORS as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError("damaged or incomplete") from error
