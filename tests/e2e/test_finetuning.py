"""Runs that begin with --init_from."""

import json
import shutil

import pytest
import torch

from tests.command import NARROW, ROOT, SHIPPED_MODEL, call
from tests.pretrained import TRAINED, pretrained, save
from tests.runs import FLAGS, folders, losses, state


@pytest.fixture(scope="module")
def trained():
    return pretrained()


def test_resuming_within_init_iters_equals_an_uninterrupted_run(trained, data, tmp_path, capsys):
    path = save(trained, tmp_path / "from")
    flags = f"{FLAGS} --init_from {path} --init_iters 3 --total_iters 4"
    whole = folders(tmp_path / "whole", data)
    assert call("train", f"{flags} --save_every 2", **whole) == 0
    expected = losses(capsys.readouterr().out)
    half = folders(tmp_path / "half", data)
    assert call("train", flags.replace("--total_iters 4", "--total_iters 2"), **half) == 0
    first = losses(capsys.readouterr().out)
    path.unlink()  # no longer needed
    assert call("train", "--device cpu --resume_iter latest --total_iters 4", **half) == 0
    assert {**first, **losses(capsys.readouterr().out)} == expected
    found, wanted = state(tmp_path / "half", 4), state(tmp_path / "whole", 4)
    assert found[0]["config"]["inherited"]["domains"] == list(TRAINED)
    for content in (*found, *wanted):
        content.pop("config")
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert call("train", "--device cpu --resume_iter 4 --total_iters 5 --init_iters 9", **half) == 2
    assert "--init_iters 9 instead of 3" in capsys.readouterr().err
    for file, ignored in ((path, False), (tmp_path / "another.ckpt", True)):  # neither is there
        assert call("train", f"--device cpu --resume_iter 4 --total_iters 5 --dry_run --init_from {file}", **half) == 0
        assert ("training resumes from step 4." in capsys.readouterr().err) == ignored


def test_the_shipped_model_can_be_finetuned_with_a_new_domain(faces, tmp_path, capsys):
    for part in ("train", "val"):
        for name, new in (("cat", "cat"), ("dog", "dog"), ("bear", "panda")):
            shutil.copytree(faces / part / name, tmp_path / part / new)
    flags = f"--device cpu --num_workers 0 --init_from {SHIPPED_MODEL} --total_iters 2"
    where = {"train_img_dir": tmp_path / "train", "val_img_dir": tmp_path / "val"}
    where |= {"checkpoint_dir": tmp_path / "c", "sample_dir": tmp_path / "s"}
    flags += " --batch_size 2 --val_batch_size 2 --num_outs_per_domain 1 --sample_every 2"
    assert call("train", flags, **where) == 0
    assert "heads of cat, dog; new: panda" in capsys.readouterr().out
    options = json.loads((tmp_path / "s" / "options.json").read_text())
    assert options["settings"]["img_size"] == 64 and options["settings"]["channel_base"] == 1024
    assert call("train", f"{flags} --dry_run --init_iters 5", **where) == 0
    assert "heads of cat, dog; new: panda" in capsys.readouterr().out


def test_frozen_blocks_of_d_are_those_of_the_file(trained, data, tmp_path, capsys):
    path = save(trained, tmp_path / "from")
    where = folders(tmp_path, data)
    assert call("train", f"{FLAGS} --init_from {path} --freeze_d 2 --total_iters 1", **where) == 0
    source = trained[0].discriminator.state_dict()
    found = state(tmp_path, 1)[0]["discriminator"]
    kept = {key for key in source if torch.equal(source[key], found[key])}
    assert {key for key in source if key.startswith(("main.0.", "main.1."))} == kept
    again = "--device cpu --resume_iter latest --total_iters 2"
    assert call("train", f"{again} --freeze_d 5 --override", **where) == 2
    assert "--freeze_d must be <= 4" in capsys.readouterr().err
    assert call("train", again, **where) == 0
    resumed = state(tmp_path, 2)[0]["discriminator"]
    assert {key for key in source if torch.equal(source[key], resumed[key])} == kept


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--init_from nowhere.ckpt", "Cannot read --init_from nowhere.ckpt (no such file)"),
        ("--init_from .", "Cannot read --init_from . (no such file)"),
        ("--init_from README.md", "--init_from README.md: cannot read README.md (damaged or not a checkpoint)"),
        ("--init_from {file} --domain_names a,b,c", "--domain_names must be bear,cat,dog as in --init_from"),
        ("--init_from {file} --img_size 64", "--img_size must be 32 as in --init_from"),
        ("--init_from {nets}", "cannot find generator"),
        ("--init_from {official} --domain_names cat,dog", "--domain_names must be 3 names"),
        ("--init_iters 5", "--init_iters only applies with --init_from. Add --init_from or remove --init_iters."),
        ("--init_from {file} --init_lr_scale 0.5", "--init_lr_scale only applies with --init_iters. Add --init_iters"),
        ("--freeze_d 2", "--freeze_d only applies with --init_from. Start a training with it or remove"),
        ("--init_from {file} --freeze_d 5", "--freeze_d must be <= 4, the number of blocks of D at 32 px, got 5."),
        ("--init_from {alone} --freeze_d 1", "since no nets file with a discriminator is beside "),
        ("--augment_prob 0.5", "--augment_prob only applies with --augment fixed. Use that or remove"),
        ("--augment fixed --augment_prob 0.9", "--augment_prob must be a number >= 0 and <= 0.8, got 0.9."),
        ("--augment both", "--augment must be one of none, ada, fixed, got both."),
        ("--init_from {inside}", "(it is in --checkpoint_dir, and a new training moves its steps"),
        ("--init_lr_scale 2", "--init_lr_scale must be a number >= 0 and <= 1, got 2."),
    ],
)
def test_user_errors_exit_2_and_change_nothing(flags, said, trained, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    torch.save({"discriminator": {}}, tmp_path / "other.ckpt")
    where = folders(tmp_path, data)
    known = {"file": save(trained, tmp_path / "ours"), "inside": save(trained, where["checkpoint_dir"])}
    known |= {"official": save(trained, tmp_path / "official", "official")}
    known |= {"alone": save(trained, tmp_path / "alone", with_nets=False)}
    before = sorted(where["checkpoint_dir"].iterdir())
    line = flags.format(nets=tmp_path / "other.ckpt", **known)
    narrow = NARROW if "img_size 64" not in flags else "--device cpu"
    try:
        assert call("train", f"{narrow} {line}", **where) == 2
    except SystemExit as end:  # of the parser
        assert end.code == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0]
    assert sorted(path for path in where["checkpoint_dir"].glob("[!.]*")) == before
