"""Runs of several processes of which one is killed or asked to stop."""

import signal
import time

import pytest

import main
from core.solver import Solver
from core.system import distributed
from core.training import loop
from tests.command import line_of
from tests.processes import SHORT, ended, in_ranks, start_ranks
from tests.runs import folders, losses, steps


@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm_to_any_rank_saves_once_and_stops_all(rank, data, tmp_path):
    """All ranks stop at the same iteration, which is saved once."""
    flags = f"{SHORT.replace('--total_iters 4', '--total_iters 100000')} --save_every 0 --sample_every 0"
    started = start_ranks(line_of("train", flags, folders(tmp_path, data)), tmp_path, 2)
    wait_for(tmp_path / "0", "Iteration [3/")
    started[rank].terminate()
    assert ended(started, 60) == [128 + signal.SIGTERM] * 2
    said = (tmp_path / "0").read_text()
    (step,) = steps(tmp_path)
    assert max(losses(said)) == step and said.count("Saved step") == 1 and said.count("Stopped by SIGTERM.") == 1
    assert (tmp_path / "1").read_text() == ""


def test_max_hours_stops_all_ranks_after_the_same_iteration(data, tmp_path):
    flags = f"{SHORT.replace('--total_iters 4', '--total_iters 9')} --save_every 0 --sample_every 0 --max_hours 1"
    assert in_ranks(2, train_until_time_is_over, line_of("train", flags, folders(tmp_path, data))) == [0, 0]
    assert steps(tmp_path) == [3]


def train_until_time_is_over(line):
    """The time of rank 1 is over in the third iteration."""
    step, loop.PROGRAM_START = Solver.train_step, time.monotonic()

    def train_step(solver, inputs, iteration):
        if iteration == 2 and not distributed.is_main_process():
            loop.PROGRAM_START = time.monotonic() - 3600
        return step(solver, inputs, iteration)

    Solver.train_step = train_step
    assert main.main(line) == 0


def test_a_killed_rank_stops_all_within_30_seconds(data, tmp_path):
    flags = SHORT.replace("--total_iters 4", "--total_iters 100000 --batch_size 6")
    started = start_ranks(line_of("train", flags, folders(tmp_path, data)), tmp_path, 3)
    wait_for(tmp_path / "0", "Iteration [2/")
    started[2].kill()
    killed = time.monotonic()
    assert ended(started, 60) == [1, 1, -signal.SIGKILL]
    assert time.monotonic() - killed < 30
    assert "error: Cannot reach the other processes of this run (" in (tmp_path / "0").read_text()
    assert (tmp_path / "1").read_text() == ""


def wait_for(console, words):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if console.is_file() and words in console.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(console.read_text())
