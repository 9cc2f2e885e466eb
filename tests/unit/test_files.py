"""Names of files."""

from core.system.files import file_names, safe_name


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
