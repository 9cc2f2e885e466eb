"""A run that cannot be lost: resumed exactly, stopped, refused, starved."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import main
from core import archive, recall
from core.errors import UserError
from core.solver import Solver
from tests.command import ROOT, RUN, as_flags, call

FLAGS = f"{RUN} --sample_every 0 --eval_every 0 --val_batch_size 2 --num_outs_per_domain 1 --print_every 1"


@pytest.fixture(scope="module")
def data(faces):
    return {"train_img_dir": faces / "train", "val_img_dir": faces / "val"}


def folders(tmp_path, data):
    return {**data, "checkpoint_dir": tmp_path / "checkpoints", "sample_dir": tmp_path / "samples"}


def steps(tmp_path):
    return sorted(int(path.name[:6]) for path in (tmp_path / "checkpoints").glob("*_manifest.json"))


def state(tmp_path, step):
    """All tensors and numbers of a step's files."""
    templates = (archive.NETS, archive.NETS_EMA, archive.OPTIMS)
    return [torch.load(tmp_path / "checkpoints" / name.format(step), weights_only=True) for name in templates]


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    return True


def losses(text):
    """Iteration -> its line, without the clock."""
    lines = [line.partition("Iteration [")[2] for line in text.splitlines() if "Iteration [" in line]
    return {int(line.partition("/")[0]): line.partition("]")[2] for line in lines}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run of six iterations that nobody disturbed -> (folder, printed losses)."""
    folder = tmp_path_factory.mktemp("whole")
    line = [sys.executable, "main.py", "--mode", "train", *FLAGS.split(), "--total_iters", "6", "--save_every", "3"]
    done = subprocess.run([*line, *as_flags(folders(folder, data))], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, losses(done.stdout)


def test_a_resumed_run_equals_one_that_was_never_stopped(whole, data, tmp_path, capsys):
    """Networks, averages, optimizers and printed losses, bit for bit; no flag needs repeating."""
    folder, printed = whole
    assert call("train", f"{FLAGS} --total_iters 4 --save_every 2", **folders(tmp_path, data)) == 0
    (tmp_path / "checkpoints" / "000004_manifest.json").unlink()  # as if killed while saving
    (tmp_path / "checkpoints" / "000004_optims.ckpt").unlink()
    first = losses(capsys.readouterr().out)
    flags = "--device cpu --resume_iter latest --total_iters 6"
    rest = {"checkpoint_dir": tmp_path / "checkpoints", "sample_dir": tmp_path / "samples"}
    assert call("train", flags, **rest) == 0
    said = capsys.readouterr()
    assert "step 4 in" in said.err and "000004_optims.ckpt is missing" in said.err and "Loaded step 2" in said.out
    assert "Changed since" in said.out and "--total_iters 6 in place of 4" in said.out
    second = losses(said.out)
    assert list(second) == [3, 4, 5, 6] and {**first, **second} == printed
    found, expected = state(tmp_path, 6), state(folder, 6)
    for content in (*found, *expected):
        content.pop("config")
    assert same(found, expected)


def test_flags_that_change_what_is_computed_are_refused(whole, data, capsys):
    folder, _ = whole
    line = "--resume_iter latest --device cpu --total_iters 7 --print_every 5 --num_workers 0"
    where = folders(folder, data)
    assert call("train", f"{line} --lr 0.5 --batch_size 3", **where) == 2
    said = capsys.readouterr().err
    assert "--lr 0.5 in place of 0.0001" in said and "--batch_size 3 in place of 2" in said and "--override" in said
    assert "--print_every" not in said
    assert call("train", f"{line} --lr 0.5 --override", **where) == 0
    said = capsys.readouterr().out
    assert "--lr 0.5 in place of 0.0001" in said and "--print_every 5 in place of 1" in said
    for path in (folder / "checkpoints").glob("000007_*"):
        path.unlink()


def test_latest_where_there_is_nothing_begins(data, tmp_path, capsys):
    assert call("train", f"{FLAGS} --total_iters 1 --resume_iter latest", **folders(tmp_path, data)) == 0
    assert "training begins" in capsys.readouterr().out and steps(tmp_path) == [1]


def test_old_checkpoints_are_pruned_but_not_the_best(data, tmp_path):
    where = folders(tmp_path, data)
    (tmp_path / "eval").mkdir()
    history = [
        ("latent", 2, 9.0),
        ("reference", 2, 3.0),
        ("latent", 3, 1.0),
        ("reference", 3, 20.0),
        ("latent", 4, 0.1),
    ]
    lines = ['{"mode": "%s", "step": %d, "FID": %g}\n' % row for row in history]  # noqa: UP031
    (tmp_path / "eval" / "scores.jsonl").write_text("".join(lines))
    flags = f"{FLAGS} --total_iters 7 --save_every 1 --keep_checkpoints 2"
    assert call("train", flags, **where, eval_dir=tmp_path / "eval") == 0
    assert steps(tmp_path) == [2, 6, 7]
    assert len(list((tmp_path / "checkpoints").glob("*.ckpt"))) == 9


def test_later_steps_of_an_earlier_run_are_set_aside(data, tmp_path, capsys):
    """What is written counts as the newest, is never pruned for older numbers, and never mixes with them."""
    where, folder = folders(tmp_path, data), tmp_path / "checkpoints"
    assert call("train", f"{FLAGS} --total_iters 6 --save_every 3", **where) == 0
    again = "--device cpu --resume_iter 3 --override --lr 0.01 --keep_checkpoints 2 --save_every 1 --total_iters 5"
    assert call("train", again, **where) == 0
    assert f"come after step 3 are now in {folder / 'earlier_1'}" in capsys.readouterr().err
    assert steps(tmp_path) == [4, 5]
    assert sorted(path.name for path in (folder / "earlier_1").iterdir()) == [
        "000006_manifest.json", "000006_nets.ckpt", "000006_nets_ema.ckpt", "000006_optims.ckpt",
    ]  # fmt: skip
    assert call("train", f"{FLAGS} --total_iters 1", **where) == 0  # anew
    assert steps(tmp_path) == [1] and (folder / "earlier_2" / "000005_nets.ckpt").exists()
    (folder / "000007_nets.ckpt").write_bytes(b"half")  # of a save that was killed
    (folder / "100000_nets_ema.ckpt").write_bytes(b"somebody's")
    assert call("train", "--device cpu --resume_iter 1 --total_iters 2", **where) == 0
    assert (folder / "earlier_3" / "100000_nets_ema.ckpt").read_bytes() == b"somebody's"
    assert not list(tmp_path.rglob("000007*"))


def test_what_the_last_run_did_not_come_to_is_made_up(data, tmp_path):
    where = folders(tmp_path, data)
    assert call("train", f"{FLAGS} --total_iters 2".replace("--sample_every 0", "--sample_every 2"), **where) == 0
    for path in (tmp_path / "samples").iterdir():
        path.unlink()
    assert call("train", "--device cpu --resume_iter latest --total_iters 3", **where) == 0
    assert (tmp_path / "samples" / "000002_reference.jpg").exists()


def test_settings_of_a_run_are_kept(data, tmp_path, capsys):
    where = folders(tmp_path, data)
    assert call("train", f"{FLAGS} --total_iters 1 --micro_batch 1 --lambda_ds 2.5", **where) == 0
    rest = {"checkpoint_dir": where["checkpoint_dir"], "sample_dir": tmp_path / "elsewhere"}
    assert call("train", "--device cpu --resume_iter latest --total_iters 2", **rest) == 0
    kept = state(tmp_path, 2)[0]["config"]["settings"]
    assert kept["micro_batch"] == 1 and kept["lambda_ds"] == 2.5 and "sample_dir" not in kept
    capsys.readouterr()
    assert call("train", "--device cpu --resume_iter latest", **rest) == 0
    assert "Step 2 in" in capsys.readouterr().out
    assert call("train", "--device cpu --resume_iter 2 --preset afhq --total_iters 3", **rest) == 2
    assert "--preset is afhq, but step 2 in" in capsys.readouterr().err
    (tmp_path / "checkpoints" / "000002_optims.ckpt").write_bytes(b"")
    assert call("train", "--device cpu --resume_iter 2 --total_iters 3", **rest) == 2
    assert "000002_optims.ckpt is not as it was written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["batch_size", "val_batch_size", "total_iters", "seed", "keep_checkpoints"])
def test_settings_that_are_none(name):
    args = main.parse_args(["--mode", "train"])
    for value in (1.5, "x", [1], None):
        with pytest.raises(UserError, match=f"--{name}"):
            recall.adopt_settings(args, {"settings": {name: value}}, "step 7")
    with pytest.raises(UserError, match="--precision cannot be half"):
        recall.adopt_settings(args, {"settings": {"precision": "half"}}, "step 7")


@pytest.fixture
def start():
    """start(where, flags) -> process of a training; none outlives its test."""
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


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_request_to_stop_saves_and_ends(name, whole, data, tmp_path, start):
    process = start(folders(tmp_path, data), f"{FLAGS} --total_iters 100000 --num_workers 1")
    wait_for(process, "Iteration [2/")
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    (step,) = steps(tmp_path)
    assert max(losses("Iteration [2/x]\n" + out)) == step  # its line too is printed
    assert f"Saved step {step}" in out and err.splitlines()[-1].startswith(f"error: stopped by {name}; --resume_iter")
    assert "Traceback" not in err and not list((tmp_path / "checkpoints").glob(".writing*"))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_request_to_the_whole_group(data, tmp_path, start):
    """As schedulers make it: the processes that read images hear it too."""
    flags = f"{FLAGS} --total_iters 100000 --num_workers 1"
    process = start(folders(tmp_path, data), flags, start_new_session=True)
    wait_for(process, "Iteration [2/")
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "stopped by SIGTERM" in err and "Traceback" not in err
    assert len(steps(tmp_path)) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_second_ctrl_c_stops_at_once(data, tmp_path, start):
    """Within an iteration that takes far longer than the test."""
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
    assert f"is in use by another run (process {process.pid} on" in capsys.readouterr().err
    process.kill()
    process.communicate()
    assert call("train", f"{FLAGS} --total_iters 1", **where) == 0  # the lock of a process that is gone


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_reader_that_is_killed(data, tmp_path, start):
    process = start(folders(tmp_path, data), f"{FLAGS} --total_iters 100000 --num_workers 1")
    wait_for(process, "Iteration [2/")
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in err
    (step,) = steps(tmp_path)
    assert "a process that reads images was ended from outside" in err and f"step {step} is saved" in err


def test_updates_that_are_no_numbers_are_skipped_and_counted(data, tmp_path, capsys, monkeypatch):
    where = folders(tmp_path, data)
    real = Solver.train_step

    def train_step(solver, inputs, iteration):
        if iteration in broken:
            inputs.x_ref[0, 0, 0, 0] = float("nan")  # the updates in random styles do not see it
        before = {name: [p.clone() for p in net.parameters()] for name, net in solver.nets.items()}
        found = real(solver, inputs, iteration)
        moved = {name for name, net in solver.nets.items() if not same_all(net.parameters(), before[name])}
        seen.append((int(sum(solver.bad_updates.values())), int(max(solver.bad_in_a_row.values())), moved))
        return found

    def same_all(tensors, others):
        return all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))

    broken, seen = {1}, []
    monkeypatch.setattr(Solver, "train_step", train_step)
    assert call("train", f"{FLAGS} --total_iters 3", **where) == 0
    everyone = {"generator", "mapping_network", "style_encoder", "discriminator"}
    assert seen == [(0, 0, everyone), (2, 1, everyone), (2, 0, everyone)]
    assert "up to iteration 2, 2 updates were no numbers and are skipped" in capsys.readouterr().err
    content = state(tmp_path, 3)
    assert all(value.isfinite().all() for network in list(content[0].values())[:4] for value in network.values())
    adam = content[2]["discriminator"]["state"][0]
    assert adam["step"] == 5  # of six updates one was skipped


def test_a_run_whose_updates_are_no_numbers_ends(data, tmp_path, capsys):
    flags = f"{FLAGS} --total_iters 9 --lr 1e15 --f_lr 1e15 --max_bad_updates 6"
    assert call("train", flags, **folders(tmp_path, data)) == 2
    said = capsys.readouterr().err
    assert "updates in a row were no numbers, so training stops at iteration" in said and "Traceback" not in said
    report = next((tmp_path / "samples").glob("*_bad_updates.txt")).read_text()
    assert "--lr" in report and "D/latent_real: nan" in report
    batch = torch.load(next((tmp_path / "samples").glob("*_bad_updates.pt")), weights_only=True)
    assert batch["x_src"].shape == (2, 3, 32, 32)
    assert not steps(tmp_path)


def test_one_kind_of_update_that_is_no_number_ends_a_run(data, tmp_path, capsys):
    """Only what depends on F breaks; updates in the style of references go well."""
    flags = f"{FLAGS} --total_iters 20 --f_lr 1e17 --max_bad_updates 3 --save_every 20"
    assert call("train", flags, **folders(tmp_path, data)) == 2
    assert "3 updates in a row were no numbers" in capsys.readouterr().err
    report = next((tmp_path / "samples").glob("*_bad_updates.txt")).read_text()
    assert "0 of D/ref_*" in report and "3 of G/latent_*" in report and not steps(tmp_path)


def test_images_that_are_gone(faces, data, tmp_path, capsys, monkeypatch):
    """Nothing is lost, and what is said fits on a screen."""
    shutil.copytree(faces / "train", tmp_path / "train")
    where, real = {**folders(tmp_path, data), "train_img_dir": tmp_path / "train"}, Solver.train_step

    def train_step(solver, inputs, iteration):
        if iteration == 1:
            shutil.rmtree(tmp_path / "train")
        return real(solver, inputs, iteration)

    monkeypatch.setattr(Solver, "train_step", train_step)
    assert call("train", f"{FLAGS} --total_iters 5", **where) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "cannot be read as an image" in lines[-1] and lines[-1].endswith("step 2 is saved") and len(lines) < 40
    assert steps(tmp_path) == [2]


def test_memory_that_runs_out_in_a_snapshot(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Solver, "snapshot", lambda *_: torch.empty(2**60, dtype=torch.uint8))
    flags = f"{FLAGS} --total_iters 2".replace("--sample_every 0", "--sample_every 1")
    assert call("train", flags, **folders(tmp_path, data)) == 0
    assert "step 1 has no pictures: memory ran out" in capsys.readouterr().err and steps(tmp_path) == [2]


def test_nobody_listens(data, tmp_path, start):
    """The console's other end is gone, or its disk is full."""
    process = start(folders(tmp_path, data), f"{FLAGS} --total_iters 2")
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=60)
    assert steps(tmp_path) == [2] and "Traceback" not in err


