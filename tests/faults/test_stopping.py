"""Events from outside: stop signals, a second run, killed workers, a closed console."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from core.solver import Solver
from core.training import loop
from tests.command import ROOT, as_flags, call
from tests.runs import FLAGS, folders, losses, steps


@pytest.fixture
def start():
    """start(where, flags) -> process of a training; the fixture kills them all."""
    processes = []

    def start(where, flags, **options):
        line = [sys.executable, "main.py", "--mode", "train", *flags.split(), *as_flags(where)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(line, cwd=ROOT, **pipes, **options))
        return processes[-1]

    yield start
    for process in processes:
        with process:
            process.kill()


def wait_for(process, words):
    while line := process.stdout.readline():
        if words in line:
            return
    raise AssertionError(process.stderr.read())


WORD = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM"}


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", WORD)
def test_stop_signals_save_and_exit(name, data, tmp_path, start):
    process = start(folders(tmp_path, data), f"{FLAGS} --total_iters 100000 --num_workers 1")
    wait_for(process, "Iteration [2/")
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    (step,) = steps(tmp_path)
    assert max(losses("Iteration [2/x]\n" + out)) == step  # its line is printed, too
    assert f"Saved step {step}" in out
    assert err.splitlines()[-1].startswith(f"error: Stopped by {WORD[name]}. To continue")
    assert "Traceback" not in err and not list((tmp_path / "checkpoints").glob(".writing*"))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_to_the_process_group_saves_and_exits(name, data, tmp_path, start):
    """As schedulers and closed terminals send it: the data loader workers receive it, too."""
    flags, number = f"{FLAGS} --total_iters 100000 --num_workers 1", getattr(signal, name)
    process = start(folders(tmp_path, data), flags, preexec_fn=partial(in_new_session, number, signal.SIG_DFL))
    wait_for(process, "Iteration [2/")
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and f"Stopped by {name}." in err and "Traceback" not in err
    assert len(steps(tmp_path)) == 1


def in_new_session(number, handler):
    os.setsid()
    signal.signal(number, handler)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_hangup_does_not_stop_a_run_under_nohup(data, tmp_path, start):
    flags = f"{FLAGS} --total_iters 9 --num_workers 1"
    ignoring = partial(in_new_session, signal.SIGHUP, signal.SIG_IGN)
    process = start(folders(tmp_path, data), flags, preexec_fn=ignoring)
    wait_for(process, "Iteration [2/")
    os.killpg(process.pid, signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0 and steps(tmp_path) == [9]


def test_max_hours_saves_and_ends_with_status_0(data, tmp_path, capsys, monkeypatch):
    """A signal of the queue that arrives during this save changes nothing."""
    where, real = folders(tmp_path, data), Solver.save

    def train_step(solver, inputs, iteration):
        if iteration == 2:
            monkeypatch.setattr(loop, "PROGRAM_START", time.monotonic() - 3600)
        return step(solver, inputs, iteration)

    def save(solver, number):
        signal.raise_signal(signal.SIGTERM)
        real(solver, number)

    step = Solver.train_step
    monkeypatch.setattr(loop, "PROGRAM_START", time.monotonic())
    monkeypatch.setattr(Solver, "train_step", train_step)
    monkeypatch.setattr(Solver, "save", save)
    assert call("train", f"{FLAGS} --total_iters 9 --max_hours 1", **where) == 0
    said = capsys.readouterr()
    assert steps(tmp_path) == [3] and "error" not in said.err
    assert "Stopped after --max_hours 1 at step 3. To continue, run the same command with --resume" in said.out
    monkeypatch.undo()
    assert call("train", "--device cpu --resume_iter latest --total_iters 4", **where) == 0
    assert steps(tmp_path)[-1] == 4


@pytest.mark.parametrize("stops", [True, False])
def test_a_signal_that_also_ends_the_compiler_is_a_stop(stops, data, tmp_path, capsys, monkeypatch):
    """A terminal sends Ctrl-C to the compiler, too. The half iteration is not saved; other errors are reported."""
    where, real = folders(tmp_path, data), Solver.train_step
    failure = type("CppCompileError", (RuntimeError,), {"__module__": "torch._inductor.exc"})

    def train_step(solver, inputs, iteration):
        if iteration == 2:
            if stops:
                signal.raise_signal(signal.SIGINT)
            raise failure("C++ compile error")
        return real(solver, inputs, iteration)

    monkeypatch.setattr(Solver, "train_step", train_step)
    assert call("train", f"{FLAGS} --total_iters 9 --save_every 1", **where) == (130 if stops else 2)
    said = capsys.readouterr().err
    assert steps(tmp_path) == [1, 2]
    assert "Stopped by Ctrl-C." in said if stops else "Cannot compile the networks (C++ compile error)." in said


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_second_ctrl_c_stops_at_once(data, tmp_path, start):
    """During an iteration that takes far longer than the test."""
    where = folders(tmp_path, data)
    flags = FLAGS.replace("--img_size 32 --channel_base 256", "--img_size 256 --channel_base 4096")
    process = start(where, f"{flags} --batch_size 4096 --micro_batch 2")
    wait_for(process, "Domains:")
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "second Ctrl-C" in err and "Traceback" not in err
    assert not steps(tmp_path)


def test_a_second_run_in_the_folder_is_refused(data, tmp_path, capsys, start):
    where = folders(tmp_path, data)
    process = start(where, f"{FLAGS} --total_iters 100000")
    wait_for(process, "Iteration [1/")
    assert call("train", f"{FLAGS} --total_iters 1", **where) == 2
    assert f"another run uses it (process {process.pid} on" in capsys.readouterr().err
    process.kill()
    process.communicate()
    assert call("train", f"{FLAGS} --total_iters 1", **where) == 0  # the lock of a dead process is ignored


def test_a_refused_run_leaves_no_files(tmp_path, capsys):
    missing = {"train_img_dir": tmp_path / "none", "val_img_dir": tmp_path / "none"}
    assert call("train", FLAGS, **folders(tmp_path, missing)) == 2
    assert "Cannot read --train_img_dir" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_disk_without_locks_does_not_stop_the_run(data, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    for step in (1, 2):
        assert call("train", f"{FLAGS} --resume_iter latest --total_iters {step}", **folders(tmp_path, data)) == 0
    assert "(no locks available). The program continues, but" in capsys.readouterr().err and steps(tmp_path) == [1, 2]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_data_loader_worker_saves_and_exits(data, tmp_path, start):
    process = start(folders(tmp_path, data), f"{FLAGS} --total_iters 100000 --num_workers 1")
    wait_for(process, "Iteration [2/")
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in err
    (step,) = steps(tmp_path)
    assert "(a worker process was killed, " in err and f"to continue from step {step}." in err


def test_a_closed_console_does_not_stop_the_run(data, tmp_path, start):
    """The reader of a pipe is gone, or the disk of a redirected console is full."""
    process = start(folders(tmp_path, data), f"{FLAGS} --total_iters 2")
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 0
    assert steps(tmp_path) == [2] and "Traceback" not in err and "Exception ignored" not in err


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", ">/dev/full"])
def test_missing_streams_do_not_stop_the_run(redirection, data, tmp_path):
    """Neither do they get the contents of files, which are opened under their numbers."""
    line = [sys.executable, "main.py", "train", *f"{FLAGS} --total_iters 1".split()]
    line += as_flags(folders(tmp_path, data))
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *line]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8:strict"])
def test_a_run_prints_names_that_the_encoding_lacks(encoding, data, tmp_path):
    for part, folder in data.items():
        for domain, source in zip(("日本", "é\u202e"), ("bear", "cat"), strict=True):
            shutil.copytree(folder / source, tmp_path / part / domain)
    where = {"checkpoint_dir": tmp_path / "ß ✓", "sample_dir": tmp_path / "s"} | {
        part: tmp_path / part for part in data
    }
    line = [sys.executable, "main.py", "train", *f"{FLAGS} --total_iters 1".split(), *as_flags(where)]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(line, cwd=ROOT, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert b"Domains: " in done.stdout and b"\\u202e (12)" in done.stdout
