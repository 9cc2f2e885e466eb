import pytest
import torch

from core.cli.values import DEVICE, parse_value
from core.solver import Solver
from core.system import device
from core.system.errors import UserError
from metrics.precision import full_precision


def test_select_device_falls_back_to_cpu(monkeypatch):
    assert device.select_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.select_device("auto").type == "cpu"
    with pytest.raises(UserError, match=r"^Cannot use --device cuda \(no CUDA device"):
        device.select_device("cuda")
    assert " thread" in device.describe_device(torch.device("cpu"))


def test_a_gpu_can_be_chosen_by_its_number(monkeypatch):
    """Simulated: PyTorch reports two GPUs."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert device.select_device("cuda:1") == torch.device("cuda", 1) == chosen[0]
    assert device.select_device("cuda") == torch.device("cuda")
    with pytest.raises(UserError, match=r"^Cannot use --device cuda:2 \(this machine has 2 GPUs"):
        device.select_device("cuda:2")
    monkeypatch.setattr(device, "world_size", lambda: 2)
    with pytest.raises(UserError, match=r"^Cannot use --device cuda:1 with several processes"):
        device.select_device("cuda:1")


@pytest.mark.parametrize("text", ["cuda:", "cuda:x", "cuda:-1", "cuda:1000", "gpu", "cuda:٣", "CPU"])
def test_other_devices_are_refused(text):
    with pytest.raises(
        UserError, match=r"^--device must be one of auto, cpu, cuda, mps, or a GPU such as cuda:1, got "
    ):
        parse_value("device", DEVICE, text)


def test_tf32_needs_cuda():
    with pytest.raises(UserError, match=r"^--precision must be fp32 or bf16 on cpu \(tf32 needs CUDA\)"):
        device.set_precision("tf32", torch.device("cpu"))


def tf32_flags():
    """What PyTorch and libraries read: matrix products, convolutions, and both by the name of the precision."""
    backends = torch.backends
    return backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("mixed", [False, True])
def test_tf32_flags_can_be_read_after_a_precision_is_set(mixed):
    """Also where a script or a library has set the newer flags before. Warnings are errors here."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for name, is_tf32 in (("fp32", False), ("tf32", True), ("fp32", False), ("bf16", True)):
            if mixed:
                matmul.fp32_precision, conv.fp32_precision = "tf32", "ieee"
            device.set_precision(name, torch.device("cuda"))
            expected = (is_tf32, is_tf32, "high" if is_tf32 else "highest")
            assert tf32_flags() == expected
            with full_precision(torch.device("cpu")):
                assert tf32_flags() == (False, False, "highest")
            assert tf32_flags() == expected
    finally:
        matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_products_that_stay_fp32_with_bf16_use_tf32_on_cuda_only():
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for name, is_tf32 in (("cuda", True), ("cpu", False)):
            device.set_precision("bf16", torch.device(name))
            assert tf32_flags()[:2] == (is_tf32, is_tf32)
    finally:
        matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_a_recording_needs_cuda(parse):
    with pytest.raises(UserError, match=r"^Cannot use --cuda_graph \(the device is cpu\)"):
        Solver(parse("train", "--num_domains 2 --cuda_graph"))


@pytest.mark.parametrize(("flags", "is_last"), [
    ("", False), ("--channels_last auto", False), ("--channels_last no", False), ("--channels_last", True),
    ("--channels_last yes", True),
])  # fmt: skip
def test_channels_last_can_be_given_alone_or_with_a_value(flags, is_last, parse):
    solver = Solver(parse("sample", f"--num_domains 2 {flags}"))
    weight = solver.nets_ema.generator.encode[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == is_last


def test_batches_stay_on_the_cpu_of_a_mac_with_an_apple_gpu(monkeypatch):
    """There, PyTorch's context for streams of CUDA fails."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    x = torch.ones(2)
    assert device.CopyToDevice("cpu")({"x": x})["x"] is x


def test_a_copy_on_the_cpu_keeps_its_values():
    tensor = torch.ones(2)
    copy = device.CopyToCpu(tensor)
    tensor.zero_()
    assert copy.read().tolist() == [1, 1]


def test_a_generator_can_be_exported_after_a_solver_exists(parse):
    solver = Solver(parse("train", "--num_domains 2"))
    inputs = torch.randn(1, 3, 32, 32), torch.randn(1, 64)
    exported = torch.export.export(solver.nets_ema.generator, inputs)
    torch.testing.assert_close(exported.module()(*inputs), solver.nets_ema.generator(*inputs))
