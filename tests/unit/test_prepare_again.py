"""Data sets that exist already: updates, and files of the user in them."""

import json
import shutil

import pytest

from core.system.errors import UserError
from data import demo_faces, prepare
from tests.command import picture
from tests.photos import SIZE, content, face, fill, save


def test_a_second_run_changes_only_what_differs(tmp_path):
    """Correct files stay, obsolete files and folders go, and new settings write all files again."""
    photos, out = fill(tmp_path / "photos", 4, ("cat", "dog", "bear")), tmp_path / "set"
    shutil.copy(photos / "cat" / "0.jpg", photos / "dog" / "copy.jpg")
    prepare.prepare(photos, out, SIZE)
    assert (out / "small" / "copy.jpg").is_file()
    made = content(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    prepare.prepare(photos, out, SIZE)
    assert content(out) == made
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    shutil.rmtree(photos / "bear")
    (photos / "cat" / "2.jpg").unlink()
    (photos / "dog" / "copy.jpg").unlink()
    prepare.prepare(photos, out, SIZE)
    gone = made.keys() - content(out).keys()
    assert {name.partition("/")[2] for name in gone} == {*(f"bear/{n}.jpg" for n in range(4)), "cat/2.jpg", "copy.jpg"}
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["train", "val"]
    assert {path.name for path in (out / "train").iterdir()} == {"cat", "dog"}
    prepare.prepare(photos, out, SIZE, resize="pad")
    assert not [path for path in out.glob("*/*/*.jpg") if path.stat().st_mtime_ns == times[path]]
    assert len(list(out.glob("*/*/*.jpg"))) == 7
    prepare.prepare(photos, out, 2 * SIZE)
    assert {picture(path).size for path in out.glob("*/*/*.jpg")} == {(2 * SIZE, 2 * SIZE)}


def test_folders_of_removed_domains_with_other_files_are_kept(tmp_path, capsys):
    """Operating systems put files of their own into folders."""
    photos = fill(tmp_path / "photos")
    prepare.prepare(photos, tmp_path / "set", SIZE)
    for part in ("train", "val"):
        (tmp_path / "set" / part / "dog" / ".DS_Store").write_bytes(b"")
    (photos / "dog").rename(photos / "wolf")
    prepare.prepare(photos, tmp_path / "set", SIZE)
    said = capsys.readouterr().err
    assert said.count("which is not part of this data set but contains files") == 2 and "wolf" not in said


def test_files_of_the_user_are_never_changed(tmp_path, capsys):
    """They stay, and a file that would replace one is an error."""
    photos, out = fill(tmp_path / "photos", 4), tmp_path / "set"
    save(out / "index.html.jpg", demo_faces.draw(face(0), 16))
    prepare.prepare(photos, out, SIZE)
    own = [out / name for name in ("train/cat/mine.jpg", "val/bear/mine.png", "small/mine.jpg", "mine.txt")]
    for path in own:
        save(path, demo_faces.draw(face(0), 16), format="PNG")
    capsys.readouterr()
    prepare.prepare(photos, out, 2 * SIZE)
    warned = capsys.readouterr().err
    assert f"Keeping 2 images in {out} that this program did not create" in warned
    shutil.rmtree(photos / "cat")
    prepare.prepare(fill(photos, 4, ("bear",)), out, SIZE)
    assert all(path.is_file() for path in own)
    assert not [path for path in out.glob("*/cat/*") if path not in own]
    save(photos / "bear" / "mine.png", demo_faces.draw(face(99), 64))
    before = content(out)
    for part in ("train", "val"):
        save(out / part / "bear" / "mine.jpg", demo_faces.draw(face(0), 16))
        before[f"{part}/bear/mine.jpg"] = (out / part / "bear" / "mine.jpg").read_bytes()
    with pytest.raises(UserError, match=r"Cannot overwrite .*mine\.jpg \(this program did not create it\)"):
        prepare.prepare(photos, out, SIZE)
    assert content(out) == before


@pytest.mark.parametrize("name", ["../mine.jpg", "train/../../mine.jpg", "/mine.jpg", "mine.jpg", "train/\\mine", 7])
def test_a_damaged_or_foreign_list_is_refused(name, tmp_path):
    photos, out = fill(tmp_path / "photos", 2), tmp_path / "set"
    out.mkdir()
    (tmp_path / "mine.jpg").write_bytes(b"")
    (out / "prepared.jsonl").write_text(json.dumps({"file": "x", "output": name}))
    with pytest.raises(UserError, match=r"prepared\.jsonl is damaged"):
        prepare.prepare(photos, out, SIZE)
    (out / "prepared.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"prepared\.jsonl is damaged"):
        prepare.prepare(photos, out, SIZE)
    assert (tmp_path / "mine.jpg").is_file()
