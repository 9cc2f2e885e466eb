"""What the program raises: the one exception that is meant for the user's eyes, and the request to stop."""


class UserError(Exception):
    """Something the user can mend. The message is one sentence: what is wrong and how to mend it.

    main.py prints it without a traceback and ends with exit status 2.
    """

    def __init__(self, message):
        # A DataLoader worker hands its exception on as a printed traceback whose last line is ours.
        super().__init__(message.rpartition("UserError: ")[2].strip())


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. number: of the signal; main.py ends with exit status 128 + number."""

    def __init__(self, number):
        super().__init__()
        self.number = number


class PeerError(UserError):
    """An error of another process of this run, which shows it."""

    def __init__(self):
        super().__init__("another process of this run shows what is wrong")


class PeerLost(Exception):
    """Other processes of this run cannot be reached: one of them has ended."""
