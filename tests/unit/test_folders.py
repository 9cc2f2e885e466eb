import os
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
        for number in reversed(range(20)):
            (zoo / f"new{number:02d}").symlink_to(elsewhere, target_is_directory=True)
    except OSError:
        pytest.skip("links are not allowed here")
    (zoo / "dog" / "again").symlink_to(zoo, target_is_directory=True)
    found = names(folders.images_below(zoo), zoo)
    assert len(found) == 5 and found[-1] == "new00/x.png", "the first of several links counts"


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
    assert "Ignoring 2 files without any image suffix in" in said and ": IMG_1.MOV, notes.txt." in said


def test_heic_without_pillow_heif_warns_how_to_install_it(zoo, monkeypatch, capsys):
    monkeypatch.setitem(folders.KINDS, "image", tuple(set(folders.SUFFIXES) - set(folders.HEIF)))
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


SYSTEM = ["@eaDir", "#recycle", "$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", "__MACOSX", "lost+found"]


def test_folders_and_files_of_systems_are_neither_domains_nor_images_nor_warnings(zoo, capsys):
    for parent in (zoo, zoo / "cat"):
        for name in SYSTEM:
            (parent / name / "deep").mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(parent / name / "deep" / "x.png")
        for name in (
            "Thumbs.db",
            "THUMBS.DB",
            "desktop.ini",
            "Desktop.ini",
            ".DS_Store",
            "._a.png",
            "._a.txt",
            "Icon\r",
        ):
            (parent / name).write_bytes(b"\0\5\26\7")
    (zoo / "dog" / "notes.txt").unlink()
    assert folders.domain_names(zoo) == ["cat", "dog"]
    assert names(folders.images_below(zoo), zoo) == ["cat/10.png", "cat/2.png", "dog/a.JPG", "dog/b.png"]
    assert len(folders.find_references(zoo, ["cat", "dog"])) == len(folders.find_sources(zoo, zoo / "none")) == 4
    assert capsys.readouterr().err == ""
    assert names(folders.images_below(zoo / "@eaDir"), zoo) == ["@eaDir/deep/x.png"]  # given by name


def test_special_files_are_warned_about_once_and_links_to_nowhere_stay(zoo, capsys):
    """A link to nowhere is an unreadable image, which the caller reports."""
    try:
        for name, target in (("gone.png", "nowhere"), ("loop.png", "loop.png"), ("null.png", "/dev/null")):
            (zoo / "cat" / name).symlink_to(target)
        os.mkfifo(zoo / "cat" / "pipe.png")
    except (OSError, AttributeError):
        pytest.skip("not possible on this system")
    for _ in range(2):
        found = names(folders.images_below(zoo / "cat"), zoo / "cat")
        assert found == ["10.png", "2.png", "gone.png", "loop.png"]
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "Ignoring 2 special files (pipes, sockets or devices) in" in said
    assert "null.png, pipe.png" in said
    with pytest.raises(UserError, match="it is no file or folder"):
        folders.images_below(zoo / "cat" / "pipe.png")


def test_names_that_are_not_text_are_found(zoo):
    content = (zoo / "cat" / "2.png").read_bytes()
    try:
        with open(os.path.join(os.fsencode(zoo), b"cat", b"\xe9\xff.png"), "wb") as file:  # noqa: PTH118, PTH123
            file.write(content)
    except (OSError, UnicodeDecodeError):
        pytest.skip("this system only takes names that are text")
    assert [os.fsencode(path.name) for path in folders.images_below(zoo / "cat")][-1] == b"\xe9\xff.png"


def test_results_below_sources_and_references_are_skipped(zoo):
    results = zoo / "out" / "run"
    results.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(results / "x.png")
    assert len(folders.find_sources(zoo, results)) == 4
    assert len(folders.find_references(zoo, ["cat", "dog"], results=results)) == 4  # "out" is no domain
    assert folders.sub_folders(zoo, results) == ["cat", "dog"] and folders.sub_folders(zoo) == ["cat", "dog", "out"]
    nested = zoo / "cat" / "results"
    nested.mkdir()
    Image.new("RGB", (4, 4)).save(nested / "x.png")
    assert len(folders.find_sources(zoo, nested)) == 5  # with out/run/x.png
    assert len(folders.find_references(zoo, ["cat", "dog", "out"], results=nested)) == 5
    assert len(folders.find_references(zoo / "cat", ["cat", "dog"], [1], results=nested)) == 2  # a flat folder
    try:
        (zoo / "dog" / "link").symlink_to(results, target_is_directory=True)
    except OSError:
        return
    assert len(folders.find_sources(zoo / "dog", results)) == 2


def test_results_above_sources_and_references_do_not_hide_them(zoo):
    assert len(folders.find_sources(zoo / "cat", zoo)) == 2
    assert folders.find_sources(zoo / "cat" / "2.png", zoo / "cat") == [zoo / "cat" / "2.png"]
    assert len(folders.find_references(zoo, ["cat", "dog"], results=zoo)) == 4
    assert len(folders.find_references(zoo / "cat", ["cat"], results=zoo / "cat")) == 2
    with pytest.raises(UserError, match="all its images are in --result_dir"):
        folders.find_sources(zoo / "cat", zoo / "cat")
    with pytest.raises(UserError, match="No images found in --src_dir"):
        (zoo / "empty" / "out").mkdir(parents=True)
        folders.find_sources(zoo / "empty", zoo / "empty" / "out")
