import pytest
import torch

from core.system import device, random
from core.system.errors import UserError


def test_generators_depend_on_their_key_alone():
    def draw(*key):
        return torch.rand(3, generator=random.random_generator(*key)).tolist()

    assert draw(777, "z", 5) == draw(777, "z", 5)
    assert len({tuple(draw(*key)) for key in [(777, "z", 5), (777, "z", 6), (778, "z", 5), (777, "source", 5)]}) == 4


def test_devices(monkeypatch):
    assert device.select_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.select_device("auto").type == "cpu"
    with pytest.raises(UserError, match="--device cuda: no CUDA device"):
        device.select_device("cuda")
    assert "threads" in device.describe_device(torch.device("cpu"))


def test_tf32_is_for_cuda():
    with pytest.raises(UserError, match="--precision tf32 needs CUDA, but the networks run on cpu"):
        device.set_precision("tf32", torch.device("cpu"))
