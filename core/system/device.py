"""The device and the precision of the networks."""

import os

import torch

from core.system.console import counted
from core.system.distributed import world_size
from core.system.errors import UserError
from core.system.launcher import local_rank
from metrics.precision import set_tf32


def select_device(name="auto"):
    """Return the torch.device for `--device`, a different GPU for each rank. Raises UserError if it is missing."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("Cannot use --device cuda (no CUDA device found). Omit --device to run on the CPU.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("Cannot use --device mps (no Apple GPU found). Omit --device to run on the CPU.")
    if name == "mps" and world_size() > 1:
        raise UserError("Cannot use --device mps with several processes (one Apple GPU). Start without torchrun.")
    if name == "cpu" or world_size() == 1:
        return torch.device(name)
    number, count = local_rank(), torch.cuda.device_count()
    if number >= count:
        cause = f"this machine has {counted(count, 'GPU')}"
        raise UserError(f"Cannot give each process its own GPU ({cause}). Pass --nproc_per_node {count} to torchrun.")
    torch.cuda.set_device(number)
    return torch.device(name, number)


def describe_device(device):
    """Return one line about the device and the number of processes."""
    each = f"{world_size()} processes, each on " if world_size() > 1 else ""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{each}cuda ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    if device.type == "cpu":
        return f"{each}cpu ({counted(torch.get_num_threads(), 'thread')})"
    return device.type


def check_precision(name, device):
    """Raise UserError if the device does not support the precision."""
    if name == "tf32" and device.type != "cuda":
        raise UserError(f"--precision must be fp32 or bf16 on {device.type} (tf32 needs CUDA), got tf32.")


def set_precision(name, device):
    """Set the precision of fp32 products. PyTorch's default lets cuDNN round their inputs to TF32."""
    check_precision(name, device)
    set_tf32(matmul=name == "tf32", convolution=name == "tf32")


def usable_cores():
    """Return the number of cores this process may use (containers and schedulers often allow fewer than exist)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
