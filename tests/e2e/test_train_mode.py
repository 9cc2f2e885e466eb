"""--mode train with narrow networks, and user errors of all modes."""

import json
import re
import shutil
import traceback
from pathlib import Path

import pytest
import torch

import main
from core.model import Generator
from tests.command import ROOT, RUN, call, picture


def test_console_shows_networks_domains_and_losses(run):
    lines = run[0].stdout.splitlines()
    assert lines[0].startswith("Device: c") and "precision: fp32" in lines[0]
    table = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in lines[1:6]}
    assert list(table) == ["generator", "mapping_network", "style_encoder", "discriminator", "total"]
    assert table["total"] == sum(table.values()) - table["total"]
    assert lines[6:8] == ["Domains: bear (12), cat (12), dog (12)", "Validation: bear (3), cat (3), dog (3)"]
    assert lines[8].startswith("To watch the training, open ") and Path(lines[8].split()[5]).is_file()
    line = lines[9]
    assert re.match(r"Elapsed time \[0:0\d:\d\d\], It", line) and "], Iteration [1/2], D/latent_real: [" in line
    names = [word.rstrip(":") for word in line.split() if "/" in word and not word.startswith("[")]
    parts = {"D": ("real", "fake", "reg"), "G": ("adv", "sty", "ds", "cyc")}
    updates = [f"{net}/{by}_{part}" for net in "DG" for by in ("latent", "ref") for part in parts[net]]
    assert names == [*updates, "G/lambda_ds", "D/latent_sign", "D/ref_sign", "G/latent_src", "G/ref_src"]
    warnings = run[0].stderr.splitlines()  # no terminal: no bar
    assert len(warnings) == 1 and "fewer than 100 training images (bear 12, cat 12, dog 12)" in warnings[0]


def test_a_run_writes_checkpoints_snapshots_and_logs(run, faces):
    folders = run[1]
    checkpoints = sorted(path.name for path in folders["checkpoint_dir"].glob("0*"))
    assert checkpoints == [f"000002_{name}" for name in ("manifest.json", "nets.ckpt", "nets_ema.ckpt", "optims.ckpt")]
    manifest = json.loads((folders["checkpoint_dir"] / checkpoints[0]).read_text())
    assert manifest["step"] == 2 and sorted(manifest["files"]) == checkpoints[1:]
    nets = torch.load(folders["checkpoint_dir"] / "000002_nets.ckpt", weights_only=True)
    settings, images = nets["config"].pop("settings"), nets["config"].pop("images")
    assert [len(text) // 8 for part in images.values() for text in part] == [12] * 3 + [3] * 3
    assert settings["batch_size"] == 2 and settings["train_img_dir"] == str(folders["train_img_dir"])
    assert nets["config"] == {
        "img_size": 32, "num_domains": 3, "latent_dim": 16, "hidden_dim": 32, "style_dim": 64, "w_hpf": 0.0,
        "channel_base": 256, "max_conv_dim": 16, "preset": None, "domains": ["bear", "cat", "dog"], "step": 2,
    }  # fmt: skip
    assert set(nets) == {"generator", "mapping_network", "style_encoder", "discriminator", "config"}
    ema = torch.load(folders["checkpoint_dir"] / "000002_nets_ema.ckpt", weights_only=True)
    assert set(ema) == {"generator", "mapping_network", "style_encoder", "config"}

    names = {path.name for path in folders["sample_dir"].iterdir() if not path.name.startswith(".")}
    sizes = {name: picture(folders["sample_dir"] / name).size for name in names if name.endswith(".jpg")}
    rows_of_latent = 1 + 3 * 2
    assert sizes == {
        "000002_cycle_consistency.jpg": (4 * 32, 4 * 32),
        "000002_reference.jpg": (5 * 32, 5 * 32),
        **{f"000002_latent_psi_{psi}.jpg": (4 * 32, rows_of_latent * 32) for psi in (0.5, 0.7, 1.0)},
    }
    assert names - sizes.keys() == {"index.html", "train.jsonl", "options.json"}


def test_few_functions_lie_between_the_command_line_and_the_generator(data, tmp_path, monkeypatch):
    """main.main > ... > Generator.render: nine of ours, ten frames with the module itself."""
    chains, render = set(), Generator.render

    def recording(self, content, s):
        frames = traceback.extract_stack()[:-1]
        ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT / "core")]
        chains.add((*(frame.name for frame in frames if frame.filename == main.__file__), *(f.name for f in ours)))
        return render(self, content, s)

    monkeypatch.setattr(Generator, "render", recording)
    where = {**data, "checkpoint_dir": tmp_path / "c", "sample_dir": tmp_path / "s"}
    assert call("train", f"{RUN} --total_iters 1 --sample_every 0 --val_batch_size 2", **where) == 0
    in_training = [chain for chain in chains if "train_step" in chain]
    assert in_training and max(map(len, in_training)) <= 9, in_training


def test_resume_iter_continues_with_networks_of_the_checkpoint(run, capsys):
    folders = run[1]
    # The settings of the networks come from the checkpoint.
    flags = "--batch_size 2 --num_workers 0 --resume_iter 2 --total_iters 3 --print_every 1"
    assert call("train", flags, **folders) == 0
    said = capsys.readouterr().out
    assert "Loaded step 2" in said and "Iteration [3/3]" in said and "Iteration [2/3]" not in said
    assert (folders["checkpoint_dir"] / "000003_optims.ckpt").exists()
    assert (folders["checkpoint_dir"] / "000002_optims.ckpt").exists()


