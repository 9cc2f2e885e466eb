"""Names of files."""

import os

import pytest
from PIL import Image

from core.images.io import write_image
from core.system.errors import UserError
from core.system.files import LONGEST_NAME, atomic_write, file_names, locked, real_path, safe_name, with_suffix_added


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
