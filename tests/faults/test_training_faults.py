"""Faults during training: NaN, images, disk, memory."""

import errno
import gc
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch

from core.data_loader import get_train_loader
from core.report import page
from core.solver import Solver
from core.system import workers
from core.system.workers import Loader
from core.training import loop
from core.training.loop import TrainLoop
from tests.command import ROOT, RUN, as_flags, call
from tests.runs import FLAGS, folders, state, steps


def test_nan_updates_are_skipped_and_counted(data, tmp_path, capsys, monkeypatch):
    where = folders(tmp_path, data)
    real = Solver.train_step

    def train_step(solver, inputs, iteration):
        if iteration in broken:
            inputs.x_ref[0, 0, 0, 0] = float("nan")  # updates with latent codes do not use it
        before = {name: [p.clone() for p in net.parameters()] for name, net in solver.nets.items()}
        found = real(solver, inputs, iteration)
        moved = {name for name, net in solver.nets.items() if not same_all(net.parameters(), before[name])}
        total, in_a_row = solver.iteration.skipped
        seen.append((int(total.sum()), int(in_a_row.max()), moved))
        return found

    def same_all(tensors, others):
        return all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))

    broken, seen = {1}, []
    monkeypatch.setattr(Solver, "train_step", train_step)
    assert call("train", f"{FLAGS} --total_iters 3", **where) == 0
    everyone = {"generator", "mapping_network", "style_encoder", "discriminator"}
    assert seen == [(0, 0, everyone), (2, 1, everyone), (2, 0, everyone)]
    assert "Skipped 2 updates with NaN or infinite values so far (iteration 2)." in capsys.readouterr().err
    content = state(tmp_path, 3)
    assert all(value.isfinite().all() for network in list(content[0].values())[:4] for value in network.values())
    adam = content[2]["discriminator"]["state"][0]
    assert adam["step"] == 5  # one of six updates was skipped


def test_a_run_with_only_nan_updates_stops(data, tmp_path, capsys):
    flags = f"{FLAGS} --total_iters 9 --lr 1e15 --f_lr 1e15 --max_bad_updates 6"
    assert call("train", flags, **folders(tmp_path, data)) == 2
    said = capsys.readouterr().err
    assert "Cannot continue training after iteration" in said and "Traceback" not in said
    report = next((tmp_path / "samples").glob("*_bad_updates.txt")).read_text()
    assert "--lr" in report and "D/latent_real: nan" in report
    batch = torch.load(next((tmp_path / "samples").glob("*_bad_updates.pt")), weights_only=True)
    assert batch["x_src"].shape == (2, 3, 32, 32)
    assert not steps(tmp_path)


def test_nan_in_one_kind_of_update_stops_the_run(data, tmp_path, capsys):
    """Only updates that depend on F become NaN; updates with references stay finite."""
    flags = f"{FLAGS} --total_iters 20 --f_lr 1e17 --max_bad_updates 3 --save_every 20"
    assert call("train", flags, **folders(tmp_path, data)) == 2
    assert "NaN or infinite values in consecutive updates: 3)" in capsys.readouterr().err
    report = next((tmp_path / "samples").glob("*_bad_updates.txt")).read_text()
    assert "0 of D/ref_*" in report and "3 of G/latent_*" in report and not steps(tmp_path)


