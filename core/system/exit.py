"""The end of the program after an error: messages and exit status."""

import time

from core.system import console, distributed
from core.system.errors import PeerError, PeerLost, Stopped, UserError, reason
from core.system.memory import explain
from core.system.signals import signal_name


def exit_status(error, is_training=False):
    """Print the error that ends the program, once for all ranks, and return the exit status. Re-raises bugs."""
    sentence, status = _describe(error)
    if not sentence:
        raise error
    if isinstance(error, (Stopped, PeerLost)):  # All ranks stop, but only rank 0 reports it.
        hint = " To continue from the last saved step, add --resume_iter latest." if is_training else ""
        if distributed.is_main_process():
            console.error(sentence + hint)
    elif not isinstance(error, PeerError):  # The rank with the cause reports it.
        console.error(sentence)
    if isinstance(error, UserError) and not distributed.has_begun():
        distributed.declare_over(status)  # A restart by torchrun would fail in the same way.
    if isinstance(error, (PeerError, PeerLost)):
        time.sleep(1)  # torchrun reports the process that ends first. This must be the rank with the cause.
    return status


def _describe(error):
    """Return (message, exit status) of an error that ends the program. The message of a bug is empty."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, PeerLost):
        return str(error), 1
    if isinstance(error, Stopped):
        return f"Stopped by {signal_name(error.number)}.", 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return "Stopped at once by a second Ctrl-C.", 130
    if isinstance(error, OSError) and error.filename:
        advice = "Check free space and permissions, or choose another path"
        return f"Cannot use {error.filename} ({reason(error)}). {advice}.", 2
    return explain(error), 2
