"""Signals that stop the program, and handlers of DataLoader workers."""

import os
import signal
import threading
import time
from contextlib import ExitStack, contextmanager

from core.system import console
from core.system.errors import Stopped
from core.system.launcher import is_rank_0

PROGRAM_START = time.monotonic()  # main.py imports this module before PyTorch
STOP_SIGNALS = [getattr(signal, name) for name in (
    "SIGINT", "SIGQUIT", "SIGHUP", "SIGBREAK",  # a terminal: Ctrl-C, Ctrl-\\, closed; Ctrl-Break or closed (Windows)
    "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGPWR",  # schedulers and systems that are about to end the program
) if hasattr(signal, name)]  # fmt: skip


@contextmanager
def _handled_by(handle):
    """Within the context, handle(number, frame) handles the stop signals, except those that are ignored."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers only in this thread.
        yield
        return
    handled = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores one
    previous_handlers = {number: signal.signal(number, handle) for number in handled}
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def ending_at_once():
    """Within the context, a stop signal ends the process with one sentence. For imports: an exception that is raised
    in the middle of one may crash the process or appear as another error."""

    def end(number, _frame):
        if is_rank_0():
            console.error(f"Stopped by {signal_name(number)}.")
        os._exit(128 + number)

    with _handled_by(end):
        yield


def signal_name(number):
    """Return what stopped the program: Ctrl-C, or the name of a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class StopSignals:
    """Within the context, stop signals raise Stopped, at once or at the end of a `deferred` block.

    A second Ctrl-C raises KeyboardInterrupt at once; other signals are then ignored. raises: False for several ranks,
    which must stop together: nothing is raised, and the caller checks `requested`, the first signal's number or 0.
    """

    def __init__(self, raises=True):
        self.raises, self.requested, self.is_deferred = raises, 0, False
        self.handlers = ExitStack()

    def __enter__(self):
        self.handlers.enter_context(_handled_by(self._handle))
        return self

    def __exit__(self, *_):
        self.handlers.close()

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
    """Make a DataLoader worker ignore signals that its parent handles, and exit without an error on SIGTERM."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def restore_child_signal():
    """Remove PyTorch's handler that raises at any place when a DataLoader worker dies. The next batch then raises."""
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
