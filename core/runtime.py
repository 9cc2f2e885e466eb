"""Where the program runs and what chance it sees: device, precision, random generators.

Networks use the device of their input; only the Solver asks this module which one that is.
"""

import hashlib
import os

import torch

from core import log
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


def chunks(count, size):
    """Slices of at most `size` that cover range(count)."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class MicroBatch:
    """How many images go through the networks at once.

    setting: a number, or "auto": the whole batch, halved for good each time memory runs out. (Where a
    system ends a process that asks for too much, as Linux does for CPU memory, only a number helps.)
    """

    def __init__(self, setting, batch_size):
        self.automatic = setting == "auto"
        self.size = batch_size if self.automatic else min(setting, batch_size)

    def fit(self, work):
        """Return work(size), again with half the size where memory ran out; work must bear repeating."""
        while True:
            try:
                return work(self.size)
            except RuntimeError as error:
                if not (_is_out_of_memory(error) and self.automatic and self.size > 1):
                    raise
            self.size //= 2  # outside the handler, whose traceback would keep the tensors alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.warn(f"memory ran out: going on with {self.size} images at once (--micro_batch {self.size})")


def _is_out_of_memory(error):
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def reader_died(error):
    """Whether an error of a DataLoader says that one of its processes is gone, maybe amid handing over a batch."""
    if "in DataLoader worker process" in str(error):
        return False  # handed on by one that lives
    return isinstance(error, (ConnectionError, EOFError, FileNotFoundError)) or (
        isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
    )


def explain(error):
    """One sentence for what the system refused; an empty text where the error is another one."""
    if _is_out_of_memory(error):
        return (
            "memory ran out: choose a smaller --img_size, --channel_base, --val_batch_size or --micro_batch, or end "
            "other programs"
        )
    if "shared memory" in str(error) or "/torch_" in str(error):
        return "shared memory ran out: choose fewer --num_workers (0: none)"
    if reader_died(error):
        return (
            "a process that reads images was ended from outside, often for lack of memory: choose fewer --num_workers "
            "(0: none)"
        )
    return ""


def usable_cores():
    """Processors this process may use (containers and schedulers often allow fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def images_at_once(device, img_size, batch_size):
    """How many images best go through the networks together where nothing is learned.

    On a GPU the whole batch. On a CPU small ones, whose tensors stay in the caches: at 256 px, two are a
    quarter faster than eight and need half a gigabyte less.
    """
    return batch_size if device.type != "cpu" else max(1, min(batch_size, 2**17 // img_size**2))


def random_generator(*key):
    """A CPU torch.Generator that depends on `key` alone: (seed, "z", iteration) say.

    Batches and codes are drawn from these, so that what iteration i sees is a function of (seed, i):
    the same on every device, for every number of workers, and after a resume.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
