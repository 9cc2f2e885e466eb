"""Processes that run the program: forked off one that has imported all, alone or as torchrun starts them."""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch

import main
from tests.command import ROOT

START = "forkserver" if os.name == "posix" else "spawn"


def context():
    found = multiprocessing.get_context(START)
    if START == "forkserver":
        os.environ["PYTHONPATH"] = str(ROOT)
        found.set_forkserver_preload(["main", "tests.processes"])
    return found


def run_main(line, console, environment):
    """What a child does: main.main, its console into a file."""
    _settle_in(environment)
    with Path(console).open("w", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        sys.exit(main.main(line))


def call_in(environment, function, args):
    _settle_in(environment)
    function(*args)


def _settle_in(environment):
    os.environ.update(environment)
    if "RANK" in environment:
        torch.set_num_threads(1)


def start(line, console=os.devnull, environment=None):
    """A process that runs main.main(line)."""
    process = context().Process(target=run_main, args=(line, console, environment or {}))
    process.start()
    return process


def environments(world):
    """What torchrun tells each of `world` processes of one machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    ranks = map(str, range(world))
    return [common | {"RANK": rank, "LOCAL_RANK": rank} for rank in ranks]


def start_ranks(line, folder, world, **more):
    """`world` processes that run main.main(line) together; consoles in the folder, named by rank."""
    folder.mkdir(exist_ok=True)
    places = enumerate(environments(world))
    return [start(line, folder / str(rank), {**environment, **more}) for rank, environment in places]


def in_ranks(world, function, *args):
    """Call function(*args) in `world` processes together; return their exit codes."""
    started = []
    for environment in environments(world):
        started.append(context().Process(target=call_in, args=(environment, function, args)))
        started[-1].start()
    return ended(started)


def ended(processes, seconds=120):
    """Exit codes, when all have ended; those that have not by then are killed."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
