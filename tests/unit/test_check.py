import shutil

import pytest
from PIL import Image

from core.images import check
from core.images.check import check_images
from core.system.errors import UserError


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
