"""Training, sampling and evaluation with masks (w_hpf > 0)."""

import json

import pytest
import torch

from core.wing import FAN
from tests import golden
from tests.command import call

NARROW = "--device cpu --num_domains 3 --img_size 64 --channel_base 512 --max_conv_dim 16 --hidden_dim 32"
RUN = f"{NARROW} --batch_size 2 --num_workers 0 --val_batch_size 2 --num_outs_per_domain 2 --print_every 1"


@pytest.fixture(scope="module")
def folders(faces, tmp_path_factory):
    """Folders of a run of two iterations with a face network of random weights."""
    folder = tmp_path_factory.mktemp("faces")
    torch.save({"state_dict": golden.fill("fan", FAN()).state_dict(), "epoch": 1}, folder / "wing.ckpt")
    images = {"train_img_dir": faces / "train", "val_img_dir": faces / "val"}
    where = {**images, "checkpoint_dir": folder / "c", "sample_dir": folder / "s", "wing_path": folder / "wing.ckpt"}
    flags = f"{RUN} --total_iters 2 --sample_every 2 --eval_every 0"
    assert call("train", flags, **where) == 0
    return where


def test_resuming_takes_the_face_network_from_the_checkpoint(folders, capsys):
    """A checkpoint holds the face network, so only a new training needs wing.ckpt."""
    assert (folders["sample_dir"] / "000002_cycle_consistency.jpg").is_file()
    for kind in ("nets", "nets_ema"):
        content = torch.load(folders["checkpoint_dir"] / f"000002_{kind}.ckpt", weights_only=True)
        assert content["fan"].keys() == golden.fill("fan", FAN()).state_dict().keys()
    flags = "--device cpu --resume_iter latest --total_iters 3 --num_workers 0 --sample_every 0"
    assert call("train", flags, **{**folders, "wing_path": "nowhere"}) == 0
    assert "Loaded step 2" in capsys.readouterr().out


def test_sampling_and_evaluation_with_masks(folders, faces, torch_cache, tmp_path):
    where = {"checkpoint_dir": folders["checkpoint_dir"], "src_dir": faces / "val", "ref_dir": faces / "val"}
    flags = "--device cpu --num_workers 0 --resume_iter 2 --wing_path nowhere"
    assert call("sample", f"{flags} --outputs reference,latent,video_ref --seeds 0", **where, result_dir=tmp_path) == 0
    assert (tmp_path / "reference.jpg").is_file() and (tmp_path / "video_ref.mp4").is_file()
    images = {name: folders[name] for name in ("train_img_dir", "val_img_dir", "checkpoint_dir")}
    flags += " --val_batch_size 3 --num_outs_per_domain 2 --save_eval_images false"
    assert call("eval", flags, **images, eval_dir=tmp_path) == 0
    scores = json.loads((tmp_path / "FID_00002_latent.json").read_text())
    assert len([name for name in scores if "2" in name and "/" in name]) == 6


def test_a_checkpoint_without_the_face_network_needs_wing_path(folders, faces, tmp_path, capsys):
    """It is read from wing.ckpt; without that file there is an error."""
    path = folders["checkpoint_dir"] / "000002_nets_ema.ckpt"
    content = torch.load(path, weights_only=True)
    del content["fan"]
    torch.save(content, tmp_path / "000002_nets_ema.ckpt")
    where = {"checkpoint_dir": tmp_path, "src_dir": faces / "val", "ref_dir": faces / "val", "result_dir": tmp_path}
    flags = "--device cpu --num_workers 0 --outputs reference"
    assert call("sample", flags, **where, wing_path=folders["wing_path"]) == 0
    found = (tmp_path / "reference.jpg").read_bytes()
    assert call("sample", flags, **{**where, "checkpoint_dir": folders["checkpoint_dir"]}, resume_iter=2) == 0
    assert (tmp_path / "reference.jpg").read_bytes() == found
    assert call("sample", flags, **where, wing_path=tmp_path / "wing.ckpt") == 2
    assert "wing.ckpt (no such file). Run python -m data.download wing" in capsys.readouterr().err


def test_training_with_masks_needs_wing_path(folders, capsys):
    where = {**folders, "wing_path": "nowhere/wing.ckpt"}
    assert call("train", f"{RUN} --total_iters 1", **where) == 2
    said = capsys.readouterr()
    assert "set --w_hpf 0 if the images are not aligned faces." in said.err
    assert "Device" not in said.out, "before anything is built"
