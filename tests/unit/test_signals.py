"""Signals that ask the program to stop."""

import os
import signal
import subprocess
import sys

import pytest

from core.system.errors import Stopped
from core.system.signals import STOP_SIGNALS, StopSignals, set_worker_signals, signal_name
from tests.command import ROOT

INTERRUPTED = """
import signal, sys
import main

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[2]:
            signal.raise_signal(int(sys.argv[1]))

sys.meta_path.insert(0, Finder())
sys.exit(main.main(["sample", "--preset", "demo"]))
"""
POSIX = "SIGINT SIGTERM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGXCPU"


def test_terminals_and_schedulers_have_their_signals():
    if os.name == "posix":
        assert {getattr(signal, name) for name in POSIX.split()} <= set(STOP_SIGNALS)
    assert {signal.SIGINT, signal.SIGTERM} <= set(STOP_SIGNALS)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_stops_at_once_or_after_a_deferred_block(number):
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(Stopped) as stop, StopSignals():
            signal.raise_signal(number)
            pytest.fail("not reached")
        assert stop.value.number == number and signal.getsignal(number) == signal.SIG_DFL
        done = []
        with pytest.raises(Stopped) as stop, StopSignals() as signals, signals.deferred():
            signal.raise_signal(number)
            done.append(signals.requested)
        assert done == [stop.value.number] == [number]
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(number)
        assert not signals.requested and signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_workers_leave_signals_to_their_parent():
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        set_worker_signals()
        ignored = [number for number in STOP_SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert set(ignored) == set(STOP_SIGNALS) - {signal.SIGTERM}


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("name", "module"), [("SIGINT", "torch"), ("SIGINT", "torchvision"), ("SIGTERM", "numpy"), ("SIGQUIT", "torch")]
)
def test_a_signal_during_the_imports_ends_with_one_sentence(name, module):
    number = getattr(signal, name)
    line = [sys.executable, "-c", INTERRUPTED, str(int(number)), module]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (
        128 + number,
        "",
        f"error: Stopped by {signal_name(number)}.\n",
    )