@pytest.mark.parametrize(("save_every", "last"), [(100, 7), (6, 6)])
def test_bad_updates_are_read_late_but_before_anything_is_saved(save_every, last, data, tmp_path, monkeypatch, capsys):
    """The numbers of iteration 6, which end the run, are read after iteration 7, or at once if a save is due."""
    done, real = [], Solver.train_step

    def train_step(solver, inputs, iteration):
        if iteration >= 3:
            inputs.x_src[0, 0, 0, 0] = float("nan")
        done.append(iteration + 1)
        return real(solver, inputs, iteration)

    monkeypatch.setattr(Solver, "train_step", train_step)
    flags = f"{FLAGS} --print_every 100 --save_every {save_every} --total_iters 20 --max_bad_updates 3"
    assert call("train", flags, **folders(tmp_path, data)) == 2
    said = capsys.readouterr().err
    assert "Skipped 4 updates with NaN or infinite values so far (iteration 4)." in said
    assert "Cannot continue training after iteration 6 (NaN or infinite values in consecutive updates: 3)" in said
    assert done[-1] == last and not steps(tmp_path)
    batch = torch.load(tmp_path / "samples" / "000006_bad_updates.pt", weights_only=True)
    assert batch["x_src"].isnan().any()
    assert "12 of" not in said and "3 of D/ref_*" in (tmp_path / "samples" / "000006_bad_updates.txt").read_text()


def test_removed_images_stop_the_run_and_save_the_last_step(faces, data, tmp_path, capsys, monkeypatch):
    """No iteration is lost, and the messages fit on a screen."""
    shutil.copytree(faces / "train", tmp_path / "train")
    where, real = {**folders(tmp_path, data), "train_img_dir": tmp_path / "train"}, Solver.train_step

    def train_step(solver, inputs, iteration):
        if iteration == 1:
            shutil.rmtree(tmp_path / "train")
        return real(solver, inputs, iteration)

    monkeypatch.setattr(Solver, "train_step", train_step)
    assert call("train", f"{FLAGS} --total_iters 5", **where) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "(no such file or directory)" in lines[-1] and lines[-1].endswith("from step 2.") and len(lines) < 40
    assert steps(tmp_path) == [2]


def test_out_of_memory_in_a_snapshot_does_not_stop_the_run(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Solver, "snapshot", lambda *_: torch.empty(2**60, dtype=torch.uint8))
    flags = f"{FLAGS} --total_iters 2".replace("--sample_every 0", "--sample_every 1")
    assert call("train", flags, **folders(tmp_path, data)) == 0
    assert "images of step 1: Cannot allocate memory" in capsys.readouterr().err and steps(tmp_path) == [2]


def test_a_full_disk_keeps_the_last_step_and_saves_later(data, tmp_path, capsys):
    resource = pytest.importorskip("resource")
    where, limits = folders(tmp_path, data), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert call("train", f"{FLAGS} --total_iters 1", **where) == 0
    real, small = Solver.save, [2, 3]
    room = int(1.2 * (where["checkpoint_dir"] / "000001_nets.ckpt").stat().st_size)  # not enough for the optimizers

    def save(solver, step):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room if step in small else limits[0], limits[1]))
        try:
            real(solver, step)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Solver, "save", save)
        assert call("train", "--device cpu --resume_iter latest --total_iters 4 --save_every 1", **where) == 0
        said = capsys.readouterr().err
        assert "Cannot save step 2: cannot write " in said and "the previous checkpoint stays" in said
        assert steps(tmp_path) == [1, 4] and not list(where["checkpoint_dir"].glob("000002*"))
        small[:] = [5]
        assert call("train", "--device cpu --resume_iter latest --total_iters 5 --save_every 1", **where) == 2
    said = capsys.readouterr().err
    assert "error: Cannot write " in said and "Traceback" not in said
    assert steps(tmp_path) == [1, 4] and not list((tmp_path / "checkpoints").glob(".writing*"))


