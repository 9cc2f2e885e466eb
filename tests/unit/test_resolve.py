"""What a command line refers to on the disk: checkpoints, data sets, shipped images."""

import shutil
from importlib import import_module

import pytest
from PIL import Image

import main
from core.cli.args import parse_given
from core.cli.presets import SHIPPED, preset_defaults
from core.cli.resolve import loaded_config, resolve
from core.images.check import readable
from core.images.shape import Shape
from core.solver import Solver
from core.system.errors import UserError
from data import prepare
from tests.command import NARROW, ROOT, call, config_of
from tests.photos import fill

OWN_DEMO = preset_defaults("demo", "train")["checkpoint_dir"]


def config(*line):
    return resolve(parse_given(list(map(str, line))))


def save(folder, step, **fields):
    """A step with narrow networks of three domains."""
    line = [*NARROW.split(), "--num_domains", "3", "--checkpoint_dir", folder]
    Solver(config_of("train", *line, domains=("bear", "cat", "dog"), **fields)).save(step)


def test_a_checkpoint_is_a_folder_or_a_file(tmp_path):
    for step in (3, 20):
        save(tmp_path, step)
    for name, step in (("", 20), ("000003_nets_ema.ckpt", 3), ("000003_nets.ckpt", 3)):
        found = loaded_config(parse_given(["eval", "--checkpoint", str(tmp_path / name)]))
        assert (found.resume_iter, found.checkpoint_dir) == (step, str(tmp_path))
    for line, sentence in (
        ([tmp_path / "000004_nets_ema.ckpt"], "Cannot read --checkpoint .*no such file or folder"),
        ([tmp_path / "000003_manifest.json"], "--checkpoint must be a folder, or a file named like"),
        ([tmp_path.parent], "No checkpoint in --checkpoint"),
        ([tmp_path, "--resume_iter", "3"], "Cannot use --checkpoint and --resume_iter at once"),
        ([tmp_path, "--checkpoint_dir", "x"], "Cannot use --checkpoint and --checkpoint_dir at once"),
    ):
        with pytest.raises(UserError, match=sentence):
            config("eval", "--checkpoint", *line)


def test_the_demo_preset_prefers_the_training_of_the_user(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = config("sample", "--preset", "demo", "--outputs", "latent")
    assert found.checkpoint_dir == str(ROOT / SHIPPED) and "Model: the included demo model" in capsys.readouterr().out
    shutil.copytree(ROOT / SHIPPED, tmp_path / OWN_DEMO)
    found = config("sample", "--preset", "demo", "--outputs", "latent")
    said = capsys.readouterr().out
    assert found.checkpoint_dir == OWN_DEMO and "Model: the one you trained" in said
    assert f"add --checkpoint {ROOT / SHIPPED}" in said  # the path from here
    for flag in ("--checkpoint", "--checkpoint_dir"):
        found = config("sample", "--preset", "demo", "--outputs", "latent", flag, ROOT / SHIPPED)
        assert found.checkpoint_dir == str(ROOT / SHIPPED) and "Model:" not in capsys.readouterr().out


def test_shipped_files_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.main(["sample", "--preset", "demo", "--outputs", "images", "--target_domains", "cat", "--dry_run"]) == 0


def test_a_bare_training_names_the_missing_data_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(["train"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: No images in data/celeba_hq/train")
    for remedy in ("--train_img_dir", "--val_img_dir", "python -m data.demo", "--preset demo"):
        assert remedy in error
    assert "wing.ckpt" not in error


@pytest.mark.parametrize(
    ("flags", "domains", "warned"),
    [
        ("", "cat dog", True),
        ("--w_hpf 1", "cat dog", False),
        ("", "female male", False),
        ("--w_hpf 0", "cat dog", False),
    ],
)
def test_images_that_are_not_faces_are_warned_about_under_the_default_w_hpf(flags, domains, warned, tmp_path, capsys):
    for part in ("train", "val"):
        for kind, domain in zip(("cat", "dog"), domains.split(), strict=True):
            fill(tmp_path / "drawn", 2, domains=[kind])
            shutil.copytree(tmp_path / "drawn" / kind, tmp_path / part / domain)
    folders = {"train_img_dir": tmp_path / "train", "val_img_dir": tmp_path / "val"}
    folders |= {"checkpoint_dir": tmp_path / "c", "sample_dir": tmp_path / "s", "wing_path": tmp_path / "wing.ckpt"}
    flags += " --dry_run --device cpu --img_size 32 --channel_base 256 --max_conv_dim 16 --num_workers 0 --eval_every 0"
    status = call("train", flags, **folders)
    error = capsys.readouterr().err
    assert ("Using --w_hpf 1, the default" in error) is warned
    assert status == (0 if "--w_hpf 0" in flags else 2) and ("wing.ckpt" in error) is (status == 2)


def test_sampling_makes_images_square_as_the_training_set_was(tmp_path):
    save(tmp_path / "plain", 1)
    save(tmp_path / "padded", 1, data_resize="pad")
    for folder, line, resize in (
        ("plain", [], "stretch"),
        ("padded", [], "pad"),
        ("padded", ["--resize", "crop"], "crop"),
        ("padded", ["--resize", "stretch"], "stretch"),
    ):
        given = parse_given(["sample", "--outputs", "latent", "--checkpoint", str(tmp_path / folder), *line])
        assert loaded_config(given).resize == resize


def test_a_training_stores_how_data_prepare_made_its_images_square(tmp_path):
    fill(tmp_path / "photos", 4, domains=["cat", "dog"])
    prepare.prepare(tmp_path / "photos", tmp_path / "set", 32, resize="pad")
    folders = [f"--{part}_img_dir={tmp_path / 'set' / part}" for part in ("train", "val")]
    found = config("train", *NARROW.split(), *folders, "--num_workers", "0", f"--checkpoint_dir={tmp_path / 'c'}")
    assert found.data_resize == "pad" and found.for_checkpoint(1)["resize"] == "pad"


def test_stretching_is_warned_about_from_a_ratio_of_more_than_1_2(tmp_path, capsys):
    for name, size in (("a", (120, 100)), ("b", (100, 121)), ("c", (64, 64)), ("d", (300, 100))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    (tmp_path / "e.png").write_bytes(b"no image")
    readable([(path, 0) for path in sorted(tmp_path.iterdir())], "--src_dir x", Shape(64))
    warning = capsys.readouterr().err
    assert (
        "Stretching 2 files in --src_dir x to squares" in warning and "b.png (100 x 121), d.png (300 x 100)" in warning
    )
    readable([(tmp_path / "a.png", 0), (tmp_path / "c.png", 0)], "--src_dir x", Shape(64))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("module", ["data.prepare", "data.demo", "data.download"])
def test_other_command_lines_answer_mistakes_like_main(module, capsys):
    lines = {
        "data.prepare": ("--in x --out y --minside 3", "Use --min_side, or see --help."),
        "data.demo": ("--size 0", "--size must be an integer >= 1, got 0."),
        "data.download": ("afhq-datset", "Cannot download afhq-datset (unknown name). Choose afhq-dataset."),
    }
    line, sentence = lines[module]
    with pytest.raises(SystemExit) as stop:
        import_module(module).main(line.split())
    error = capsys.readouterr().err
    assert stop.value.code == 2 and sentence in error and error.count("\n") == 1
