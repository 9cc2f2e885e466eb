"""Training, sampling and evaluation with masks (w_hpf > 0)."""

import json
import subprocess
import sys

import pytest
import torch

import main
from core.model import face_masks
from core.solver import Solver
from core.wing import FAN
from tests import golden
from tests.command import ROOT, as_flags, call

NARROW = "--device cpu --num_domains 3 --img_size 64 --channel_base 512 --max_conv_dim 16 --hidden_dim 32"
RUN = f"{NARROW} --batch_size 2 --num_workers 0 --val_batch_size 2 --num_outs_per_domain 2 --print_every 1"


@pytest.fixture(scope="module")
def trained():
    """A Solver with golden weights in float64 after a golden iteration with masks."""
    expected = golden.read("training_64_narrow_faces.json")
    settings = expected["settings"]
    del settings["batch"]
    settings["ema_decay"] = settings.pop("ema_beta")
    solver = Solver(main.parse_args(["--mode", "train", "--device", "cpu", *as_flags(settings)]))
    for name, network in solver.nets.items():
        golden.fill(name, network)
        if name in solver.nets_ema:
            solver.nets_ema[name].load_state_dict(network.state_dict())
        network.double()
    before = {name: {k: p.clone() for k, p in net.named_parameters()} for name, net in solver.nets.items()}
    for network in solver.nets_ema.values():
        network.double()
    seen = []
    handle = solver.nets.fan.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    losses = [
        solver.train_step(golden.iteration_inputs(n, num_domains=2), n) for n in range(len(expected["iterations"]))
    ]
    handle.remove()
    return solver, before, losses, expected, seen


def test_losses(trained):
    _, _, losses, expected, _ = trained
    for found, figures in zip(losses, expected["iterations"], strict=True):
        assert {name: float(value) for name, value in found.items()} == pytest.approx(figures, rel=1e-8)


def test_parameters(trained):
    solver, before, _, expected, _ = trained
    for name, figures in expected["parameters"].items():
        for key, p in solver.nets[name].named_parameters():
            found = {"moved": (p - before[name][key]).abs().mean(), "mean": p.mean(), "norm": p.norm()}
            assert {k: v.item() for k, v in found.items()} == pytest.approx(figures[key], rel=1e-8), f"{name}.{key}"


def test_the_face_network_is_shared_and_stays(trained):
    solver, before, *_ = trained
    assert solver.nets.fan is solver.nets_ema.fan and "fan" not in solver.optims
    assert all(torch.equal(p, before["fan"][key]) for key, p in solver.nets.fan.named_parameters())


def test_passes_of_an_iteration(trained):
    """Masks of the sources once, of each update's outputs once."""
    assert trained[-1] == [2, 2, 2]


def test_images_in_pieces_and_in_coarse_numbers(trained):
    """Masks do not depend on the batch, and are made in full precision under autocast."""
    nets, x = trained[0].nets, golden.image("x").double()
    whole = face_masks(nets, x)
    for number in range(2):
        for part, mask in zip(face_masks(nets, x[number : number + 1]), whole, strict=True):
            torch.testing.assert_close(part, mask[number : number + 1], rtol=1e-9, atol=1e-9)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(face_masks(nets, x), whole, strict=True))
    assert face_masks({}, x) is None


def test_what_faces_do_not_need():
    """Without masks the face network is not even imported."""
    code = (
        "import sys, main; from core.solver import Solver; "
        f"solver = Solver(main.parse_args('--mode train --w_hpf 0 {NARROW}'.split())); "
        "assert 'fan' not in solver.nets; sys.exit('core.wing' in sys.modules or 'core.align' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


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


def test_train_and_resume(folders, capsys):
    """A checkpoint holds the face network, so wing.ckpt is needed at the start only."""
    assert (folders["sample_dir"] / "000002_cycle_consistency.jpg").is_file()
    for kind in ("nets", "nets_ema"):
        content = torch.load(folders["checkpoint_dir"] / f"000002_{kind}.ckpt", weights_only=True)
        assert content["fan"].keys() == golden.fill("fan", FAN()).state_dict().keys()
    flags = "--device cpu --resume_iter latest --total_iters 3 --num_workers 0 --sample_every 0"
    assert call("train", flags, **{**folders, "wing_path": "nowhere"}) == 0
    assert "Loaded step 2" in capsys.readouterr().out


def test_sample_and_evaluate(folders, faces, torch_cache, tmp_path):
    where = {"checkpoint_dir": folders["checkpoint_dir"], "src_dir": faces / "val", "ref_dir": faces / "val"}
    flags = "--device cpu --num_workers 0 --resume_iter 2 --wing_path nowhere"
    assert call("sample", f"{flags} --outputs reference,latent,video_ref --seeds 0", **where, result_dir=tmp_path) == 0
    assert (tmp_path / "reference.jpg").is_file() and (tmp_path / "video_ref.mp4").is_file()
    images = {name: folders[name] for name in ("train_img_dir", "val_img_dir", "checkpoint_dir")}
    flags += " --val_batch_size 3 --num_outs_per_domain 2 --save_eval_images false"
    assert call("eval", flags, **images, eval_dir=tmp_path) == 0
    scores = json.loads((tmp_path / "FID_00002_latent.json").read_text())
    assert len([name for name in scores if "2" in name and "/" in name]) == 6


def test_a_checkpoint_without_the_face_network(folders, faces, tmp_path, capsys):
    """Takes it from wing.ckpt, and says so where there is none."""
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
    assert "wing.ckpt, the network that finds faces, is missing" in capsys.readouterr().err


def test_training_without_wing(folders, capsys):
    where = {**folders, "wing_path": "nowhere/wing.ckpt"}
    assert call("train", f"{RUN} --total_iters 1", **where) == 2
    said = capsys.readouterr()
    assert "--w_hpf 0, which is right for anything but aligned faces" in said.err
    assert "Device" not in said.out, "before anything is built"
