"""The values that a flag can have: how each kind is parsed, and the rule that an error names."""

import difflib
import math
import re
from collections.abc import Callable
from typing import NamedTuple

from core.system import console
from core.system.errors import UserError

MAX_INT = 10**18  # fits everywhere an integer goes
MAX_SEEDS = 10_000
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Kind(NamedTuple):
    """A kind of value. parse: text -> value; raises ValueError where the text breaks the rule."""

    parse: Callable
    rule: str  # "--flag must be {rule}, got ..."
    metavar: str = ""  # stands for the value in --help
    choices: tuple = ()  # the only values, where they are few


def parse_value(name, kind, text):
    """Return the value of a flag. Raises UserError where the text breaks its rule."""
    try:
        return kind.parse(text)
    except ValueError as error:
        close = nearest(text, kind.choices)
        hint = f" Did you mean {close}?" if close else ""
        raise UserError(f"--{name} must be {kind.rule}, got {text or 'nothing'}.{hint}") from error


def nearest(name, names):
    """Return the name that is spelt most like another one; None where none is close."""
    plain = {known.replace("_", "").lower(): known for known in names}
    close = difflib.get_close_matches(name.replace("_", "").lower(), plain, n=1, cutoff=0.7)
    return plain[close[0]] if close else None


def as_typed(value):
    """Return a flag's value as typed on a command line; an empty text for None."""
    if isinstance(value, (list, tuple)):
        return console.as_list(value)
    return "" if value is None else str(value)


def _require(condition):
    if not condition:
        raise ValueError


def _within(parse, low, high, is_open=False):
    def parse_number(text):
        value = parse(text)
        _require(low <= value < high if is_open else low <= value <= high)  # NaN fails, too
        return value

    return parse_number


def integers(low=-MAX_INT, high=MAX_INT):
    """Integers from low to high."""
    if low == -MAX_INT:
        return Kind(_within(int, low, high), "an integer of at most 18 digits", "N")
    rule = f"an integer >= {low}" if high == MAX_INT else f"an integer from {low} to {high}"
    return Kind(_within(int, low, high), rule, "N")


def numbers(low=0, high=math.inf, is_open=True):
    """Finite numbers from low to high. is_open: high itself is no such number."""
    limit = "" if high == math.inf else f" and {'<' if is_open else '<='} {high}"
    return Kind(_within(float, low, high, is_open), f"a number >= {low}{limit}", "X")


def _hours(text):
    value = float(text)
    _require(0 < value < math.inf)
    return value


def one_of(*choices):
    """One of several words."""

    def parse(text):
        _require(text in choices)
        return text

    return Kind(parse, f"one of {', '.join(choices)}", "|".join(choices), choices)


def word_or(word, kind):
    """A word, or a value of another kind."""
    return Kind(lambda text: text if text == word else kind.parse(text), f"{word} or {kind.rule}", f"{word}|N")


def each_of(*choices):
    """A comma-separated list of some of several words, each once."""

    def parse(text):
        names = _names(text)
        _require(set(names) <= set(choices))
        return names

    return Kind(parse, f"a comma-separated list of {', '.join(choices)}, each at most once", "LIST")


def _device(text):
    _require(re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", text, re.ASCII))
    return text


def _path(text):
    _require(text)
    return text


def _side(text):
    value = int(text)
    _require(16 <= value <= 2**14 and value.bit_count() == 1)
    return value


def _truth(text):
    _require(text.lower() in WORDS)
    return WORDS[text.lower()]


def _names(text):
    """'cat,"cats, dogs"' -> ["cat", "cats, dogs"]. As in CSV, quotes count only around a name; "" is a quote in it."""
    parts = re.findall(r'\s*(?:"((?:[^"]|"")+)"\s*|([^,]*))(?:,|\Z)', f"{text},")[:-1]
    names = [quoted.replace('""', '"') or plain.strip() for quoted, plain in parts]
    _require("" not in names and len(set(names)) == len(names))
    return names


def _seeds(text):
    """'0-2,20' -> [0, 1, 2, 20]"""
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        _require(first.isdecimal() and last.isdecimal() and int(first) <= int(last) < MAX_INT)
        _require(len(seeds) + int(last) - int(first) < MAX_SEEDS)
        seeds += range(int(first), int(last) + 1)
    return list(dict.fromkeys(seeds))


def _part(text):
    value = float(text)
    _require(0 <= value < MAX_INT and (value < 1 or value.is_integer()))
    return value if value < 1 else int(value)


DEVICE = Kind(_device, "one of auto, cpu, cuda, mps, or a GPU such as cuda:1", "NAME", ("auto", "cpu", "cuda", "mps"))
SWITCH = Kind(_truth, "given without a value")
TEXT = Kind(str, "a text", "NAME")
PATH = Kind(_path, "a path", "PATH")
TRUTH = Kind(_truth, "yes or no", "yes|no")
AUTO_SWITCH = Kind(word_or("auto", TRUTH).parse, "auto, yes or no", "auto|yes|no")  # the flag alone stands for yes
NAMES = Kind(_names, "a comma-separated list of names, each once", "LIST")
SEEDS = Kind(_seeds, f"at most {MAX_SEEDS} integers and ranges, such as 0-9,20", "LIST")
PART = Kind(_part, "a fraction below 1, or a number of images per domain", "X")
HOURS = Kind(_hours, "a number > 0", "X")
SIDE = Kind(_side, "a power of two from 16 to 16384, such as 256", "N")
COUNT, POSITIVE, INTEGER = integers(0), integers(1), integers()
NUMBER, DECAY, FRACTION = numbers(), numbers(0, 1), numbers(0, 1, is_open=False)
