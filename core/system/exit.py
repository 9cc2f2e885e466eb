"""How the program ends after an error: which rank prints what, and the exit status."""

import signal
import time

from core.system import console, distributed
from core.system.errors import PeerError, PeerLost, Stopped, UserError
from core.system.memory import explain


def exit_status(error, is_training=False):
    """Report the error that ends the program, once for all ranks; return the exit status. Raises bugs again."""
    sentence, status = _describe(error)
    if not sentence:
        raise error
    if isinstance(error, (Stopped, PeerLost)):  # all ranks stop; only rank 0 reports it
        hint = "; --resume_iter latest goes on from the last saved step" if is_training else ""
        if distributed.is_main_process():
            console.error(sentence + hint)
    elif not isinstance(error, PeerError):  # the rank with the cause reports it
        console.error(sentence)
    if isinstance(error, UserError) and not distributed.has_begun():
        distributed.declare_over(status)  # a restart by torchrun would end the same way
    if isinstance(error, (PeerError, PeerLost)):
        time.sleep(1)  # torchrun names the process that ends first: let it be the one with the cause
    return status


def _describe(error):
    """Return (sentence, exit status) for an error that ends the program; the sentence of an unexpected one is empty."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, PeerLost):
        return str(error), 1
    if isinstance(error, Stopped):
        return f"stopped by {signal.Signals(error.number).name}", 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return "stopped at once by a second Ctrl-C", 130
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used ({error.strerror}): free the way or go elsewhere", 2
    return explain(error), 2
