import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is loaded: parallel workers have a core each

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import main
from core.cli.parser import Parser
from core.model import build_model
from core.system import console
from core.system.errors import UserError
from data import demo
from metrics import fid, lpips
from metrics.weights import weights_path
from tests import golden
from tests.command import NARROW, ROOT, RUN, as_flags
from tests.error_form import flaw


@pytest.fixture(autouse=True)
def errors_have_the_form(monkeypatch):
    """Every error that the program raises or reports in a test has the form of tests.error_form."""
    raised, create = [], UserError.__init__

    def record(error, message):
        caller = Path(sys._getframe(1).f_code.co_filename)
        others = {"tests", ".venv", ".venv-oldest"}
        if caller.parent.is_relative_to(ROOT) and not others & set(caller.relative_to(ROOT).parts):
            raised.append(message)
        create(error, message)

    def record_error(parser, message):
        raised.append(parser._plain(message))
        report(parser, message)

    report = Parser.error
    monkeypatch.setattr(UserError, "__init__", record)
    monkeypatch.setattr(Parser, "error", record_error)
    yield
    flaws = [f"{flaw(message)}: {message}" for message in raised if flaw(message)]
    assert not flaws, "\n".join(flaws)


@pytest.fixture(autouse=True)
def warnings_are_not_remembered(monkeypatch):
    monkeypatch.setattr(console, "_kinds_warned", set())


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


@pytest.fixture(scope="session")
def two_domains(faces, tmp_path_factory):
    """Two domains of 4 training images; 3 and 1 validation images."""
    folder = tmp_path_factory.mktemp("two_domains")
    for part, domain, count in (
        ("train", "bear", 4),
        ("train", "cat", 4),
        ("val", "bear", 3),
        ("val", "cat", 1),
    ):
        (folder / part / domain).mkdir(parents=True)
        for number in range(count):
            shutil.copy(faces / part / domain / f"{number:05d}.png", folder / part / domain)
    return folder


@pytest.fixture(scope="module")
def nets():
    return build_model(main.parse_args(["--mode", "sample", *NARROW.split(), "--num_domains", "3"]))[1]


@pytest.fixture(scope="module")
def pictures():
    torch.manual_seed(0)
    return torch.rand(5, 3, 32, 32) * 2 - 1, torch.rand(4, 3, 32, 32) * 2 - 1, torch.tensor([0, 0, 1, 2])


@pytest.fixture(scope="module")
def mean_face():
    """98 landmarks placed like those of a face, in pixels of 256: eyes, mouth and the rest around them."""
    chance = np.random.default_rng(0)
    points = np.stack([chance.uniform(70, 186, 98), chance.uniform(70, 200, 98)], axis=1)
    for chosen, middle in ((range(60, 68), (96, 112)), (range(68, 76), (160, 112)), (range(76, 96), (128, 178))):
        points[list(chosen)] = np.array(middle) + chance.uniform(-12, 12, (len(chosen), 2)) * (1, 0.5)
    points[[96, 97, 76, 82]] = [(96, 112), (160, 112), (108, 178), (148, 178)]
    return points


@pytest.fixture
def photographs(tmp_path):
    """A bright and a dark photograph, one with EXIF orientation, one in a sub-folder, one damaged."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    Image.new("RGB", (300, 200), (220, 200, 180)).save(folder / "bright.jpg")
    Image.new("RGB", (300, 200), (20, 20, 20)).save(folder / "dark.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.linear_gradient("L").resize((640, 480)).point(lambda v: 128 + v // 2).convert("RGB").save(
        folder / "side.jpg", exif=exif
    )
    Image.new("RGB", (64, 64), "white").save(folder / "more" / "small.gif")
    (folder / "broken.png").write_bytes(b"no image")
    return folder
