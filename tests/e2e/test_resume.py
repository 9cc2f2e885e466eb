"""Resumed runs: exact, with their settings, from complete steps."""

import shutil
import subprocess
import sys

import pytest
import torch

import main
from core.checkpoint import resume
from core.system.errors import UserError
from tests.command import ROOT, as_flags, call
from tests.runs import FLAGS, folders, losses, read_log, state, steps


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    return True


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted run of six iterations -> (folder, printed losses)."""
    folder = tmp_path_factory.mktemp("whole")
    line = [sys.executable, "main.py", "--mode", "train", *FLAGS.split(), "--total_iters", "6", "--save_every", "3"]
    done = subprocess.run([*line, *as_flags(folders(folder, data))], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, losses(done.stdout)


def test_a_resumed_run_equals_an_uninterrupted_one(whole, data, tmp_path, capsys):
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
    assert "Skipping step 4 in" in said.err and "missing 000004_optims.ckpt" in said.err and "Loaded step 2" in said.out
    assert "Settings that differ from" in said.out and "--total_iters 6 instead of 4" in said.out
    second = losses(said.out)
    assert list(second) == [3, 4, 5, 6] and {**first, **second} == printed
    found, expected = state(tmp_path, 6), state(folder, 6)
    for content in (*found, *expected):
        content.pop("config")
    assert same(found, expected)


def test_flags_that_change_results_need_override(whole, data, capsys):
    folder, _ = whole
    line = "--resume_iter latest --device cpu --total_iters 7 --print_every 5 --num_workers 0"
    where = folders(folder, data)
    assert call("train", f"{line} --lr 0.5 --batch_size 3", **where) == 2
    said = capsys.readouterr().err
    assert "--lr 0.5 instead of 0.0001" in said and "--batch_size 3 instead of 2" in said and "--override" in said
    assert "--print_every" not in said
    assert call("train", f"{line} --lr 0.5 --override", **where) == 0
    said = capsys.readouterr().out
    assert "--lr 0.5 instead of 0.0001" in said and "--print_every 5 instead of 1" in said
    for path in (folder / "checkpoints").glob("000007_*"):
        path.unlink()


def test_augmentation_can_begin_and_end_at_a_resume(data, tmp_path, capsys):
    where = folders(tmp_path, data)
    assert call("train", f"{FLAGS} --total_iters 1", **where) == 0
    again = "--device cpu --resume_iter latest"
    assert call("train", f"{again} --total_iters 2 --augment ada", **where) == 2
    assert "--augment ada instead of none" in capsys.readouterr().err
    assert call("train", f"{again} --total_iters 2 --augment ada --override", **where) == 0
    assert set(state(tmp_path, 2)[2]["augment"]) == {"p", "sign"} and "augment" not in state(tmp_path, 1)[2]
    assert "D/augment_p" in read_log(tmp_path / "samples")[-1]
    assert call("train", f"{again} --total_iters 3 --augment none --override", **where) == 0
    assert "augment" not in state(tmp_path, 3)[2]


def test_resume_latest_in_an_empty_folder_starts_training(data, tmp_path, capsys):
    assert call("train", f"{FLAGS} --total_iters 1 --resume_iter latest", **folders(tmp_path, data)) == 0
    assert "Training starts from iteration 0." in capsys.readouterr().out and steps(tmp_path) == [1]


def test_keep_checkpoints_keeps_the_newest_and_the_best(data, tmp_path):
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


def test_later_steps_of_an_earlier_run_are_moved_aside(data, tmp_path, capsys):
    """New steps count as the newest, and never mix with higher steps of the earlier run."""
    where, folder = folders(tmp_path, data), tmp_path / "checkpoints"
    assert call("train", f"{FLAGS} --total_iters 6 --save_every 3", **where) == 0
    again = "--device cpu --resume_iter 3 --override --lr 0.01 --keep_checkpoints 2 --save_every 1 --total_iters 5"
    assert call("train", again, **where) == 0
    assert f"those after step 3, to {folder / 'earlier_1'}. " in capsys.readouterr().err
    assert steps(tmp_path) == [4, 5]
    assert sorted(path.name for path in (folder / "earlier_1").iterdir()) == [
        "000006_manifest.json", "000006_nets.ckpt", "000006_nets_ema.ckpt", "000006_optims.ckpt",
    ]  # fmt: skip
    assert call("train", f"{FLAGS} --total_iters 1", **where) == 0  # from scratch
    assert steps(tmp_path) == [1] and (folder / "earlier_2" / "000005_nets.ckpt").exists()
    (folder / "000007_nets.ckpt").write_bytes(b"half")  # of an interrupted save
    (folder / "100000_nets_ema.ckpt").write_bytes(b"somebody's")
    assert call("train", "--device cpu --resume_iter 1 --total_iters 2", **where) == 0
    assert (folder / "earlier_3" / "100000_nets_ema.ckpt").read_bytes() == b"somebody's"
    assert not list(tmp_path.rglob("000007*"))


def test_missing_snapshots_of_the_last_step_are_written_on_resume(data, tmp_path):
    where = folders(tmp_path, data)
    assert call("train", f"{FLAGS} --total_iters 2".replace("--sample_every 0", "--sample_every 2"), **where) == 0
    for path in (tmp_path / "samples").iterdir():
        path.unlink()
    assert call("train", "--device cpu --resume_iter latest --total_iters 3", **where) == 0
    assert (tmp_path / "samples" / "000002_reference.jpg").exists()


def test_a_resumed_run_keeps_its_settings(data, tmp_path, capsys):
    where = folders(tmp_path, data)
    assert call("train", f"{FLAGS} --total_iters 1 --micro_batch 1 --lambda_ds 2.5", **where) == 0
    rest = {"checkpoint_dir": where["checkpoint_dir"], "sample_dir": tmp_path / "elsewhere"}
    assert call("train", "--device cpu --resume_iter latest --total_iters 2", **rest) == 0
    kept = state(tmp_path, 2)[0]["config"]["settings"]
    assert kept["micro_batch"] == 1 and kept["lambda_ds"] == 2.5 and "sample_dir" not in kept
    capsys.readouterr()
    assert call("train", "--device cpu --resume_iter latest", **rest) == 0
    assert "Training is complete: step 2 in" in capsys.readouterr().out
    assert call("train", "--device cpu --resume_iter 2 --preset afhq --total_iters 3", **rest) == 2
    assert "Cannot resume with --preset afhq (step 2 in" in capsys.readouterr().err
    (tmp_path / "checkpoints" / "000002_optims.ckpt").write_bytes(b"")
    assert call("train", "--device cpu --resume_iter 2 --total_iters 3", **rest) == 2
    assert "wrong checksum of 000002_optims.ckpt" in capsys.readouterr().err


def test_steps_without_a_manifest_are_read(whole, tmp_path):
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    written = [tmp_path / "checkpoints" / f"00000{step}_manifest.json" for step in (3, 6)]
    contents = [path.read_bytes() for path in written]
    for path in written:
        path.unlink()
    assert resume.newest_whole_step(tmp_path / "checkpoints") == 6
    assert written[1].read_bytes() == contents[1], "the manifest of a complete step is written again"
    (tmp_path / "checkpoints" / "000006_nets.ckpt").write_bytes(b"half")
    assert resume.newest_whole_step(tmp_path / "checkpoints") == 3
    for path in (tmp_path / "checkpoints").glob("000003*"):
        path.unlink()
    with pytest.raises(UserError, match="No complete step in "):
        resume.newest_whole_step(tmp_path / "checkpoints")
    assert main.parse_args(["--mode", "train", "--resume_iter", "latest"]).resume_iter == "latest"


def test_an_incomplete_first_step_is_not_resumed(whole, tmp_path):
    """Training starts from scratch, but not over a lone file of averages."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("000003_nets.ckpt", "000003_nets_ema.ckpt"):
        shutil.copy(whole[0] / "checkpoints" / name, folder)
    assert resume.newest_whole_step(folder) == 0
    (folder / "000003_nets.ckpt").unlink()
    with pytest.raises(UserError, match="No complete step in "):
        resume.newest_whole_step(folder)
