"""Output to streams that cannot show it, that are closed or missing, and names that would control a terminal."""

import io
import sys

import pytest

from core.cli.parser import Parser
from core.system import console

LETTERS = "日本 é \udce9 ✓"  # the third is a byte of a file name that is no UTF-8
EVIL = "\x1b]0;owned\x07\x1b[31m\nerror: fake\r\x9b2J\u202egnp.exe\u2028\x7f\x00\ufeff"
ENCODINGS = ["cp1252", "cp932", "cp437", "ascii", "latin-1", "utf-8", "utf-16", "iso2022_jp", "koi8-r"]


@pytest.fixture
def stream(monkeypatch):
    """stream(encoding) -> bytes buffer behind both streams."""

    def replace(encoding):
        buffer = io.BytesIO()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding, errors="strict", newline="\n"))
        return buffer

    return replace


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_characters_that_an_encoding_lacks_are_printed_as_escapes(encoding, stream):
    buffer = stream(encoding)
    for show in (console.info, console.warn, console.error):
        show(f"Domains: {LETTERS}")
    console.domain_line("Domains", [LETTERS], [0])
    console.loss_line(1, 1, 1, {LETTERS: 0.5})
    console.text(f"first {LETTERS}\nsecond", sys.stdout)
    lines = buffer.getvalue().decode(encoding).splitlines()
    assert len(lines) == 7 and lines[-1] == "second"
    assert all("\\udce9" in line for line in lines[:-1])
    shown = {"cp1252": "\\u65e5\\u672c é", "cp932": "日本 \\xe9", "utf-8": "日本 é", "ascii": "\\u65e5\\u672c \\xe9"}
    assert shown.get(encoding, "Domains") in lines[0]


def test_control_characters_in_names_are_printed_as_escapes(capsys):
    for show in (console.info, console.warn, console.error):
        show(f"Domains: {EVIL}")
    console.domain_line("Domains", [EVIL], [0])
    for printed, count in zip(capsys.readouterr(), (2, 2), strict=True):
        assert printed.count("\n") == len(printed.splitlines()) == count
        assert "\\x1b]0;owned\\x07\\x1b[31m\\nerror: fake\\r\\x9b2J\\u202egnp.exe\\u2028\\x7f\\x00\\ufeff" in printed


def test_harmless_characters_stay():
    for text in ("日本", "naïve café", "ک\u200cم", "👩\u200d👧", "a\u00a0b\u202fc", r"C:\new\x1b"):
        assert console.printable(text) == console.printable(text, "utf-8") == text


def test_mistakes_on_the_command_line_are_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        Parser().parse_args([f"--{EVIL}"])
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and printed.count("\n") == 1 and "\x1b" not in printed


def test_titles_of_progress_bars_are_escaped(monkeypatch):
    class Terminal(io.StringIO):
        encoding = "cp1252"

        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    for _ in console.progress(range(2), desc=f"{EVIL} 日本"):
        console.info("line")
    printed = sys.stderr.getvalue()
    assert "\\x1b]0;owned" in printed and "\\u65e5" in printed and "\x1b]" not in printed


@pytest.mark.parametrize("state", ["missing", "closed", "full"])
def test_streams_that_take_nothing_do_not_matter(state, monkeypatch):
    class Full(io.StringIO):
        def write(self, _text):
            raise OSError(28, "No space left on device")

    for name in ("stdout", "stderr"):
        replacement = {"missing": None, "closed": io.StringIO(), "full": Full()}[state]
        if state == "closed":
            replacement.close()
        monkeypatch.setattr(sys, name, replacement)
    console.info("text")
    console.warn("text")
    console.text("a\nb", sys.stdout)
    assert list(console.progress([1, 2], desc="title")) == [1, 2]
    with pytest.raises(SystemExit) as stop:
        Parser().parse_args(["--nothing"])
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        Parser().parse_args(["--help"])
    assert stop.value.code == 0
    for stream in (sys.stdout, sys.stderr):  # where they were missing, the parser has opened the null device
        stream.close()