@pytest.mark.parametrize("kind", ["OSError", "RuntimeError", "BlockingIOError", "FileNotFoundError"])
def test_no_memory_for_workers_is_one_sentence(kind, data, tmp_path, capsys, monkeypatch):
    """Semaphores, batches, processes and temporary folders: each limit of the system has its own error."""

    def full(*_, **__):
        if kind == "OSError":
            raise OSError(errno.ENOSPC, "No space left on device")
        if kind == "BlockingIOError":
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        if kind == "FileNotFoundError":
            raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
        raise RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)")

    place, name = (workers, "get_temp_dir") if kind == "FileNotFoundError" else (torch.multiprocessing, "Queue")
    monkeypatch.setattr(place, name, full)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # of PyTorch's half-made iterator
    flags = f"{FLAGS.replace('--num_workers 0', '--num_workers 1')} --total_iters 2"
    assert call("train", flags, **folders(tmp_path, data)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "Reduce --num_workers (0 uses no worker processes)." in line
    gc.collect()


def test_workers_share_all_of_a_batch_where_errors_are_noticed(data):
    loader = get_train_loader(data["train_img_dir"], "reference", 32, 2, num_workers=1, stop=1)
    assert all(tensor.is_shared() for tensor in next(iter(loader)))
    seen = []
    for batch in Loader([(torch.zeros(1), 1)], batch_size=1, num_workers=1, collate_fn=collate_and_look):
        seen = batch
    assert seen == [True, True]


def collate_and_look(samples):
    return [tensor.is_shared() for tensor in workers._collate(samples)]


@pytest.mark.parametrize("number", [10**12, 10**17, 10**18])
def test_training_without_end_is_possible(number, data, tmp_path, capsys, monkeypatch):
    flags = f"{FLAGS} --total_iters {number} --ds_iter {number} --max_hours 1".replace(
        "sample_every 0", "sample_every 1"
    )
    monkeypatch.setattr(loop, "PROGRAM_START", time.monotonic() - 3600)
    real = TrainLoop._stop_if_asked

    def stop_after_two(self, *others):
        return real(self, *others) if self.done == 2 else others

    monkeypatch.setattr(TrainLoop, "_stop_if_asked", stop_after_two)
    written = []
    monkeypatch.setattr(page, "write_page", lambda *args, **kwargs: written.append(str(args)))
    assert call("train", flags, **folders(tmp_path, data)) == 0
    assert "Skipping the page" not in capsys.readouterr().err and steps(tmp_path) == [2]
    assert any("'Time left', 'about" in text or "'Time left', 'more than 100 years'" in text for text in written)
    assert call("train", f"{flags} --dry_run", **folders(tmp_path, data)) == 0


def test_folders_removed_during_the_run_are_made_again(data, tmp_path, monkeypatch):
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
def test_a_read_only_folder_is_refused(data, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir(mode=0o500)
    assert call("train", f"{FLAGS} --total_iters 1", **folders(tmp_path, data)) == 2
    assert "(permission denied). Choose another folder." in capsys.readouterr().err


STARVED = """
import resource, sys
import core.commands, main
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) + int(open("/proc/self/statm").read().split()[0]) * 4096,) * 2)
sys.exit(main.main(sys.argv[2:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
def test_out_of_memory_is_reported_in_one_sentence(data, tmp_path):
    flags = FLAGS.replace("--channel_base 256 --max_conv_dim 16", "--channel_base 16384 --max_conv_dim 512")
    line = [sys.executable, "-c", STARVED, str(400 * 2**20), "--mode", "train", *flags.split()]
    done = subprocess.run([*line, *as_flags(folders(tmp_path, data))], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: Cannot allocate memory") and "Traceback" not in done.stderr


def test_unreadable_images_are_skipped_with_a_warning(faces, tmp_path, capsys):
    for number in range(10):  # enough for one to be less than one in a hundred
        for domain in ("bear", "cat", "dog"):
            shutil.copytree(faces / "train" / domain, tmp_path / "train" / domain / str(number))
    (tmp_path / "train" / "cat" / "3" / "00001.png").write_text("text")
    where = {"checkpoint_dir": tmp_path / "c", "sample_dir": tmp_path / "s", "train_img_dir": tmp_path / "train"}
    flags = f"{RUN} --total_iters 1 --val_batch_size 2 --num_outs_per_domain 1"
    assert call("train", flags, **where, val_img_dir=faces / "val") == 0
    said = capsys.readouterr()
    assert "Found 1 unreadable image among 360" in said.err and "cat (119)" in said.out
