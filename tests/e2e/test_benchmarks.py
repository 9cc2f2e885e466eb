"""The benchmarks run, on networks so small that their figures mean nothing."""

import importlib
import json

import pytest
from PIL import Image

from core.system import console
from tests.command import ROOT

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


@pytest.mark.parametrize(("name", "line"), [("quality", "--steps 400,abc"), ("device", "--only facts,sped")])
def test_a_mistake_is_one_sentence(name, line, capsys):
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(f"benchmarks.{name}").main(line.split())
    assert capsys.readouterr().err.count(f"error: {line.split()[0]} must be ") == 1


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


def test_paired_translations_are_scored_and_drawn(faces, tmp_path, capsys):
    """Images of the demo set with the same number count as pairs here."""
    flags = [
        "--checkpoint_dir",
        f"{ROOT}/assets/demo",
        "--data",
        str(faces / "val"),
        "--grid",
        str(tmp_path / "grid.png"),
    ]
    importlib.import_module("benchmarks.paired").main(flags)
    said = capsys.readouterr().out
    assert "bear to cat, step 15000, 3 pairs, retrieval by chance 0.333" in said and said.count("true style") == 7
    assert height(tmp_path / "grid.png") == 6 * 5 * 64


def test_a_study_of_few_images_resumes_and_prints_a_table(faces, tmp_path, capsys):
    flags = f"--data {faces} --images 3 --seeds 0 1 --iterations 2 --val_images 2 --out {tmp_path}".split()
    few_images = importlib.import_module("benchmarks.few_images")
    few_images.main(flags)
    first = capsys.readouterr().out
    assert first.count("| | 3, none | 3, ada |") == 2 and "3_ada_1, iteration 2: " in first
    few_images.main(flags)
    assert capsys.readouterr().out == first[first.index("\nIteration 1") :], "no run is repeated"
    row = next(line for line in first.splitlines() if line.startswith("| D/augment_p"))
    assert row.startswith("| D/augment_p |  | 0.000 ± 0.000")
    measured = json.loads((tmp_path / "3_none_0.json").read_text())["by_iteration"]["2"]
    values = [v for name, v in measured.items() if name.split()[-1] in few_images.FACTORS]
    assert len(values) == 12 and "D/gap" in measured
    assert height(tmp_path / "3_ada_1.png") == 9 * 32
    with pytest.raises(SystemExit):  # Runs with other settings are not mixed.
        few_images.main([*flags, "--flags=--lr 1e-4"])
    assert "3_none_0.json (its settings are --img_size 32" in capsys.readouterr().err


def height(path):
    with Image.open(path) as image:
        return image.height
