"""Exported networks compute what PyTorch computes, and the instructions beside them run."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from core import export
from core.api import StarGAN
from core.system.errors import UserError
from tests.command import ROOT

DEMO = ROOT / "assets/demo"


@pytest.fixture(scope="module")
def model():
    return StarGAN.load(DEMO, device="cpu")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx")
    export.main(["--checkpoint_dir", str(DEMO), "--format", "onnx", "--out", str(folder)])
    return folder


def run_readme(folder):
    """Run the program in the README of an export, in its folder."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len([line for line in code.splitlines() if line]) == 8
    return done.stdout


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_onnx_equals_pytorch(count, exported, model):
    onnxruntime = pytest.importorskip("onnxruntime")
    x, z = torch.rand(count, 3, 64, 64) * 2 - 1, torch.randn(count, 16)
    s, y = torch.randn(count, 64), torch.arange(count) % 3
    nets = model.solver.nets_ema
    for name, inputs in (("generator", (x, s)), ("mapping_network", (z, y)), ("style_encoder", (x, y))):
        session = onnxruntime.InferenceSession(exported / f"{name}.onnx")
        feed = dict(zip(export.INPUTS[name], (tensor.numpy() for tensor in inputs), strict=True))
        (found,) = session.run(None, feed)
        with torch.no_grad():
            np.testing.assert_allclose(found, nets[name](*inputs).numpy(), rtol=0, atol=1e-4)


def test_the_readme_of_an_onnx_export_runs(exported):
    Image.new("RGB", (80, 60), "orange").save(exported / "photo.jpg")
    run_readme(exported)
    with Image.open(exported / "out.png") as image:
        assert image.size == (64, 64)
    config = json.loads((exported / "config.json").read_text())
    assert config["domains"] == ["bear", "cat", "dog"] and config["networks"]["img_size"] == 64


def test_safetensors_hold_the_weights(tmp_path, model):
    safetensors = pytest.importorskip("safetensors.torch")
    export.main(["--checkpoint_dir", str(DEMO), "--format", "safetensors", "--out", str(tmp_path)])
    for name, network in model.solver.nets_ema.items():
        found = safetensors.load_file(tmp_path / f"{name}.safetensors")
        assert found.keys() == network.state_dict().keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in network.state_dict().items())
    assert "parameters" in run_readme(tmp_path)


def test_missing_packages_and_faces_are_one_sentence(tmp_path, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"^Cannot export as onnx \(no package onnxscript\)\. Run python -m pip"):
        export.export(model, "onnx", tmp_path)
    assert not list(tmp_path.glob("*.onnx"))
    monkeypatch.setitem(model.solver.nets_ema, "fan", None)
    with pytest.raises(UserError, match=r"^Cannot export a model for faces as ONNX"):
        export.export(model, "onnx", tmp_path)
