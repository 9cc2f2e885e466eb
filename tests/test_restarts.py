"""torchrun starts a run again when one of its processes is killed; it ends with the files of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.command import ROOT, RUN, as_flags
from tests.test_kill import contents

FLAGS = f"{RUN} --total_iters 8 --save_every 1 --sample_every 0 --eval_every 0 --val_batch_size 2 --batch_size 4"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes")


@pytest.fixture(scope="module")
def start(faces, tmp_path_factory):
    """start(folder) -> torchrun, of two processes that train into the folder; none outlives the tests."""
    samples, started = tmp_path_factory.mktemp("samples"), []

    def start(folder):
        where = {"train_img_dir": faces / "train", "val_img_dir": faces / "val", "sample_dir": samples}
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        line = ["main.py", "--mode", "train", *FLAGS.split(), *as_flags({**where, "checkpoint_dir": folder})]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen([*torchrun, "--max-restarts", "2", *line], cwd=ROOT, **pipes))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.terminate()


def ranks(torchrun):
    """Process ids of its processes, by rank."""
    line = ["ps", "-o", "pid=", "--ppid", str(torchrun.pid)]
    return sorted(map(int, subprocess.run(line, capture_output=True, text=True).stdout.split()))


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """Files of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    said, _ = start(folder).communicate(timeout=120)
    assert len(contents(folder)) == 4 * 8, said
    return contents(folder)


def kill_one(start, undisturbed, folder, rank, files, seconds):
    """Kill a process so many seconds after there were so many files."""
    torchrun, end = start(folder), time.monotonic() + 60
    while (len(ranks(torchrun)) < 2 or len(list(folder.glob("0*"))) < files) and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(seconds)
    os.kill(ranks(torchrun)[rank], signal.SIGKILL)
    said, _ = torchrun.communicate(timeout=120)
    assert torchrun.returncode == 0 and "Signal 9" not in said, said
    assert contents(folder) == undisturbed, said


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process(rank, start, undisturbed, tmp_path):
    """Amid training; the run goes on from the newest whole step without being told to."""
    kill_one(start, undisturbed, tmp_path / "run", rank, files=14, seconds=0)


@pytest.mark.slow
def test_ten_killed_processes(start, undisturbed, tmp_path):
    chance = random.Random(0)
    for number in range(10):
        files, seconds = (0, chance.uniform(0, 6)) if number < 3 else (chance.randrange(1, 26), chance.uniform(0, 0.1))
        kill_one(start, undisturbed, tmp_path / str(number), chance.randrange(2), files, seconds)
