"""The benchmarks run, on networks so small that their figures mean nothing."""

import importlib

import pytest

from core.system import console

SMALL = "--img_size 32 --channel_base 256 --runs 1"


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("train_step", f"{SMALL} --batch_size 2 --variants plain fused", "GFLOP/img"),
        ("sample", f"{SMALL} --sources 2 --references 4 --variants plain fused", "grid and video"),
    ],
)
def test_benchmarks_print_a_row_for_each_variant(name, flags, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, *flags.split()])
    monkeypatch.setattr(console, "info", console.info)  # benchmarks.sample silences it
    importlib.import_module(f"benchmarks.{name}").main()
    lines = capsys.readouterr().out.splitlines()
    assert any(words in line for line in lines)
    assert all(any(line.startswith(variant) for line in lines) for variant in ("plain", "fused"))
