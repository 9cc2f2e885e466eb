"""The environment variables of torchrun and other launchers of several processes. Does not need PyTorch."""

import os

from core.system.errors import UserError

MOST = 2**20  # processes


def is_launched():
    """Whether a launcher started this process, perhaps as one of several."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def is_rank_0():
    """Return whether this is the only process or rank 0 of several. True if RANK is not an integer."""
    try:
        return not is_launched() or int(os.environ["RANK"]) == 0
    except ValueError:
        return True


def check_launcher():
    """Raise UserError if a variable of the launcher is missing, not an integer, or out of range."""
    size = _number("WORLD_SIZE", 1, MOST)
    _number("RANK", 0, size - 1)
    _number("MASTER_PORT", 1, 2**16 - 1)
    local_size = _number("LOCAL_WORLD_SIZE", 1, size, default=size)
    _number("LOCAL_RANK", 0, local_size - 1, default=0)


def local_rank():
    """Return the number of this process among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _number(name, low, high, default=None):
    text = os.environ.get(name, default)
    try:
        number = int(text)
    except (ValueError, TypeError):  # TypeError: None
        number = None
    if number is None or not low <= number <= high:
        got = f"got {text}" if text else "but it is empty" if text == "" else "but it is missing"
        rule = f"the environment variable {name} must be an integer from {low} to {high}"
        raise UserError(f"Cannot join the processes of this run ({rule}, {got}). Start the program with torchrun.")
    return number
