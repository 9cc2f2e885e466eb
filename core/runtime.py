"""Where the program runs and what chance it sees: device, precision, random generators.

Networks use the device of their input; only the Solver asks this module which one that is.
"""

import hashlib
import os

import torch

from core.errors import UserError


def select_device(name="auto"):
    """Return the torch.device for `--device`: auto takes CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device can be used here; leave --device out to run on the CPU")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: no Apple GPU can be used here; leave --device out to run on the CPU")
    return torch.device(name)


def describe_device(device):
    """One line for people: what runs the networks."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"cuda ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device.type


def set_precision(name, device):
    """Choose how fp32 products are made: PyTorch lets cuDNN round their inputs to TF32 by default."""
    if name == "tf32" and device.type != "cuda":
        raise UserError(f"--precision tf32 needs CUDA, but the networks run on {device.type}: leave it out")
    fp32 = "tf32" if name == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = fp32
    torch.backends.cudnn.conv.fp32_precision = fp32


def autocast(device, precision):
    """The context in which networks run: bf16 casts convolutions and products, weights stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def usable_cores():
    """Processors this process may use (containers and schedulers often allow fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def random_generator(*key):
    """A CPU torch.Generator that depends on `key` alone: (seed, "z", iteration) say.

    Batches and codes are drawn from these, so that what iteration i sees is a function of (seed, i):
    the same on every device, for every number of workers, and after a resume.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
