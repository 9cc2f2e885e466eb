"""Processes that run the program, alone or as ranks, forked from a server that has imported everything."""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch

import main
from tests.command import NARROW, ROOT

FLAGS = f"{NARROW} --batch_size 8 --num_workers 0 --eval_every 0 --val_batch_size 2 --num_outs_per_domain 1"
SHORT = f"{FLAGS} --total_iters 4 --print_every 1 --save_every 2 --sample_every 4"

START = "forkserver" if os.name == "posix" else "spawn"


def context():
    found = multiprocessing.get_context(START)
    if START == "forkserver":
        os.environ["PYTHONPATH"] = str(ROOT)
        found.set_forkserver_preload(["core.commands", "tests.processes"])
    return found


def run_main(line, console, environment):
    """In the child: run main.main and write its console into a file."""
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
    """The environment that torchrun gives each of `world` processes of one machine."""
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
    """Exit codes of all; kills those that still run after `seconds` each."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
