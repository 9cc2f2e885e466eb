"""Requests to stop, Ctrl-C and SIGTERM, heard where stopping does no harm."""

import os
import signal
import threading
from contextlib import contextmanager

from core.system.errors import Stopped


class StopSignals:
    """Within the context, Ctrl-C and SIGTERM raise Stopped: at once, or at the end of what is `held`.

    A second Ctrl-C stops at once, as KeyboardInterrupt; a second SIGTERM changes nothing. quietly: nothing is
    raised, who works with others looks at `asked` and stops together with them.
    """

    def __init__(self, quietly=False):
        self.asked, self.holding, self.previous = 0, False, {}
        self.quietly = quietly

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # others may not have handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                    self.previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler or signal.SIG_DFL)

    @contextmanager
    def held(self):
        """What is within must not be torn apart."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
        if self.asked and not self.quietly:
            raise Stopped(self.asked)

    def _ask(self, number, _frame):
        if self.asked:
            if number == signal.SIGINT and not self.quietly:
                raise KeyboardInterrupt
            return
        self.asked = number
        if not (self.holding or self.quietly):
            raise Stopped(number)


def leave_to_the_parent(_worker=None):
    """In a process that reads images: Ctrl-C is the parent's affair, and SIGTERM is no failure."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def children_may_die():
    """Take back PyTorch's handler that raises wherever the program is when a process that reads images dies.

    The next batch that does not come tells it too, between two iterations.
    """
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
