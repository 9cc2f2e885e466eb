"""torchrun restarts a run when a rank is killed, and the run ends with the files of an undisturbed one."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.command import ROOT, RUN, as_flags
from tests.runs import contents

FLAGS = f"{RUN} --total_iters 8 --save_every 1 --sample_every 0 --eval_every 0 --val_batch_size 2 --batch_size 4"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes")


@pytest.fixture(scope="module")
def start(faces, tmp_path_factory):
    """start(folder) -> torchrun of two ranks that train into the folder; the fixture ends them all."""
    samples, started = tmp_path_factory.mktemp("samples"), []

    def start(folder, flags="", nodes=("--standalone", "--nproc_per_node", "2")):
        where = {"train_img_dir": faces / "train", "val_img_dir": faces / "val", "sample_dir": samples}
        torchrun = [sys.executable, "-m", "torch.distributed.run", *nodes]
        line = ["main.py", "--mode", "train", *f"{FLAGS} {flags}".split()]
        line += as_flags({**where, "checkpoint_dir": folder})
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the number of threads changes the last bits
        started.append(subprocess.Popen([*torchrun, "--max-restarts", "1", *line], env=environment, **options))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.terminate()


def ranks(torchrun):
    """Process ids of the ranks, in their order."""
    line = ["ps", "-o", "pid=", "--ppid", str(torchrun.pid)]
    return sorted(map(int, subprocess.run(line, capture_output=True, text=True).stdout.split()))


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """Files of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    said, _ = start(folder).communicate(timeout=120)
    assert len(contents(folder)) == 4 * 8, said
    return contents(folder)


def kill_one(start, undisturbed, folder, rank, files, seconds):
    """Kill a rank `seconds` after the folder holds `files` files."""
    torchrun = start(folder)
    wait_for(lambda: len(ranks(torchrun)) == 2 and len(list(folder.glob("0*"))) >= files)
    time.sleep(seconds)
    os.kill(ranks(torchrun)[rank], signal.SIGKILL)
    said, _ = torchrun.communicate(timeout=120)
    assert torchrun.returncode == 0 and "Signal 9" not in said, said
    assert contents(folder) == undisturbed, said


def test_torchrun_restarts_after_a_killed_rank(start, undisturbed, tmp_path):
    """The run resumes from the newest complete step without a flag."""
    kill_one(start, undisturbed, tmp_path / "run", rank=0, files=14, seconds=0)


def test_two_nodes_continue_after_a_killed_rank(start, undisturbed, tmp_path):
    """The launcher of the other node counts no restart of its own; both continue."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    nodes = ["--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_id", "test"]
    nodes += ["--rdzv_endpoint", f"127.0.0.1:{port}", "--local_addr", "127.0.0.1"]
    launchers = [start(tmp_path / "run", nodes=nodes) for _ in range(2)]
    wait_for(lambda: len(list((tmp_path / "run").glob("0*"))) >= 14)
    # Rank 0 holds the lock; the other rank is killed.
    holder = json.loads((tmp_path / "run" / ".running.json").read_text())["pid"]
    (victim,) = (pid for launcher in launchers for pid in ranks(launcher) if pid != holder)
    os.kill(victim, signal.SIGKILL)
    said = [launcher.communicate(timeout=120)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], said
    assert contents(tmp_path / "run") == undisturbed and not list((tmp_path / "run").glob("earlier_*")), said


def test_user_errors_and_stop_signals_are_not_retried(start, tmp_path):
    """User errors are printed once; SIGTERM to one rank stops the run, which torchrun would restart otherwise."""
    refused = start(tmp_path / "refused", "--batch_size 3")
    said, _ = refused.communicate(timeout=120)
    assert refused.returncode == 1 and said.count("error: --batch_size must be a multiple of 2, ") == 1
    asked = start(tmp_path, "--total_iters 100000 --save_every 0")
    wait_for(lambda: len(ranks(asked)) == 2 and (tmp_path / ".running.json").is_file())
    time.sleep(3)
    os.kill(ranks(asked)[1], signal.SIGTERM)
    said, _ = asked.communicate(timeout=120)
    assert asked.returncode == 1 and said.count("Stopped by SIGTERM.") == said.count("Saved step") == 1, said
    assert len(list(tmp_path.glob("*_manifest.json"))) == 1


def wait_for(happened):
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_runs_with_ten_killed_ranks_end_with_the_same_files(start, undisturbed, tmp_path):
    chance = random.Random(0)
    for number in range(10):
        files, seconds = (0, chance.uniform(0, 6)) if number < 3 else (chance.randrange(1, 26), chance.uniform(0, 0.1))
        kill_one(start, undisturbed, tmp_path / str(number), chance.randrange(2), files, seconds)
