"""Errors that the program reports to the user, and the request to stop."""

import re
from contextlib import contextmanager


class UserError(Exception):
    """What failed, why, and what the user can do. main.py ends with exit status 2."""

    def __init__(self, message):
        # PyTorch re-raises the error of a DataLoader worker with the worker's traceback as message. It ends with
        # "core.system.errors.UserError: <message>". Keep only this last message.
        super().__init__(message.rpartition("UserError: ")[2].strip())


@contextmanager
def value_errors():
    """Raise UserErrors as ValueErrors, as users of the Python API expect. Also a decorator."""
    try:
        yield
    except UserError as error:
        raise ValueError(str(error)) from error


class Stopped(KeyboardInterrupt):
    """A request to stop. number: of the signal, or 0 at the end of --max_hours. main.py ends with status 128 + number
    after a signal, and with 0 after --max_hours."""

    def __init__(self, number):
        super().__init__()
        self.number = number


class PeerError(UserError):
    """Another rank failed and reports the cause."""

    def __init__(self):
        super().__init__("Cannot continue (another process failed). See its error message.")


class PeerLost(Exception):
    """This rank cannot reach the others, since one of them has ended."""


def reason(error):
    """Return the message as part of another sentence: of a UserError without its advice, of an OSError its reason."""
    text = getattr(error, "strerror", None) or str(error)
    if isinstance(error, UserError):
        text = re.split(r"(?<=[)\w])\. (?=[A-Z])", text)[0].rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
