"""Images of a data set that change between a stop and a resume, and advice on small data sets."""

import json
import shutil

import pytest
import torch

from core.cli.args import parse_given
from core.cli.resolve import resolve
from core.commands import start_training
from core.images.advice import warn_about_counts
from core.images.inventory import inventory, warn_about_changes
from tests.command import NARROW, as_flags
from tests.photos import fill

DOMAINS = ("cat", "dog")


def listed(root):
    files = [(path, label) for label, name in enumerate(DOMAINS) for path in (root / name).rglob("*.jpg")]
    return inventory(files, root, DOMAINS)


def add(root):
    fill(root, 2, ("dog",), start=10)


def remove(root):
    (root / "cat" / "0.jpg").unlink()


def rename(root):
    (root / "dog" / "1.jpg").rename(root / "dog" / "ñ.jpg")


def move(root):
    (root / "cat" / "more").mkdir()
    (root / "cat" / "2.jpg").rename(root / "cat" / "more" / "2.jpg")


def change(root):
    shutil.copy(root / "cat" / "0.jpg", root / "dog" / "0.jpg")


def relabel(root):
    (root / "cat" / "3.jpg").rename(root / "dog" / "33.jpg")


CHANGES = {
    add: "dog (2 added).",
    remove: "cat (1 removed).",
    rename: "dog (1 added, 1 removed).",
    move: "cat (1 added, 1 removed).",
    change: "dog (1 changed).",
    relabel: "cat (1 removed), dog (1 added).",
}


@pytest.mark.parametrize("work", CHANGES)
def test_changes_are_counted_by_domain(tmp_path, capsys, work):
    root = fill(tmp_path / "set", 5)
    before = listed(root)
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert listed(copy) == before
    work(root)
    folders = {"train_img_dir": root}
    warn_about_changes({"train_img_dir": before}, {"train_img_dir": listed(root)}, folders, DOMAINS, 400)
    shown = capsys.readouterr().err
    assert shown.startswith(f"warning: The images in --train_img_dir {root} differ from those of step 400: ")
    assert CHANGES[work] in shown and "no longer bit-exact" in shown


@pytest.mark.parametrize("saved", [None, 3, {}, {"train_img_dir": None}, {"train_img_dir": ["AAAA"]},
                                   {"train_img_dir": [1, 2]}, {"train_img_dir": ["é", "!"]}])  # fmt: skip
def test_unknown_or_damaged_lists_are_ignored(tmp_path, capsys, saved):
    root = fill(tmp_path, 2)
    warn_about_changes(saved, {"train_img_dir": listed(root)}, {"train_img_dir": root}, DOMAINS, 4)
    assert capsys.readouterr().err == ""


def test_a_list_takes_eight_bytes_per_image(tmp_path):
    texts = listed(fill(tmp_path, 9))
    assert [len(text) for text in texts] == [72, 72] and json.loads(json.dumps(texts)) == texts


def test_a_resumed_training_reports_changed_images_of_both_parts(tmp_path, capsys):
    """The list is stored with the step and does not depend on whether a run was resumed."""
    folders = {f"{part}_img_dir": fill(tmp_path / part, 3) for part in ("train", "val")}
    folders |= {"checkpoint_dir": tmp_path / "steps", "sample_dir": tmp_path / "samples"}

    def start(resume):
        line = ["train", *NARROW.split(), "--num_workers", "0", "--resume_iter", resume, *as_flags(folders)]
        _, solver = start_training(resolve(parse_given(line)))
        return solver, capsys.readouterr().err

    solver, shown = start("0")
    assert shown.count("fewer than 100 training images (cat 3, dog 3)") == 1 and "differ" not in shown
    solver.save(2)
    content = torch.load(tmp_path / "steps" / "000002_nets_ema.ckpt", weights_only=True)["config"]
    assert content["images"].keys() == {"train_img_dir", "val_img_dir"}
    solver, shown = start("latest")
    assert "differ" not in shown and "fewer" not in shown
    assert solver.config.for_checkpoint(2) == content
    add(folders["train_img_dir"])
    remove(folders["val_img_dir"])
    solver, shown = start("latest")
    assert "train differ from those of step 2: dog (2 added)." in shown
    assert "val differ from those of step 2: cat (1 removed)." in shown
    solver.save(4)
    assert "differ" not in start("latest")[1]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"a": 100, "b": 5000}, []),
        ({"a": 99, "b": 1}, ["fewer than 100 training images (a 99, b 1)", "--init_from"]),
        ({"a": 500}, ["only one domain"]),
        ({"a": 5}, ["(a 5)", "only one domain"]),
        ({str(n): n for n in range(1, 13)}, ["9 9, 10 10 and 2 more)"]),
    ],
)
def test_small_data_sets_cause_advice(capsys, counts, words):
    warn_about_counts(counts)
    shown = capsys.readouterr().err
    assert all(word in shown for word in words)
    assert shown.count("See docs/custom-data.md.") == shown.count("warning: ")
    assert bool(shown) == bool(words)


def test_what_a_training_does_already_is_not_advised(capsys):
    warn_about_counts({"a": 9, "b": 9}, is_finetuned=True)
    said = capsys.readouterr().err
    assert "init_from" not in said and ", or train with --augment ada. See" in said
    warn_about_counts({"a": 9, "b": 9}, is_augmented=True)
    said = capsys.readouterr().err
    assert "augment" not in said and ", or start from a trained network with --init_from. See" in said
