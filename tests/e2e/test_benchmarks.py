"""The benchmarks run, on networks so small that their figures mean nothing."""

import importlib
import json

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


def test_a_device_is_measured_within_its_time(tmp_path, capsys):
    """All sections but the commands; a section whose time is over reports it."""
    few = f"--device cpu --img_size 32 --channel_base 256 --batch_size 2 --minutes 0.1 --out {tmp_path}"
    importlib.import_module("benchmarks.device").main([*few.split(), "--only", "facts,speed,profile,sampling,batch"])
    rows = [json.loads(line) for line in (tmp_path / "device.jsonl").read_text().splitlines()]
    assert [row["section"] for row in rows[:3]] == ["facts", "facts", "speed"]
    fastest = rows[2]
    assert fastest["images_per_s"] == pytest.approx(2e3 / fastest["ms"], rel=0.1)
    assert fastest["dry_run_gb"] > 0
    assert "| speed | --precision fp32 | 2 |" in (tmp_path / "device.md").read_text()
    assert "conv" in (tmp_path / "profile.txt").read_text()
    assert "profile: " in capsys.readouterr().out
