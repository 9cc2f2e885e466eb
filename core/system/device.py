"""The device and the precision that networks run on.

Networks use the device of their input; only the Solver asks which one that is.
"""

import os

import torch

from core.system.distributed import world_size
from core.system.errors import UserError


def select_device(name="auto"):
    """Return the torch.device for `--device`: auto takes CUDA where there is one, else the CPU.

    Of several processes on a machine each takes a GPU of its own. Raises UserError.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device can be used here; leave --device out to run on the CPU")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: no Apple GPU can be used here; leave --device out to run on the CPU")
    if name == "cuda" and world_size() > 1:
        number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= count:
            raise UserError(f"there are fewer GPUs than processes on this machine: --nproc_per_node {count} would fit")
        torch.cuda.set_device(number)
        return torch.device(name, number)
    if name == "mps" and world_size() > 1:
        raise UserError("--device mps: there is one Apple GPU, so start without torchrun")
    return torch.device(name)


def describe_device(device):
    """One line for people: what runs the networks."""
    each = f"{world_size()} processes, each on " if world_size() > 1 else ""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{each}cuda ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    if device.type == "cpu":
        return f"{each}cpu ({torch.get_num_threads()} threads)"
    return device.type


def check_precision(name, device):
    """Raise UserError where a device has no such precision."""
    if name == "tf32" and device.type != "cuda":
        raise UserError(f"--precision tf32 needs CUDA, but the networks run on {device.type}: leave it out")


def set_precision(name, device):
    """Choose how fp32 products are made: PyTorch lets cuDNN round their inputs to TF32 by default."""
    check_precision(name, device)
    fp32 = "tf32" if name == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = fp32
    torch.backends.cudnn.conv.fp32_precision = fp32


def autocast(device, precision):
    """The context in which networks run: bf16 casts convolutions and products, weights stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def usable_cores():
    """Processors this process may use (containers and schedulers often allow fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
