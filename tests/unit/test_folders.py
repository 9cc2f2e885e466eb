import re

import pytest
from PIL import Image

from core.images import folders
from core.system.errors import UserError


@pytest.fixture
def zoo(tmp_path):
    """cat/ and dog/ of two images each, and files that are not images."""
    for name in ("dog/b.png", "dog/a.JPG", "cat/2.png", "cat/10.png", ".cache/x.png", "cat/.hidden.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "dog" / "notes.txt").write_text("x")
    return tmp_path


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_images_below_finds_all_images_sorted(zoo):
    assert names(folders.images_below(zoo), zoo) == ["cat/10.png", "cat/2.png", "dog/a.JPG", "dog/b.png"]
    assert names(folders.images_below(zoo / "dog"), zoo) == ["dog/a.JPG", "dog/b.png"]
    assert folders.images_below(zoo / "dog" / "b.png") == [zoo / "dog" / "b.png"]
    assert names(folders.images_below(zoo / ".cache"), zoo) == [".cache/x.png"]  # a hidden folder given by name


def test_links_are_followed_but_cycles_are_not(zoo, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (4, 4)).save(elsewhere / "x.png")
    try:
        (zoo / "new").symlink_to(elsewhere, target_is_directory=True)
    except OSError:
        pytest.skip("links are not allowed here")
    (zoo / "dog" / "again").symlink_to(zoo, target_is_directory=True)
    assert len(folders.images_below(zoo)) == 5


def test_references_are_labelled_by_their_folder(zoo):
    domains = ["bear", "cat", "dog"]
    found = folders.find_references(zoo, domains)
    assert [label for _, label in found] == [1, 1, 2, 2]
    assert names([path for path, _ in found], zoo) == ["cat/10.png", "cat/2.png", "dog/a.JPG", "dog/b.png"]
    assert [label for _, label in folders.find_references(zoo, domains, [2, 1])] == [2, 2, 1, 1]
    with pytest.raises(UserError, match="^No sub-folder for bear in --ref_dir"):
        folders.find_references(zoo, domains, [0])
    with pytest.raises(UserError, match="named after the domains cat, lion, got dog"):
        folders.find_references(zoo, ["cat", "lion"])


def test_references_without_sub_folders_need_target_domains(zoo):
    domains = ["bear", "cat", "dog"]
    flat = zoo / "cat"
    with pytest.raises(UserError, match="Pass --target_domains with one or more of bear,cat,dog"):
        folders.find_references(flat, domains)
    found = folders.find_references(flat, domains, [2, 0])
    assert [(path.name, label) for path, label in found] == [("10.png", 2), ("2.png", 2), ("10.png", 0), ("2.png", 0)]
    assert folders.find_references(flat / "2.png", domains, [1]) == [(flat / "2.png", 1)]
    assert len(folders.find_references(flat, ["only"])) == 2


def test_images_beside_sub_folders_are_warned_about(zoo, capsys):
    Image.new("RGB", (4, 4)).save(zoo / "stray.png")
    assert len(folders.find_references(zoo, ["cat", "dog"])) == 4
    assert "Ignoring 1 image in --ref_dir" in capsys.readouterr().err


def test_skipped_files_are_warned_about(zoo, capsys):
    (zoo / "cat" / "IMG_1.MOV").write_bytes(b"")
    folders.images_below(zoo)
    said = capsys.readouterr().err
    assert "Ignoring 2 files without an image suffix in" in said and ": IMG_1.MOV, notes.txt." in said


def test_heic_without_pillow_heif_warns_how_to_install_it(zoo, monkeypatch, capsys):
    monkeypatch.setattr(folders, "SUFFIXES", tuple(set(folders.SUFFIXES) - set(folders.HEIF)))
    (zoo / "cat" / "IMG_1.HEIC").write_bytes(b"")
    assert all(path.suffix != ".HEIC" for path in folders.images_below(zoo))
    assert "pip install pillow-heif to use 1 of them." in capsys.readouterr().err


def test_parent_of_train_and_val_is_refused(tmp_path):
    for name in ("small", "train", "val"):
        (tmp_path / name / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="its sub-folders train and val are not domains"):
        folders.domain_names(tmp_path, "train_img_dir")


@pytest.mark.parametrize("flag", [None, "src_dir"])
def test_missing_and_empty_folders_are_refused(tmp_path, flag):
    where = "--src_dir " if flag else ""
    where += re.escape(str(tmp_path / "_"))[:-1]
    with pytest.raises(UserError, match=rf"^Cannot read {where}nowhere \(it does not exist\)"):
        folders.images_below(tmp_path / "nowhere", flag)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=rf"^No images found in {where}empty\."):
        folders.images_below(tmp_path / "empty", flag)
    assert folders.sub_folders(tmp_path / "nowhere") == []
