import pytest
import torch

from core.system import device
from core.system.errors import UserError


def test_select_device_falls_back_to_cpu(monkeypatch):
    assert device.select_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.select_device("auto").type == "cpu"
    with pytest.raises(UserError, match=r"^Cannot use --device cuda \(no CUDA device"):
        device.select_device("cuda")
    assert " thread" in device.describe_device(torch.device("cpu"))


def test_tf32_needs_cuda():
    with pytest.raises(UserError, match=r"^--precision must be fp32 or bf16 on cpu \(tf32 needs CUDA\)"):
        device.set_precision("tf32", torch.device("cpu"))
