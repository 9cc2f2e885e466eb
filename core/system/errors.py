"""What the program raises: errors that it reports in one sentence, and the request to stop."""


class UserError(Exception):
    """One sentence that says what is wrong and how the user can mend it. main.py ends with exit status 2."""

    def __init__(self, message):
        # An error of a DataLoader worker arrives here with the worker's printed traceback as message. That ends with
        # "core.system.errors.UserError: <sentence>": only the sentence is kept.
        super().__init__(message.rpartition("UserError: ")[2].strip())


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. number: of the signal; main.py ends with exit status 128 + number."""

    def __init__(self, number):
        super().__init__()
        self.number = number


class PeerError(UserError):
    """An error of another rank, which reports it."""

    def __init__(self):
        super().__init__("another process of this run shows what is wrong")


class PeerLost(Exception):
    """The other ranks cannot be reached: one of them has ended."""