def test_a_full_disk_keeps_the_last_step_and_tries_again(data, tmp_path, capsys):
    resource = pytest.importorskip("resource")
    where, limits = folders(tmp_path, data), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert call("train", f"{FLAGS} --total_iters 1", **where) == 0
    real, small = Solver.save, [2, 3]

    def save(solver, step):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000 if step in small else limits[0], limits[1]))
        try:
            real(solver, step)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Solver, "save", save)
        assert call("train", "--device cpu --resume_iter latest --total_iters 4 --save_every 1", **where) == 0
        said = capsys.readouterr().err
        assert "step 2 is not saved, the step before stays" in said and "cannot be written (" in said
        assert steps(tmp_path) == [1, 4]
        small[:] = [5]
        assert call("train", "--device cpu --resume_iter latest --total_iters 5 --save_every 1", **where) == 2
    said = capsys.readouterr().err
    assert "cannot be written (" in said and "Traceback" not in said
    assert steps(tmp_path) == [1, 4] and not list((tmp_path / "checkpoints").glob(".writing*"))


def test_a_folder_that_is_removed_during_the_run(data, tmp_path, monkeypatch):
    where, real = folders(tmp_path, data), Solver.train_step

    def train_step(solver, inputs, iteration):
        if iteration == 1:
            shutil.rmtree(tmp_path / "checkpoints")
            shutil.rmtree(tmp_path / "samples")
        return real(solver, inputs, iteration)

    monkeypatch.setattr(Solver, "train_step", train_step)
    assert call("train", f"{FLAGS} --total_iters 3 --sample_every 3 --save_every 1", **where) == 0
    assert steps(tmp_path) == [2, 3] and (tmp_path / "samples" / "000003_reference.jpg").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that may not be written to")
