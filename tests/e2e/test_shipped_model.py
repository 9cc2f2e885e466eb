"""The model in assets/demo is what its README says."""

import json

import pytest
import torch

from benchmarks import quality
from benchmarks.judge import read_faces, train_judge
from core.checkpoint.io import newest_step
from core.cli.presets import SHIPPED
from core.solver import NETS_EMA
from data import demo
from tests.command import ROOT, SHIPPED_MODEL, call, picture


def test_shipped_model_samples_without_further_flags(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert call("sample", "--preset demo --outputs reference,images --seeds 0-1 --device cpu", result_dir=tmp_path) == 0
    assert picture(tmp_path / "reference.jpg").size == (10 * 64, 7 * 64)
    assert len(list(tmp_path.glob("*.png"))) == 9 * 3 * 2


def test_shipped_model_is_small_and_holds_its_config():
    assert SHIPPED_MODEL.stat().st_size < 12e6
    config = torch.load(SHIPPED_MODEL, weights_only=True)["config"]
    assert config["preset"] == "demo" and config["domains"] == ["bear", "cat", "dog"]
    assert config["settings"]["train_img_dir"] == "data/demo/train"


@pytest.mark.slow
def test_shipped_model_reaches_its_documented_quality(tmp_path):
    demo.make(tmp_path)
    judge, faces = train_judge(*read_faces(tmp_path, "train", 64)), read_faces(tmp_path, "val", 64)
    solver = quality.load_networks(ROOT / SHIPPED, newest_step(ROOT / SHIPPED, NETS_EMA), "cpu")
    documented = json.loads((ROOT / SHIPPED / "quality.json").read_text(encoding="utf-8"))["results"][0]
    for mode in quality.MODES:
        found = quality.measure(solver, judge, faces, mode)
        assert found["domain"] >= 0.95 and min(found["x"], found["y"]) >= 0.9 and found["diversity"] >= 1 / 3, found
        assert found == pytest.approx(documented[mode], abs=0.03)  # Two judges differ by up to 0.01.
    assert found["fur"] >= 0.9  # in the style of references
