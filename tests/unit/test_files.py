"""Names of files, and locks on folders."""

import errno
import os

import pytest
from PIL import Image

from core.images.io import write_image
from core.system.errors import UserError
from core.system.files import LONGEST_NAME, atomic_write, file_names, locked, real_path, safe_name, with_suffix_added
from metrics import weights


def test_file_names_are_unique():
    assert file_names(["in/a.png", "in/b.png"]) == ["a", "b"]
    assert file_names(["cat/1.png", "dog/1.png"]) == ["cat-1", "dog-1"]
    assert file_names(["cat/1.png", "cat/1.jpg", "cat/2.jpg"]) == ["1.png", "1.jpg", "2"]
    assert file_names(["x/cat/1.png", "y/cat/1.png"]) == ["00000-1", "00001-1"]
    assert file_names(["in/a.png", "in/A.png"]) == ["00000-a", "00001-A"]  # one file on Windows
    for met in (["p/a/x.jpg", "p/b/x.jpg", "p/c/a-x.jpg"], ["p/a/x.jpg", "p/a/x.png", "p/c/x.jpg.gif"]):
        assert len(set(file_names(met))) == 3


def test_safe_names_work_on_every_system():
    assert safe_name("../../etc/cat: a?") == "_.._etc_cat_ a_"
    assert safe_name(b"caf\xe9?".decode("utf-8", "surrogateescape")) == "caf_"
    assert safe_name("...") == "_" and safe_name("日本") == "日本"
    assert len(safe_name("日" * 200).encode()) <= 60
    assert len(set(file_names([f"{'long' * 30}{i}.png" for i in range(3)]))) == 3


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "日" * 83 + "!.jpeg", "x." + "y" * 253, "a", "no suffix" * 28])
def test_files_are_written_under_every_name_that_the_system_takes(tmp_path, name):
    with atomic_write(tmp_path / name) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path and len(os.fsencode(temporary.name)) <= 64
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "new"


def test_images_and_other_files_keep_their_format_and_do_not_meet(tmp_path):
    """The temporary names of two files differ, and their suffix is that of the file."""
    with atomic_write(tmp_path / "a.png") as one, atomic_write(tmp_path / "b.png") as two:
        assert one != two and one.suffix == two.suffix == ".png"
        Image.new("RGB", (4, 4)).save(one)
        Image.new("RGB", (4, 4)).save(two)
    image = Image.new("RGB", (4, 4))
    write_image(tmp_path / ("L" * 250 + ".webp"), image)
    with Image.open(tmp_path / ("L" * 250 + ".webp")) as found:
        assert found.format == "WEBP"


def test_added_suffixes_fit_and_stay_distinct():
    assert with_suffix_added("a.gif", ".png") == "a.gif.png"
    names = [with_suffix_added(f"{letter * 249}{end}.gif", ".png") for letter in "x日"[:1] for end in "ab"]
    names += [with_suffix_added("日" * 83 + f"{end}.gif", ".png") for end in "ab"]
    names.append(with_suffix_added(os.fsdecode(b"\xff" * 251) + ".gif", ".png"))
    assert len(set(names)) == 5 and all(len(os.fsencode(name)) <= LONGEST_NAME for name in names)
    assert all(name.endswith(".png") for name in names)


def test_a_folder_that_is_a_link_to_itself_is_an_error(tmp_path):
    try:
        (tmp_path / "loop").symlink_to("loop")
    except OSError:
        pytest.skip("links are not allowed here")
    assert real_path(tmp_path / "loop").name == "loop"
    with pytest.raises(UserError, match="Cannot create folder"), locked(tmp_path / "loop"):
        pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_locked_folder_is_refused_and_released(tmp_path):
    folder = tmp_path / "new" / "run"
    with locked(folder, folder):
        (folder / "result").touch()
        with pytest.raises(UserError, match=rf"another run uses it \(process {os.getpid()} on"), locked(folder):
            pass
        assert names(folder) == [".lock", ".running.json", "result"]
    assert names(folder) == [".lock", "result"]
    with locked(folder):
        pass


def test_folders_that_stay_empty_are_removed(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="refused"), locked(tmp_path / "a" / "b", tmp_path / "mine"):
        raise UserError("Cannot start (refused). See --help.")
    assert names(tmp_path) == ["mine"] and names(tmp_path / "mine") == []


NO_LOCKS = ["ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL", 524]


@pytest.fixture
def lock_error(monkeypatch):
    """lock_error(number) lets locking fail with this error."""
    fcntl = pytest.importorskip("fcntl")

    def replace(number):
        def refuse(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refuse)

    return replace


@pytest.mark.parametrize("name", NO_LOCKS)
def test_disks_without_locks_cause_a_warning(name, lock_error, tmp_path, capsys):
    lock_error(number := getattr(errno, str(name), name))
    (tmp_path / ".writing-1-other").touch()
    for _ in range(2):  # The first leaves nothing that stops the second.
        with locked(tmp_path):
            (tmp_path / "result").touch()
    printed = capsys.readouterr().err
    reason = os.strerror(number)
    assert (
        printed.count(f"warning: Cannot lock {tmp_path} ({reason[0].lower()}{reason[1:]}). The program continues") == 2
    )
    assert (tmp_path / ".writing-1-other").exists()  # It may belong to a second run.


def test_other_errors_of_locks_are_errors(lock_error, tmp_path):
    lock_error(errno.EIO)
    with pytest.raises(UserError, match="Cannot lock .* \\(input/output error"), locked(tmp_path / "new"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", NO_LOCKS)
def test_weights_are_downloaded_to_disks_without_locks(name, lock_error, tmp_path):
    lock_error(getattr(errno, str(name), name))
    done = []
    with weights._waiting(tmp_path / "weights.pth"):
        done.append(True)
    assert done