def test_a_read_only_folder(data, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir(mode=0o500)
    assert call("train", f"{FLAGS} --total_iters 1", **folders(tmp_path, data)) == 2
    assert "is not writable: choose another folder" in capsys.readouterr().err


STARVED = """
import resource, sys
import main
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) + int(open("/proc/self/statm").read().split()[0]) * 4096,) * 2)
sys.exit(main.main(sys.argv[2:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
def test_no_memory(data, tmp_path):
    flags = FLAGS.replace("--channel_base 256 --max_conv_dim 16", "--channel_base 16384 --max_conv_dim 512")
    line = [sys.executable, "-c", STARVED, str(400 * 2**20), "--mode", "train", *flags.split()]
    done = subprocess.run([*line, *as_flags(folders(tmp_path, data))], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: memory ran out") and "Traceback" not in done.stderr


def test_steps_without_a_manifest_are_read(whole, tmp_path):
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    for path in (tmp_path / "checkpoints").glob("*_manifest.json"):
        path.unlink()
    assert archive.newest_whole_step(tmp_path / "checkpoints") == 6
    (tmp_path / "checkpoints" / "000006_nets.ckpt").write_bytes(b"half")
    assert archive.newest_whole_step(tmp_path / "checkpoints") == 3
    for path in (tmp_path / "checkpoints").glob("000003*"):
        path.unlink()
    with pytest.raises(UserError, match="no step in .* is whole"):
        archive.newest_whole_step(tmp_path / "checkpoints")
    assert main.parse_args(["--mode", "train", "--resume_iter", "latest"]).resume_iter == "latest"
