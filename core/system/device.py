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
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"Cannot use --device {name} (no CUDA device found). Omit --device to run on the CPU.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("Cannot use --device mps (no Apple GPU found). Omit --device to run on the CPU.")
    if name == "mps" and world_size() > 1:
        raise UserError("Cannot use --device mps with several processes (one Apple GPU). Start without torchrun.")
    if name.startswith("cuda:"):
        return _chosen_gpu(name, torch.cuda.device_count())
    if name == "cpu" or world_size() == 1:
        return torch.device(name)
    number, count = local_rank(), torch.cuda.device_count()
    if number >= count:
        cause = f"this machine has {counted(count, 'GPU')}"
        raise UserError(f"Cannot give each process its own GPU ({cause}). Pass --nproc_per_node {count} to torchrun.")
    torch.cuda.set_device(number)
    return torch.device(name, number)


def _chosen_gpu(name, count):
    """Return the torch.device of a GPU that the user chose by its number, of `count` GPUs."""
    device = torch.device(name)
    if device.index >= count:
        cause = f"this machine has {counted(count, 'GPU')}, counted from 0"
        raise UserError(f"Cannot use --device {name} ({cause}). Use --device cuda:{count - 1} or a lower number.")
    if world_size() > 1:
        raise UserError(f"Cannot use --device {name} with several processes (each takes its own GPU). Omit --device.")
    torch.cuda.set_device(device)  # for what PyTorch creates on the current GPU
    return device


def describe_device(device):
    """Return one line about the device and the number of processes."""
    each = f"{world_size()} processes, each on " if world_size() > 1 else ""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{each}cuda ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    if device.type == "cpu":
        return f"{each}cpu ({counted(torch.get_num_threads(), 'thread')})"
    return device.type


def autocast(device, precision):
    """Return the context for running networks. With bf16 it casts convolutions and products; weights stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def at_least_single(x):
    """Convert x to at least single precision. Autocast may return half precision, which is too coarse for sums, means
    and mixes."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_cuda_graph(is_wanted, device):
    """Raise UserError if --cuda_graph does not work here."""
    if is_wanted and (device.type != "cuda" or world_size() > 1):
        where = f"the device is {device.type}" if device.type != "cuda" else "there are several processes"
        raise UserError(f"Cannot use --cuda_graph ({where}). Omit it, or use one process with --device cuda.")


def set_precision(name, device):
    """Set the precision of fp32 products. PyTorch's default lets cuDNN round their inputs to TF32.

    Raises UserError if the device does not support it.
    """
    if name == "tf32" and device.type != "cuda":
        raise UserError(f"--precision must be fp32 or bf16 on {device.type} (tf32 needs CUDA), got tf32.")
    # With bf16 on CUDA, the products that stay fp32 (of R1 and the face network) use TF32: its rounding is eight times
    # finer than that of bf16, and without it they took longer than bf16 saved elsewhere (docs/performance.md).
    rounds = name == "tf32" or (name == "bf16" and device.type == "cuda")
    set_tf32(matmul=rounds, convolution=rounds)


def compiled(function, any_batch=False):
    """Return the form of a function that torch.compile compiles as one graph when it is called for the first time.

    any_batch: compile a second form, for any shapes, if shapes change. Otherwise each shape has its own form. This sets
    the limit of forms for the whole process.
    """
    # Each size of micro-batches that is tried has its own forms.
    torch._dynamo.config.recompile_limit = 64
    return torch.compile(function, fullgraph=True, dynamic=None if any_batch else False)


class CopyToCpu:
    """A copy of a tensor on the CPU, which is made while the device computes on."""

    def __init__(self, tensor):
        is_cuda = tensor.is_cuda
        self.copy = tensor.detach().to("cpu", non_blocking=is_cuda, copy=True)  # in pinned memory if from CUDA
        self.is_complete = torch.cuda.Event() if is_cuda else None
        if is_cuda:
            self.is_complete.record()

    def read(self):
        """Return the copy. This waits for what the device began before the copy, but not for what it began later."""
        if self.is_complete is not None:
            self.is_complete.synchronize()
        return self.copy


class CopyToDevice:
    """Copies batches to a device. On CUDA, from pinned memory, it does so while the device computes."""

    def __init__(self, device):
        self.device = torch.device(device)
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def __call__(self, tensors):
        """Return {name: copy} of {name: tensor}."""
        if self.stream is None:
            return {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}
        with torch.cuda.stream(self.stream):
            copies = {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}
        compute = torch.cuda.current_stream(self.device)
        compute.wait_stream(self.stream)
        for copy in copies.values():
            copy.record_stream(compute)  # The memory of a copy is not used again before the computations end.
        return copies


def usable_cores():
    """Return the number of cores this process may use (containers and schedulers often allow fewer than exist)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
