"""data.prepare, killed or stopped: the same command completes the set."""

import shutil

import pytest

from data import prepare
from tests.command import picture
from tests.photos import SIZE, content, fill, run


class Killed(BaseException):
    pass


@pytest.mark.parametrize("writes", [0, 1, 5])
def test_a_killed_run_is_completed_by_the_next(writes, tmp_path, monkeypatch):
    """Killed at first, and with other settings and images: the next run gives the files of an undisturbed one."""
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


def test_a_kill_between_removing_and_listing_is_repaired(tmp_path, monkeypatch):
    photos, out = fill(tmp_path / "photos", 4), tmp_path / "set"
    prepare.prepare(photos, out, SIZE)

    def kill(path, text):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(prepare, "write_text", kill)
        prepare.prepare(photos, out, 2 * SIZE)
    prepare.prepare(photos, out, 2 * SIZE)
    assert {picture(path).size for path in out.glob("*/*/*.jpg")} == {(2 * SIZE, 2 * SIZE)}
    assert len(list(out.glob("*/*/*.jpg"))) == 8


def test_ctrl_c_exits_130_and_writes_no_images(tmp_path, monkeypatch, capsys):
    def stop(path, image):
        raise KeyboardInterrupt

    photos = fill(tmp_path / "photos", 2)
    monkeypatch.setattr(prepare, "write_image", stop)
    assert run("--in", photos, "--out", tmp_path / "set", "--size", SIZE) == 130
    assert capsys.readouterr().err == "error: Stopped by Ctrl-C. Run the same command again to resume.\n"
    assert not list((tmp_path / "set").rglob("*.jpg"))
