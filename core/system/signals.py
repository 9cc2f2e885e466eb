"""Signals: Ctrl-C and SIGTERM stop the program; handlers of DataLoader workers."""

import os
import signal
import threading
from contextlib import contextmanager

from core.system.errors import Stopped


class StopSignals:
    """Within the context, Ctrl-C and SIGTERM raise Stopped, at once or at the end of a `deferred` block.

    A second Ctrl-C raises KeyboardInterrupt at once; a second SIGTERM is ignored. raises: False for several ranks,
    which must stop together: nothing is raised, and the caller checks `requested`, the first signal's number or 0.
    """

    def __init__(self, raises=True):
        self.raises, self.requested, self.is_deferred = raises, 0, False
        self.previous_handlers = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only in this thread.
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:  # Leave signals ignored that are (e.g. by nohup).
                    self.previous_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)

    @contextmanager
    def deferred(self):
        """Finish the block before the first signal raises Stopped."""
        self.is_deferred = True
        try:
            yield
        finally:
            self.is_deferred = False
        if self.requested and self.raises:
            raise Stopped(self.requested)

    def _handle(self, number, _frame):
        if not self.requested:
            self.requested = number
            if self.raises and not self.is_deferred:
                raise Stopped(number)
        elif self.raises and number == signal.SIGINT:
            raise KeyboardInterrupt


def set_worker_signals(_worker_id=None):
    """Make a DataLoader worker ignore Ctrl-C, which its parent handles, and exit without an error on SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def restore_child_signal():
    """Remove PyTorch's handler that raises at any place when a DataLoader worker dies. The next batch then raises."""
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
