import subprocess
import sys

import pytest
import torch
import torchvision

import main
from data import demo
from metrics import fid, lpips
from metrics.weights import weights_path
from tests import golden
from tests.command import NARROW, ROOT, RUN, as_flags


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """A small data set of three domains: train/ (12 each) and val/ (3 each), 64 px."""
    folder = tmp_path_factory.mktemp("faces")
    demo.make(folder, size=64, train=12, val=3)
    return folder


@pytest.fixture
def parse():
    """parse("train", "--img_size 32 ...", **paths) -> Namespace of a narrow network without masks."""

    def parse(mode, flags="", **folders):
        narrow = f"{NARROW} --num_workers 0"
        return main.parse_args(["--mode", mode, *narrow.split(), *flags.split(), *as_flags(folders)])

    return parse


@pytest.fixture(scope="session")
def torch_cache(tmp_path_factory):
    """A cache of PyTorch with golden weights of AlexNet and Inception under the names that torchvision expects."""
    networks = (("alexnet", torchvision.models.alexnet, lpips.WEIGHTS), ("inception", fid.build_inception, fid.WEIGHTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        for name, build, weights in networks:
            weights_path(weights).parent.mkdir(parents=True, exist_ok=True)
            torch.save(golden.fill(name, build()).state_dict(), weights_path(weights))
        yield weights_path(weights).parent


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory):
    """A run of two iterations by the program itself, and its folders."""
    folder = tmp_path_factory.mktemp("run")
    folders = {
        "train_img_dir": faces / "train",
        "val_img_dir": faces / "val",
        "checkpoint_dir": folder / "checkpoints",
        "sample_dir": folder / "samples",
    }
    flags = "--total_iters 2 --print_every 1 --sample_every 2 --val_batch_size 4 --num_outs_per_domain 2"
    paths = as_flags(folders)
    line = [sys.executable, "main.py", "--mode", "train", *RUN.split(), *flags.split(), *paths]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done, folders


@pytest.fixture(scope="module")
def data(faces):
    return {"train_img_dir": faces / "train", "val_img_dir": faces / "val"}
