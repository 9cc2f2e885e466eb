"""Sets that are there already: brought up to date, by runs that were killed too, and what the user put there."""

import json
import shutil

import pytest

from core.system.errors import UserError
from data import demo_faces, prepare
from tests.command import picture
from tests.photos import SIZE, content, face, fill, run, save


def test_again(tmp_path):
    """What is right is left alone; what is no longer wanted goes, its folders too; new settings make all anew."""
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


class Killed(BaseException):
    pass


@pytest.mark.parametrize("writes", [0, 1, 5])
def test_killed_half_way(writes, tmp_path, monkeypatch):
    """At the first run, and at one with other settings and pictures: the next makes what an undisturbed one does."""
    photos, out = fill(tmp_path / "photos", 4, ("cat", "dog", "bear")), tmp_path / "set"

    def killed(*settings):
        left, write = [writes], prepare.write_image

        def some(path, image):
            if not left[0]:
                (path.parent / f".writing-1-{path.name}").parent.mkdir(parents=True, exist_ok=True)
                (path.parent / f".writing-1-{path.name}").write_bytes(b"half")
                raise Killed
            left[0] -= 1
            write(path, image)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(prepare, "usable_cores", lambda: 1)
            patch.setattr(prepare, "write_image", some)
            prepare.prepare(photos, out, *settings)
        return len(list(out.glob("*/*/[0-9]*.jpg")))

    assert killed(SIZE) == writes
    prepare.prepare(photos, out, SIZE)
    prepare.prepare(photos, tmp_path / "undisturbed", SIZE)
    assert content(out) == content(tmp_path / "undisturbed")
    shutil.rmtree(photos / "bear")
    fill(photos, 2, start=10)
    (out / "train" / "bear" / ".writing-1-x.jpg").write_bytes(b"half")
    killed(2 * SIZE, 0.5)
    assert not list(out.glob("*/bear"))
    prepare.prepare(photos, out, 2 * SIZE, 0.5)
    shutil.rmtree(tmp_path / "undisturbed")
    prepare.prepare(photos, tmp_path / "undisturbed", 2 * SIZE, 0.5)
    assert content(out) == content(tmp_path / "undisturbed")


def test_killed_between_removing_and_listing(tmp_path, monkeypatch):
    photos, out = fill(tmp_path / "photos", 4), tmp_path / "set"
    prepare.prepare(photos, out, SIZE)

    def kill(path):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(prepare, "atomic_write", kill)
        prepare.prepare(photos, out, 2 * SIZE)
    prepare.prepare(photos, out, 2 * SIZE)
    assert {picture(path).size for path in out.glob("*/*/*.jpg")} == {(2 * SIZE, 2 * SIZE)}
    assert len(list(out.glob("*/*/*.jpg"))) == 8


def test_a_domain_that_is_gone_but_not_empty(tmp_path, capsys):
    """Systems leave files of theirs in folders."""
    photos = fill(tmp_path / "photos")
    prepare.prepare(photos, tmp_path / "set", SIZE)
    for part in ("train", "val"):
        (tmp_path / "set" / part / "dog" / ".DS_Store").write_bytes(b"")
    (photos / "dog").rename(photos / "wolf")
    prepare.prepare(photos, tmp_path / "set", SIZE)
    said = capsys.readouterr().err
    assert said.count("is not of this set, but not empty") == 2 and "wolf" not in said


def test_ctrl_c(tmp_path, monkeypatch, capsys):
    def stop(path, image):
        raise KeyboardInterrupt

    photos = fill(tmp_path / "photos", 2)
    monkeypatch.setattr(prepare, "write_image", stop)
    assert run("--in", photos, "--out", tmp_path / "set", "--size", SIZE) == 130
    assert capsys.readouterr().err == "error: stopped; the same command goes on\n"
    assert not list((tmp_path / "set").rglob("*.jpg"))


def test_files_of_the_user(tmp_path, capsys):
    """They stay, and what would be in their place is an error; no list makes the program delete elsewhere."""
    photos, out = fill(tmp_path / "photos", 4), tmp_path / "set"
    save(out / "index.html.jpg", demo_faces.draw(face(0), 16))
    prepare.prepare(photos, out, SIZE)
    own = [out / name for name in ("train/cat/mine.jpg", "val/bear/mine.png", "small/mine.jpg", "mine.txt")]
    for path in own:
        save(path, demo_faces.draw(face(0), 16), format="PNG")
    capsys.readouterr()
    prepare.prepare(photos, out, 2 * SIZE)
    assert "has 2 images that this program did not make, " in capsys.readouterr().err
    shutil.rmtree(photos / "cat")
    prepare.prepare(fill(photos, 4, ("bear",)), out, SIZE)
    assert all(path.is_file() for path in own)
    assert not [path for path in out.glob("*/cat/*") if path not in own]
    save(photos / "bear" / "mine.png", demo_faces.draw(face(99), 64))
    before = content(out)
    for part in ("train", "val"):
        save(out / part / "bear" / "mine.jpg", demo_faces.draw(face(0), 16))
        before[f"{part}/bear/mine.jpg"] = (out / part / "bear" / "mine.jpg").read_bytes()
    with pytest.raises(UserError, match=r"mine\.jpg was not made by this program"):
        prepare.prepare(photos, out, SIZE)
    assert content(out) == before


@pytest.mark.parametrize("name", ["../mine.jpg", "train/../../mine.jpg", "/mine.jpg", "mine.jpg", "train/\\mine", 7])
def test_a_list_that_is_not_ours(name, tmp_path):
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