def test_snapshots_show_the_same_inputs(run, tmp_path):
    """The first row of a grid holds the sources: the same in every run and at every step."""
    folders = {**run[1], "sample_dir": tmp_path, "checkpoint_dir": tmp_path / "checkpoints"}
    flags = f"{RUN} --total_iters 2 --sample_every 1 --val_batch_size 4 --num_outs_per_domain 1"
    assert call("train", flags, **folders) == 0
    steps = [picture(tmp_path / f"00000{step}_latent_psi_1.0.jpg") for step in (1, 2)]
    first_rows = [image.crop((0, 0, 128, 32)).tobytes() for image in steps]
    assert first_rows[0] == first_rows[1]
    assert steps[0].tobytes() != steps[1].tobytes()


@pytest.mark.parametrize(
    ("mode", "flags", "said"),
    [
        ("train", "--num_domains 2", "3 sub-folders (bear, cat, dog), but --num_domains is 2"),
        ("train", "--train_img_dir nowhere", "Cannot read --train_img_dir nowhere (it does not exist)"),
        ("train", "--val_img_dir nowhere", "Cannot read --val_img_dir nowhere (it does not exist)"),
        ("train", "--resume_iter 7 --total_iters 9", "000007_nets_ema.ckpt (no such file)"),
        ("train", "--resume_iter 2 --total_iters 2", "--total_iters must be > 2, the step to resume from, got 2."),
        ("train", "--w_hpf 1 --wing_path nowhere", "Cannot load the face landmark network nowhere"),
        ("train", "--device mps", "Cannot use --device mps (no Apple GPU found)"),
        ("sample", "--checkpoint_dir nowhere", "No checkpoint named like 100000_nets_ema.ckpt in nowhere"),
        ("sample", "--src_dir nowhere", "Cannot read --src_dir nowhere (it does not exist)"),
        ("sample", "--ref_dir nowhere", "Cannot read --ref_dir nowhere (it does not exist)"),
        ("sample", "--ref_dir assets/representative", "named after the domains bear, cat, dog, got demo"),
        ("sample", "--ref_dir assets/representative/demo/src/cat", "src/cat to domains (it has no sub-folders)"),
        ("sample", "--src_dir core", "No images found in --src_dir core."),
        ("sample", "--target_domains lion", "--target_domains must be some of bear, cat, dog, got lion."),
        ("sample", "--domain_names a,b", "--domain_names must be 3 names, one per domain of the checkpoint, got 2."),
        ("sample", "--w_hpf 1", "--w_hpf must be 0.0 as in step"),
        ("sample", "--checkpoint_dir README.md", "(it is a file). Give its folder"),
        ("sample", "--img_size 64", "--img_size must be 32 as in step"),
        ("train", "--val_batch_size 2100", "images per side, a JPEG holds at most"),
        ("train", "--checkpoint_dir LICENSE/inside", "Cannot create folder LICENSE/inside"),
        ("sample", "--result_dir LICENSE/inside", "Cannot create folder LICENSE/inside"),
        ("align", "--lm_path nowhere", "Cannot find the mean face nowhere"),
    ],
)
def test_user_errors_exit_2_with_one_sentence(mode, flags, said, run, faces, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)  # on a Mac there may be one
    folders = {**run[1], "src_dir": faces / "val", "ref_dir": faces / "val", "result_dir": tmp_path / "results"}
    folders = {name: path for name, path in folders.items() if f"--{name}" not in flags}
    status = call(mode, ("" if mode == "sample" else RUN) + " " + flags, **folders)
    message = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert status == 2 and len(message) == 1
    assert message[0].startswith("error: ") and said in message[0]
    assert not (tmp_path / "results").exists()


def test_a_new_run_moves_old_checkpoints_aside_with_a_warning(run, tmp_path, capsys):
    shutil.copytree(run[1]["checkpoint_dir"], tmp_path / "checkpoints")
    folders = {**run[1], "checkpoint_dir": tmp_path / "checkpoints"}
    assert call("train", f"{RUN} --total_iters 1", **folders) == 0
    assert "Moved the later steps of an earlier run, those after step 0, to" in capsys.readouterr().err


def test_different_domains_for_validation_are_refused(run, faces, tmp_path, capsys):
    shutil.copytree(faces / "val", tmp_path / "val")
    (tmp_path / "val" / "bear").rename(tmp_path / "val" / "zebra")
    assert call("train", RUN, **{**run[1], "val_img_dir": tmp_path / "val"}) == 2
    assert "sub-folders are cat, dog, zebra, but the domains are bear" in capsys.readouterr().err


def test_an_empty_domain_is_refused(run, faces, tmp_path, capsys):
    shutil.copytree(faces / "train", tmp_path / "train")
    for path in (tmp_path / "train" / "cat").iterdir():
        path.unlink()
    assert call("train", RUN, **{**run[1], "train_img_dir": tmp_path / "train"}) == 2
    assert f"No images found in {tmp_path / 'train' / 'cat'}." in capsys.readouterr().err
