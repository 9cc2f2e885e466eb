"""Imports, spawned workers and modules other than main.py, each in a fresh interpreter."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core import data_loader
from core.data_loader import get_train_loader
from metrics import __main__ as scoring
from metrics import fid
from tests.command import NARROW, ROOT, picture
from tests.profiles import encoded, patches, rgb_profile

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


def test_fid_command_compares_two_folders(torch_cache, faces, tmp_path, capsys):
    paths = [str(faces / "val" / name) for name in ("bear", "cat")]
    values = []
    for pair in (paths, paths[::-1], [paths[0]] * 2):
        scoring.main(["--paths", *pair, "--img_size", "64", "--device", "cpu"])
        lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
        assert list(lines) == ["FID", "KID", "precision", "recall", "density", "coverage"]
        values.append(float(lines["FID"]))
    assert values[0] == pytest.approx(values[1], rel=1e-6) and values[0] > 1 and abs(values[2]) < 1e-6
    with pytest.raises(SystemExit) as stop:
        scoring.main(["--paths", paths[0], "nowhere"])
    assert stop.value.code == 2 and "Cannot read nowhere (it does not exist)." in capsys.readouterr().err
    scoring.main(["--paths", *[paths[0]] * 2, "--img-size", "64", "--batch-size", "1", "--device", "cpu"])
    assert float(capsys.readouterr().out.split()[1]) == pytest.approx(values[2], abs=1e-6), "dashes for underscores"
    (tmp_path / "one").mkdir()
    shutil.copy(next((faces / "val" / "cat").iterdir()), tmp_path / "one")
    scoring.main(["--paths", str(tmp_path / "one"), paths[0], "--img_size", "64", "--device", "cpu"])
    said = capsys.readouterr().out
    assert "KID: nan (it needs at least 2 images in each folder)" in said
    assert "recall: nan (it needs at least 6 images in each folder)" in said
    for flag in ("--img_size", "--batch_size"):
        with pytest.raises(SystemExit) as stop:
            scoring.main(["--paths", *paths, flag.replace("_", "-"), "0"])
        assert stop.value.code == 2 and f"{flag} must be an integer >= 1, got 0." in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        scoring.main(["--paths", *paths, "--device", "cuda:7"])
    assert stop.value.code == 2 and "Cannot use --device cuda:7 (" in capsys.readouterr().err
    for module in ("metrics", "metrics.fid"):  # an earlier name
        line = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(line, cwd=Path(fid.__file__).parents[1], capture_output=True, text=True)
        assert done.returncode == 0 and "--paths" in done.stdout and done.stderr == ""


def fid_of(*paths, capsys):
    scoring.main(["--paths", *map(str, paths), "--img_size", "64", "--device", "cpu"])
    return float(capsys.readouterr().out.split()[1])


def test_fid_reads_images_as_the_program_does(torch_cache, tmp_path, capsys):
    """16 bit, colour profiles and transparency: the same colours have a distance of about 0."""
    icc = rgb_profile("Display P3")
    for number in range(3):
        grey = np.roll(np.asarray(patches().convert("L")), 16 * number, axis=0)
        rgb = Image.fromarray(np.roll(np.asarray(patches()), 16 * number, axis=0))
        clear = Image.merge("RGBA", (*rgb.split(), Image.fromarray(np.full((64, 64), 255, np.uint8))))
        clear.paste((9, 9, 9, 0), (0, 0, 32, 64))
        white = rgb.copy()
        white.paste("white", (0, 0, 32, 64))
        for name, image, options in (
            ("grey/8", Image.fromarray(grey), {}),
            ("grey/16", Image.fromarray(grey.astype(np.uint16) * 257), {}),
            ("colour/srgb", rgb, {}),
            ("colour/p3", encoded(rgb, icc), {"icc_profile": icc}),
            ("alpha/white", white, {}),
            ("alpha/clear", clear, {}),
        ):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / name / f"{number}.png", **options)
    apart = fid_of(tmp_path / "grey" / "8", tmp_path / "colour" / "srgb", capsys=capsys)
    for kind in ("grey", "colour", "alpha"):
        assert fid_of(*sorted((tmp_path / kind).iterdir()), capsys=capsys) < 0.02 * apart, kind


def test_fid_finds_the_images_that_the_program_finds(torch_cache, faces, tmp_path, capsys):
    """Links to folders and GIFs count; system folders do not."""
    (tmp_path / "a" / "@eaDir").mkdir(parents=True)
    shutil.copy(faces / "val" / "dog" / "00000.png", tmp_path / "a" / "@eaDir")
    (tmp_path / "gif").mkdir()
    for path in (faces / "val" / "cat").iterdir():
        picture(path).save(tmp_path / "gif" / f"{path.stem}.gif")
    try:
        (tmp_path / "a" / "cat").symlink_to(faces / "val" / "cat", target_is_directory=True)
    except OSError:
        shutil.copytree(faces / "val" / "cat", tmp_path / "a" / "cat")
    assert abs(fid_of(faces / "val" / "cat", tmp_path / "a", capsys=capsys)) < 1e-6
    assert fid_of(faces / "val" / "dog", tmp_path / "gif", capsys=capsys) > 1


@pytest.mark.parametrize("content", [b"text", None, "cut"])
def test_fid_names_the_broken_file(content, torch_cache, faces, tmp_path, capsys):
    shutil.copytree(faces / "val" / "cat", tmp_path / "b")
    path = tmp_path / "b" / "00001.png"
    whole = path.read_bytes()
    path.unlink()
    if content is None:
        path.symlink_to("nowhere")
    else:
        path.write_bytes(whole[:1000] if content == "cut" else content)
    with pytest.raises(SystemExit) as stop:
        fid_of(faces / "val" / "cat", tmp_path / "b", capsys=capsys)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("error: Cannot read ") and "00001.png as an image (" in said
