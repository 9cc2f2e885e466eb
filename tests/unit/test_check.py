import json
import shutil

import pytest
from PIL import Image

from core.images import check
from core.images.check import check_images, readable
from core.images.shape import Shape
from core.system.errors import UserError

SQUARE = Shape(64, "crop")


@pytest.fixture
def pictures(tmp_path):
    """Two domains of 150 coloured images of 40 x 30 each."""
    for domain in ("a", "b"):
        (tmp_path / domain).mkdir()
        for number in range(150):
            Image.new("RGB", (40, 30), (number, 100, 200)).save(tmp_path / domain / f"{number:03d}.png")
    return tmp_path


def checked(pictures, **options):
    return check_images(pictures, "train_img_dir", 32, pictures / ".cache.json", **options)


def test_good_images_give_no_warning(pictures, capsys):
    assert checked(pictures) == set() and capsys.readouterr().err == ""


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_kind_of_odd_image_is_warned_about(pictures, num_workers, capsys, monkeypatch):
    monkeypatch.setattr(check, "FEW", 10)  # so that workers read them
    whole = (pictures / "a" / "000.png").read_bytes()
    (pictures / "a" / "000.png").write_bytes(whole[:60])  # truncated after a valid header
    (pictures / "b" / "001.png").write_text("text")
    Image.new("RGB", (20, 12), (1, 2, 300 % 256)).save(pictures / "a" / "002.png")
    Image.new("L", (40, 30), 7).save(pictures / "a" / "003.png")
    Image.new("RGB", (90, 40), (90, 0, 0)).save(pictures / "b" / "004.png")
    assert checked(pictures, num_workers=num_workers) == {pictures / "a" / "000.png", pictures / "b" / "001.png"}
    lines = capsys.readouterr().err.splitlines()
    for what, names, effect in (
        ("Found 2 unreadable images among 300 in --train_img_dir ", ["000.png", "001.png"], "Training skips"),
        ("Found 1 small image among 300 in", ["002.png"], "a side below half of --img_size 32 will be blurred"),
        ("Found 1 grey image among 300 in", ["003.png"], "outputs may become grey"),
        ("Found 1 elongated image among 300 in", ["004.png"], "more than twice the other will be distorted"),
    ):
        (line,) = [line for line in lines if what in line]
        assert all(name in line for name in names) and effect in line and line.endswith(".")


def test_more_than_one_percent_unreadable_is_an_error(pictures):
    for number in range(12):
        (pictures / "b" / f"{number:03d}.png").write_text("text")
    with pytest.raises(UserError, match=r"^Cannot read 12 of 300 images.*000.png.*and 2 more\. Replace or remove"):
        checked(pictures)


def test_a_domain_without_readable_images_is_an_error(pictures):
    for path in (pictures / "b").iterdir():
        path.unlink()
    (pictures / "b" / "0.png").write_text("text")
    with pytest.raises(UserError, match="^Cannot read any image of domain b in"):
        checked(pictures)


def test_only_changed_files_are_checked_again(pictures, monkeypatch):
    looked, look = [], check.look
    monkeypatch.setattr(check, "look", lambda path: looked.append(path.name) or look(path))
    checked(pictures)
    assert len(looked) == 300
    (pictures / "a" / "005.png").write_text("text")
    (pictures / "a" / "006.png").unlink()
    shutil.copy(pictures / "a" / "007.png", pictures / "a" / "new.png")
    del looked[:]
    assert checked(pictures) == {pictures / "a" / "005.png"}
    assert sorted(looked) == ["005.png", "new.png"]
    (pictures / ".cache.json").write_text('{"a": 1')
    assert checked(pictures) == {pictures / "a" / "005.png"}


def test_findings_of_older_rules_are_not_used(pictures):
    """A file that an earlier version refused may be readable now."""
    cache, path = pictures / ".cache.json", pictures / "a" / "005.png"
    checked(pictures)
    findings = json.loads(cache.read_text())
    stamp, _ = findings[str(path)]
    for old, expected in ((stamp, {path}), (stamp[:2], set())):
        findings[str(path)] = [old, {"broken": "Cannot read it."}]
        cache.write_text(json.dumps(findings))
        assert checked(pictures) == expected


def test_evaluation_skips_unreadable_images_and_warns_about_no_others(pictures, capsys):
    (pictures / "a" / "000.png").write_text("text")
    Image.new("RGB", (8, 90), "red").save(pictures / "a" / "002.png")
    assert checked(pictures, is_training=False) == {pictures / "a" / "000.png"}
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "000.png. Evaluation skips unreadable images." in said


def test_sampling_skips_unreadable_images_until_none_is_left(pictures, capsys):
    paths = [pictures / "a" / f"{number:03d}.png" for number in range(3)]
    samples = [(path, label) for label in (2, 0) for path in paths]
    assert readable(samples, "--src_dir x", SQUARE) == samples and capsys.readouterr().err == ""
    paths[0].write_bytes(paths[0].read_bytes()[:60])
    paths[2].unlink()
    assert readable(samples, "--src_dir x", SQUARE) == [(paths[1], 2), (paths[1], 0)]
    said = capsys.readouterr().err
    assert said.startswith("warning: Skipping 2 unreadable images of 3 in --src_dir x: ")
    assert "000.png" in said and "002.png" in said and said.endswith("Sampling continues with the others.\n")
    with pytest.raises(UserError, match=r"^Cannot read any of 2 images in --src_dir x: .*000\.png, .*Replace these"):
        readable([(paths[0], 0), (paths[2], 0)], "--src_dir x", SQUARE)
    with pytest.raises(UserError, match=r"^Cannot read .*002\.png as an image \(no such file"):
        readable([(paths[2], 0), (paths[2], 1)], "--src_dir x", SQUARE)
