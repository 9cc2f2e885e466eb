"""Imports, spawned workers and modules other than main.py, each in a fresh interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core import data_loader
from core.data_loader import get_train_loader
from metrics import fid
from tests.command import NARROW, ROOT

SPAWNED = """
import torch, sys
from core.data_loader import get_train_loader
if __name__ == "__main__":
    torch.multiprocessing.set_start_method("spawn")
    loader = get_train_loader(sys.argv[1], "reference", 16, 4, num_workers=2, stop=3)
    print(sum(x.double().sum().item() for x, _, _ in loader))
"""


def test_spawned_workers_give_the_same_images(faces, tmp_path):
    """As on Windows and macOS: a fresh interpreter imports the data set and gives the same images."""
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    environment = {**os.environ, "PYTHONPATH": str(Path(data_loader.__file__).parents[1])}
    command = [sys.executable, script, faces / "train"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    loader = get_train_loader(faces / "train", "reference", 16, 4, num_workers=0, stop=3)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == sum(x.double().sum().item() for x, _, _ in loader)


def test_download_does_not_import_torch():
    code = "import sys, data.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_help_and_mistakes_do_not_import_torch():
    """They are answered at once; PyTorch takes seconds."""
    for line in (["--help"], ["sample", "--help"], ["train", "--lr", "x"], ["trian"], ["train", "--batchsize", "3"]):
        code = f"import sys, main\ntry: main.main({line})\nfinally: print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode in (0, 2) and done.stdout.splitlines()[-1] == "False", done.stderr


def test_face_modules_are_not_imported_without_masks():
    """Without masks neither FAN nor alignment is imported."""
    code = (
        "import sys, main; from core.solver import Solver; "
        f"solver = Solver(main.parse_args('--mode train --w_hpf 0 {NARROW}'.split())); "
        "assert 'fan' not in solver.nets; sys.exit('core.wing' in sys.modules or 'core.sampling.align' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_fid_command_compares_two_folders(torch_cache, faces, capsys):
    paths = [str(faces / "val" / name) for name in ("bear", "cat")]
    values = []
    for pair in (paths, paths[::-1], [paths[0]] * 2):
        fid.main(["--paths", *pair, "--img_size", "64", "--device", "cpu"])
        values.append(float(capsys.readouterr().out.split()[1]))
    assert values[0] == pytest.approx(values[1], rel=1e-6) and values[0] > 1 and abs(values[2]) < 1e-6
    with pytest.raises(SystemExit) as stop:
        fid.main(["--paths", paths[0], "nowhere"])
    assert stop.value.code == 2 and "No images found in nowhere." in capsys.readouterr().err
    fid.main(["--paths", *[paths[0]] * 2, "--img-size", "64", "--batch-size", "1", "--device", "cpu"])
    assert float(capsys.readouterr().out.split()[1]) == pytest.approx(values[2], abs=1e-6), "dashes for underscores"
    for flag in ("--img_size", "--batch_size"):
        with pytest.raises(SystemExit) as stop:
            fid.main(["--paths", *paths, flag.replace("_", "-"), "0"])
        assert stop.value.code == 2 and f"{flag} must be >= 1, got 0." in capsys.readouterr().err
    module = [sys.executable, "-m", "metrics.fid", "--help"]
    done = subprocess.run(module, cwd=Path(fid.__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0 and "--paths" in done.stdout
